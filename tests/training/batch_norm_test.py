"""Batch norm's statistics are those of the data and of the weights as they are."""

from __future__ import annotations

import numpy as np
import pytest

import wrpn_tf
from wrpn_tf.training import ReestimateBatchNorm, reestimate_batch_norm

# Means of some hundred float32 values, added up in another order.
TOLERANCE = 1e-5


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(1, 2, (300, 6, 6, 2)).astype(np.float32)


@pytest.fixture
def make_net(flavor):
    """Returns a function that makes a net with two batch norms, and dropout between them."""

    def make(dropout=0.5):
        L = flavor.layers
        inputs = L.Input((6, 6, 2))
        x = L.Conv2D(4, 3, name="conv")(inputs)
        x = L.ReLU(name="relu")(L.BatchNormalization(name="norm1")(x))
        x = L.GlobalAveragePooling2D()(x)
        x = L.Dropout(dropout)(x)
        x = L.Dense(5, name="hidden")(x)
        x = L.BatchNormalization(name="norm2")(x)
        return flavor.keras.Model(inputs, L.Dense(3, name="logits")(x))

    return make


def statistics(model, name):
    """Returns the moving mean and variance of a layer, in a wrapper or not."""
    found = {layer.name.removeprefix("quant_"): layer for layer in model.layers}[name]
    norm = wrpn_tf.quantization.inner_layer(found)
    return np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)


def compiled(flavor, model, learning_rate=0.1):
    loss = flavor.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(flavor.keras.optimizers.SGD(learning_rate), loss, jit_compile=False)
    return model


def test_statistics_are_the_mean_and_variance_of_all_examples(flavor, make_net, images):
    model = make_net()
    reestimate_batch_norm(model, images, verbose=False)  # 128, 128 and 44 images.
    conv = flavor.keras.Model(model.input, model.get_layer("conv").output)
    values = np.asarray(conv(images), np.float64)
    mean, variance = statistics(model, "norm1")
    np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(variance, values.var((0, 1, 2)), rtol=TOLERANCE)


def test_later_layers_see_what_training_shows_them_without_dropout(flavor, make_net, images):
    model, reference = make_net(dropout=0.5), make_net(dropout=0.0)
    reference.set_weights(model.get_weights())
    for name in ("norm1", "norm2"):
        reference.get_layer(name).momentum = 0.0
    expected = np.asarray(reference(images, training=True))
    reestimate_batch_norm(model, [images], verbose=False)
    # In the reference, the average of tf_keras' fused kernel is by n - 1, of 300 * 16 positions;
    # the rest is float32.
    tolerance = 1.1 / (300 * 16 - 1)
    for name in ("norm1", "norm2"):
        for ours, theirs in zip(statistics(model, name), statistics(reference, name), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    np.testing.assert_allclose(np.asarray(model(images)), expected, rtol=tolerance, atol=tolerance)


def test_nothing_but_statistics_changes(flavor, make_net, images):
    model = wrpn_tf.quantize_model(make_net())
    wrpn_tf.calibrate(model, images, verbose=False)
    before = model.get_weights()
    reestimate_batch_norm(model, images, max_batches=1, verbose=False)
    changed = {
        (getattr(v, "path", None) or v.name).split(":")[0].rpartition("/")[2]
        for v, old in zip(model.weights, before, strict=True)
        if (np.asarray(v) != old).any()
    }
    assert changed == {"moving_mean", "moving_variance"}
    first = statistics(model, "norm1")
    reestimate_batch_norm(model, images[:128], verbose=False)
    for ours, theirs in zip(statistics(model, "norm1"), first, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "2w8a"])
