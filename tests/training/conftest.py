"""Small classifiers and data for the Distiller's tests."""

from __future__ import annotations

import numpy as np
import pytest

NUM_CLASSES = 3


@pytest.fixture
def classifier(flavor):
    """Returns a function that makes a net with weights drawn from a seed, in the test's Keras."""

    def make(
        seed: int = 1,
        units: int = 5,
        activation=None,
        *,
        batch_norm: bool = False,
        dropout: float = 0.0,
        features: int = 4,
        classes: int = NUM_CLASSES,
        regularizer=None,
    ):
        keras = flavor.keras
        inputs = keras.Input((features,))
        x = keras.layers.Dense(units, activation="relu", kernel_regularizer=regularizer)(inputs)
        if batch_norm:
            x = keras.layers.BatchNormalization()(x)
        if dropout:
            x = keras.layers.Dropout(dropout, seed=7)(x)
        model = keras.Model(inputs, keras.layers.Dense(classes, activation=activation)(x))
        generator = np.random.default_rng(seed)
        model.set_weights(
            # A variance must not be negative, hence the absolute values.
            [
                np.abs(generator.normal(size=w.shape))
                if "variance" in w.name
                else generator.normal(size=w.shape)
                for w in model.weights
            ]
        )
        return model

    return make


@pytest.fixture
def data():
    """24 examples of 4 features, and the class of each."""
    x = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
    return x, np.argmax(x[:, :NUM_CLASSES], axis=1)


@pytest.fixture
def counted(flavor):
    """Returns a function that puts a layer before a model, and counts the runs of that layer."""
    keras = flavor.keras

    class Counter(keras.layers.Layer):
        runs = 0

        def call(self, inputs):
            self.runs += 1
            return inputs

    def make(model):
        counter = Counter()
        inputs = keras.Input(model.inputs[0].shape[1:])
        return keras.Model(inputs, model(counter(inputs))), counter

    return make


@pytest.fixture
def assert_same_weights():
    """Returns a function that compares two lists of arrays exactly."""

    def check(actual, expected):
        assert len(actual) == len(expected)
        for index, (a, e) in enumerate(zip(actual, expected, strict=True)):
            np.testing.assert_array_equal(a, e, err_msg=f"weight {index}")

    return check
