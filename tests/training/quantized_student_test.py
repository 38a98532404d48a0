"""Distillation of students that `wrpn_tf.quantize_model` made."""

from __future__ import annotations

import numpy as np
import pytest

import wrpn_tf
from wrpn_tf.training import Distiller, model_outputs
from wrpn_tf.training.distributions import BERNOULLI, CATEGORICAL


@pytest.fixture
def float_model(flavor):
    """Returns a function that makes a small convolutional net."""

    def make(activation=None):
        keras = flavor.keras
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(4, 3, use_bias=False)(inputs)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.Conv2D(8, 3, activation="relu")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(3, activation=activation)(x))

    return make


@pytest.fixture
def images():
    """Twelve images and their classes: the brightest of three rows."""
    x = np.random.default_rng(0).random((12, 8, 8, 1)).astype(np.float32)
    return x, np.argmax(x[:, :3, :, 0].sum(axis=2), axis=1)


@pytest.mark.parametrize(
    ("activation", "distribution", "kind"),
    [
        (None, CATEGORICAL, "logits"),
        ("softmax", CATEGORICAL, "probabilities"),
        (None, BERNOULLI, "logits"),
        ("sigmoid", BERNOULLI, "probabilities"),
    ],
)
def test_the_outputs_of_quantized_models_are_found_out(float_model, activation, distribution, kind):
    student = wrpn_tf.quantize_model(float_model(activation))
    assert model_outputs.output_kind(student, "auto", "student", distribution) == kind


def test_scheme_c_starts_from_the_float_weights_and_trains_them(
    flavor, float_model, images, tmp_path
):
    x, y = images
    model = float_model()
    student = wrpn_tf.quantize_model(model)
    kernels = {w.shape: w for w in model.get_weights() if w.ndim == 4}
    latent = {w.shape: w for w in student.get_weights() if w.ndim == 4}
    assert set(latent) == set(kernels)
    for shape, kernel in kernels.items():
        np.testing.assert_array_equal(latent[shape], kernel)
    distiller = Distiller(student, model, scheme="C")
    distiller.compile(metrics=["accuracy"])
    distiller.fit(x, y, batch_size=4, epochs=2, verbose=0)
    changed = [w for w in student.get_weights() if w.ndim == 4]
    assert all((w != kernels[w.shape]).any() for w in changed)
    # Adam moves a weight by at most its learning rate in a step; 6 steps.
    assert all(np.abs(w - kernels[w.shape]).max() < 6 * 1.1e-4 for w in changed)
    path = str(tmp_path / "student.keras")
    distiller.save(path)
    loaded = flavor.keras.models.load_model(path)
    # Compared on logits of an 8-bit grid.
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), distiller.predict(x, verbose=0), atol=1e-6
    )


def test_an_interrupted_training_goes_on_exactly(flavor, float_model, images, tmp_path):
    x, y = images
    keras = flavor.keras
    model, teacher = float_model(), float_model("softmax")

    def train(epochs, backup=None):
        student = wrpn_tf.quantize_model(model)
        distiller = Distiller(student, teacher)
        distiller.compile(keras.optimizers.Adam(0.01))
        callbacks = [backup] if backup else []
        distiller.fit(
            x, y, batch_size=4, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=0
        )
        return student.get_weights()

    folder = str(tmp_path / "backup")
    expected = train(4)
    # Ending the run early stands for the interruption: the backup is kept.
    train(2, keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False))
    resumed = train(4, keras.callbacks.BackupAndRestore(folder))
    for ours, theirs in zip(resumed, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
