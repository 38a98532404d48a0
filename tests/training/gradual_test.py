"""Weights that are quantized step by step: what training steps compute with, and when."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import WRPNWeightQuantizer, blend_variables
from wrpn_tf.training import GradualQuantization


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 6)).astype(np.float32), rng.integers(0, 3, 32)


def make(flavor, gradual=True, overrides=None):
    L = flavor.layers
    flavor.keras.utils.set_random_seed(1)
    inputs = flavor.keras.Input((6,))
    outputs = L.Dense(3, use_bias=False, name="head")(L.Dense(8, name="first")(inputs))
    model = flavor.keras.Model(inputs, outputs)
    return wrpn_tf.quantize_model(
        model, first_layer=2, last_layer=2, overrides=overrides, gradual=gradual
    )


def compiled(flavor, model):
    loss = flavor.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(flavor.keras.optimizers.SGD(0.1), loss)
    return model


def blends(model):
    layers = model_graph(model).layers().values()
    return [float(variable) for layer in layers for variable in blend_variables(layer)]


def watched(flavor, model):
    """A callback, and the list to which it appends the blends of each step."""
    seen = []

    class Watch(flavor.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(blends(model))

    return Watch(), seen


def test_epochs_take_their_share(flavor, data):
    model = compiled(flavor, make(flavor))
    assert blends(model) == [1, 1]
    watch, seen = watched(flavor, model)
    callback = GradualQuantization(model, epochs=4)
    model.fit(*data, batch_size=32, epochs=6, verbose=0, callbacks=[callback, watch])
    assert [pair[0] for pair in seen] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert all(first == second for first, second in seen)
    assert blends(model) == [1, 1]
    # A training that goes on is where it was.
    model.fit(
        *data, batch_size=32, initial_epoch=3, epochs=4, verbose=0, callbacks=[callback, watch]
    )
    assert seen[-1] == pytest.approx([0.75, 0.75])
    assert blends(model) == [1, 1]


def test_a_training_that_stops_early_leaves_quantized_weights(flavor, data):
    model = compiled(flavor, make(flavor))

    class Stop(flavor.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    callbacks = [GradualQuantization(model, epochs=4), Stop()]
    model.fit(*data, epochs=6, verbose=0, callbacks=callbacks)
    assert blends(model) == [1, 1]


@pytest.mark.parametrize("blend", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("rule", ["mean", 0.5])
@pytest.mark.parametrize("num_bits", [1, 2])
def test_training_steps_blend_and_inference_does_not(num_bits, rule, blend):
    weights = np.random.default_rng(0).normal(0, 0.5, (40, 3)).astype(np.float32)
    quantizer = WRPNWeightQuantizer(num_bits, rule, gradual=True)
    plain = WRPNWeightQuantizer(num_bits, rule)
    levels = quantizer.scale(weights) * quantizer.to_int(weights)
    variables = {"blend": tf.constant(blend)}
    latent, upstream = tf.constant(weights), tf.random.normal(weights.shape, seed=1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(latent)
        blended = quantizer(latent, True, variables)
        quantized = plain(latent, True, {})
    np.testing.assert_array_equal(quantizer(latent, False, variables), levels)
    expected = weights + np.float32(blend) * (levels - weights)
    np.testing.assert_allclose(blended, expected, rtol=1e-6, atol=1e-7)
    # A weighted mean of the float weights' gradient and the quantized ones'.
    gradient = (1 - blend) * upstream + blend * tape.gradient(quantized, latent, upstream)
    found = tape.gradient(blended, latent, upstream)
    np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-6)


def test_a_network_trains_through_float_weights(flavor, data):
    """With b = 0 one step moves the weights as it does those of a network with float weights."""
    images, labels = data
    unrounded = {"first|head": {"num_bits_activation": "float"}}
    gradual = compiled(flavor, make(flavor, overrides=unrounded))
    gradual.fit(
        images,
        labels,
        batch_size=32,
        verbose=0,
        callbacks=[GradualQuantization(gradual, epochs=2)],
    )
    L = flavor.layers
    flavor.keras.utils.set_random_seed(1)
    inputs = flavor.keras.Input((6,))
    outputs = L.Dense(3, use_bias=False, name="head")(L.Dense(8, name="first")(inputs))
    network = compiled(flavor, flavor.keras.Model(inputs, outputs))
    start = network.get_weights()
    network.fit(images, labels, batch_size=32, verbose=0)
    trained = {v.shape: np.array(v) for v in gradual.trainable_variables if len(v.shape) == 2}
    for before, after in zip(start, network.get_weights(), strict=True):
        if after.ndim == 2:
            moved, expected = trained[after.shape] - before, after - before
            # Apart from the rounding of inputs to eight bits.
            np.testing.assert_allclose(moved, expected, atol=0.02 * np.abs(expected).max())


def test_a_distillers_student_is_found(flavor, data):
    student = make(flavor)
    L = flavor.layers
    inputs = flavor.keras.Input((6,))
    teacher = flavor.keras.Model(inputs, L.Dense(3)(inputs))
    trainer = wrpn_tf.Distiller(student, teacher)
    trainer.compile(flavor.keras.optimizers.SGD(0.1))
    watch, seen = watched(flavor, student)
    callback = GradualQuantization(trainer, epochs=2)
    trainer.fit(*data, batch_size=32, epochs=3, verbose=0, callbacks=[callback, watch])
    assert [pair[0] for pair in seen] == [0, 0.5, 1]


def test_a_gradual_model_is_saved_as_any(flavor, data, tmp_path):
    model = compiled(flavor, make(flavor))
    model.fit(*data, epochs=3, verbose=0, callbacks=[GradualQuantization(model, epochs=2)])
    file = tmp_path / "net.keras"
    model.save(file)
    loaded = flavor.keras.models.load_model(file, compile=False)
    assert blends(loaded) == [1, 1]
    np.testing.assert_array_equal(loaded.predict(data[0]), model.predict(data[0]))


def test_widening_passes_it_on(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((6,))
    model = flavor.keras.Model(inputs, L.Dense(3)(L.Dense(8)(inputs)))
    wide = wrpn_tf.widen_and_quantize(model, gradual=True)
    assert blends(wide) == [1, 1]
    assert blends(wrpn_tf.widen_and_quantize(model)) == []


def test_a_model_that_is_not_gradual_is_refused(flavor):
    with pytest.raises(ValueError, match="`model` must be quantized with `gradual=True`, got"):
        GradualQuantization(make(flavor, gradual=False), epochs=3)


@pytest.mark.parametrize(
    ("epochs", "error", "words"),
    [
        (0, ValueError, "`epochs` must be at least 1, got 0"),
        (2.5, TypeError, "`epochs` must be an integer, got 2.5"),
        (True, TypeError, "`epochs` must be an integer, got True"),
    ],
)
def test_epochs_out_of_range_are_refused(epochs, error, words):
    with pytest.raises(error, match=words):
        GradualQuantization(make(KERAS), epochs=epochs)


def test_gradual_is_true_or_false():
    with pytest.raises(TypeError, match="`gradual` must be True or False, got 24"):
        make(KERAS, gradual=24)
