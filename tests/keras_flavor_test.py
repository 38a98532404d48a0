"""Telling the two Keras apart, cloning their layers, and loading tfmot beside them."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from wrpn_tf import keras_flavor
from wrpn_tf.keras_flavor import clone_layer

# Flavours.


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_flavour_by_name(name):
    assert keras_flavor.get_flavor(name).name == name
    assert keras_flavor.get_flavor(name).keras.__name__ == name


def test_unknown_flavour_is_refused():
    with pytest.raises(ValueError, match='`name` must be "keras" or "tf_keras", got \'jax\''):
        keras_flavor.get_flavor("jax")


def test_flavours_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        keras_flavor.KERAS.name = "tf_keras"


def test_flavour_of_models_layers_and_subclasses(flavor):
    class Mine(flavor.layers.Layer):
        """A user's layer."""

    model = flavor.keras.Sequential([flavor.layers.Dense(1)])
    assert keras_flavor.flavor_of(model) is flavor
    assert keras_flavor.flavor_of(flavor.layers.Dense(1)) is flavor
    assert keras_flavor.flavor_of(Mine()) is flavor


def test_flavour_of_anything_else_is_refused():
    with pytest.raises(
        TypeError, match="`teacher` must be a Keras 3 or tf_keras model, got int: 3"
    ):
        keras_flavor.flavor_of(3, "teacher")


# Cloning.


def test_clone_changes_what_is_asked_for(flavor):
    layer = flavor.layers.Conv2D(4, 3, strides=2, trainable=False, name="conv")
    clone = clone_layer(layer, filters=8, name="other")
    config = {**layer.get_config(), "filters": 8, "name": "other"}
    assert clone.get_config() == config
    assert clone is not layer


def test_clone_refuses_an_entry_that_the_layer_lacks(flavor):
    with pytest.raises(TypeError, match="Dense has no configuration entry filters, rank"):
        clone_layer(flavor.layers.Dense(1), filters=3, rank=2)


def test_clone_does_not_share_weights(flavor):
    layer = flavor.layers.Dense(2)
    layer.build((None, 3))
    clone = clone_layer(layer)
    assert not clone.weights


def _double(x):
    return x * 2


def test_clone_keeps_functions_that_cannot_be_found_by_name(flavor):
    dense = clone_layer(flavor.layers.Dense(2, activation=_double))
    assert dense.activation is _double
    relu = clone_layer(flavor.layers.Dense(2, activation=_double), activation="relu")
    assert relu.activation.__name__ == "relu"
    scale = 3.0
    values = np.array([0.5, -2.0], "float32")
    for function in (_double, lambda x: x * scale):
        clone = clone_layer(flavor.layers.Lambda(function, name="mine"))
        assert clone.name == "mine"
        np.testing.assert_array_equal(clone(values), function(values))


# tfmot.


def test_importing_tfmot_leaves_the_users_keras_alone(monkeypatch):
    import tensorflow as tf

    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    before = tf.keras.layers.Dense
    tfmot = keras_flavor.import_tfmot()
    assert hasattr(tfmot.quantization.keras, "quantize_apply")
    assert tf.keras.layers.Dense is before
    assert "TF_USE_LEGACY_KERAS" not in os.environ