def test_scale_of_a_kernel_before_batch_norm_is_forgotten(flavor, quantized, images):
    model = wrpn_tf.applications.ResNet8(
        input_shape=(6, 6, 2), keras_flavor=flavor.name, classifier_activation=None
    )
    if quantized:
        model = wrpn_tf.quantize_model(model)
        wrpn_tf.calibrate(model, images, verbose=False)
    reestimate_batch_norm(model, images, verbose=False)
    before = np.asarray(model(images))
    assert np.abs(before).max() > 0.1
    for layer in model.layers:
        if layer.name.endswith(("_conv1", "_conv2", "stem_conv")):
            kernel = layer.trainable_weights[0]
            kernel.assign(np.asarray(kernel) * 4)
    stale = np.asarray(model(images))
    reestimate_batch_norm(model, images, verbose=False)
    # A quarter of batch norm's epsilon, and levels that it moves a value to or from.
    close = np.abs(np.asarray(model(images)) - before)
    assert np.median(close) < 1e-2
    assert np.median(np.abs(stale - before)) > 10 * np.median(close)


def test_frozen_layers_keep_their_statistics(flavor, make_net, images):
    model = make_net()
    model.get_layer("norm1").trainable = False
    kept = statistics(model, "norm1")
    reestimate_batch_norm(model, images, verbose=False)
    for ours, theirs in zip(statistics(model, "norm1"), kept, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (statistics(model, "norm2")[0] != 0).all()
    model.get_layer("norm2").trainable = False
    with pytest.raises(ValueError, match="`model` must have a BatchNormalization that is trainab"):
        reestimate_batch_norm(model, images)


@pytest.mark.parametrize(
    ("dataset", "options", "error", "message"),
    [
        (lambda x: [], {}, ValueError, "`dataset` must hold at least one batch"),
        (lambda x: "images", {}, ValueError, "`dataset` must be an array or an iterable"),
        (lambda x: [x, x[:, :5]], {}, ValueError, r"`dataset` must give inputs of shape"),
        (lambda x: [x, x * np.nan], {}, ValueError, "finite .* got NaN or infinity before 'norm1'"),
        (lambda x: x, {"max_batches": 0}, ValueError, "`max_batches` must be at least 1, got 0"),
        (lambda x: x, {"max_batches": 2.0}, TypeError, "`max_batches` must be an integer"),
    ],
)
def test_bad_data_is_refused_and_statistics_stay(
    make_net, images, dataset, options, error, message
):
    model = make_net()
    before = model.get_weights()
    with pytest.raises(error, match=message):
        reestimate_batch_norm(model, dataset(images), verbose=False, **options)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("distilled", [False, True], ids=["plain", "distilled"])
def test_callback_reestimates_before_validation_and_leaves_training_alone(
    flavor, make_net, images, validated, distilled
):
    labels = np.arange(len(images)) % 3
    net, teacher = make_net(dropout=0.0), make_net(dropout=0.0)
    results = []
    for with_callback in (False, True):
        model = trainer = wrpn_tf.quantize_model(net)
        if distilled:
            trainer = wrpn_tf.Distiller(model, teacher)
            trainer.compile(flavor.keras.optimizers.SGD(0.1), jit_compile=False)
        else:
            compiled(flavor, model)
        callbacks = [ReestimateBatchNorm(trainer, images, max_batches=2)] if with_callback else []
        history = trainer.fit(
            images,
            labels,
            batch_size=50,
            epochs=2,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
            validation_data=(images, labels) if validated else None,
        ).history
        results.append([np.asarray(v) for v in model.trainable_weights])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = statistics(model, "norm1")
    if validated:
        # What was validated is the network as it is now.
        loss = trainer.evaluate(images, labels, verbose=0, return_dict=True)["loss"]
        assert loss == pytest.approx(history["val_loss"][-1], rel=TOLERANCE)
    reestimate_batch_norm(model, images, max_batches=2, verbose=False)
    for ours, theirs in zip(statistics(model, "norm1"), found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_callback_refuses_before_training(make_net, images):
    model = make_net()
    with pytest.raises(ValueError, match="starts again in each epoch, got the iterator generator"):
        ReestimateBatchNorm(model, (images for _ in range(3)))
    with pytest.raises(ValueError, match="`max_batches` must be at least 1"):
        ReestimateBatchNorm(model, images, max_batches=0)
    model.trainable = False
    with pytest.raises(ValueError, match="`model` must have a BatchNormalization"):
        ReestimateBatchNorm(model, images)
