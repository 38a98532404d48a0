"""Widened models: built as planned, in the user's flavour, with the user's settings."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.widening import networks
from wrpn_tf import keras_flavor
from wrpn_tf.model_graph import model_graph
from wrpn_tf.widening import plan_widths, widen_model

ALL_NETWORKS = (*networks.REPLICABLE, networks.normalized)


def _weights(model):
    return [np.array(weight) for weight in model.get_weights()]


@pytest.mark.parametrize("build", ALL_NETWORKS)
@pytest.mark.parametrize("multiplier", [1.3, 0.5])
def test_widened_model_has_the_planned_widths(flavor, build, multiplier):
    model = build(flavor)
    plan = plan_widths(model, width_multiplier=multiplier)
    wide = widen_model(model, width_multiplier=multiplier)
    made = {call.path: _made_width(call.layer) for call in model_graph(wide).calls}
    assert {path.replace("/", "_"): width for path, width in plan.items()}.items() <= made.items()
    assert wide.output_shape == model.output_shape
    assert wide.input_shape == model.input_shape


def _made_width(layer):
    config = layer.get_config() if hasattr(layer, "get_config") else {}
    if type(layer).__name__ == "EinsumDense":
        return config["output_shape"][-1]
    return next((config[key] for key in ("filters", "units", "output_dim") if key in config), None)


@pytest.mark.parametrize("build", [networks.residual, networks.operators])
def test_widened_model_trains(flavor, build):
    wide = widen_model(build(flavor))
    wide.compile("sgd", "mse")
    images = np.random.default_rng(0).normal(size=(4, *wide.input_shape[1:])).astype("float32")
    before = _weights(wide)
    wide.fit(images, np.ones((4, 4)), verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, _weights(wide), strict=True) if a.ndim > 1)


def test_the_users_model_is_not_changed(flavor):
    model = networks.nested(flavor)
    before, config = _weights(model), model.to_json()
    widen_model(model, preserve_function=True, noise=0.1)
    assert model.to_json() == config
    assert all(np.array_equal(a, b) for a, b in zip(before, _weights(model), strict=True))


def test_layers_keep_flavour_names_and_settings(flavor):
    keras, layers = flavor.keras, flavor.layers
    x = inputs = keras.Input((4, 4, 3), name="pixels")
    x = layers.Conv2D(8, 3, kernel_regularizer=keras.regularizers.L2(0.5), name="regularized")(x)
    x = layers.BatchNormalization(trainable=False, name="still")(x)
    x = layers.Flatten(name="flat")(x)
    model = keras.Model(inputs, layers.Dense(2, dtype="float64", name="wide")(x), name="net")
    wide = widen_model(model)
    assert keras_flavor.flavor_of(wide) is flavor
    assert wide.name == "net"
    assert [layer.name for layer in wide.layers] == [layer.name for layer in model.layers]
    assert float(wide.get_layer("regularized").kernel_regularizer.l2) == 0.5
    assert not wide.get_layer("still").trainable
    assert wide.get_layer("wide").variables[0].dtype == "float64"


def frozen_base(flavor):
    """A classifier on frozen features, as transfer learning makes them."""
    base = networks.residual(flavor)
    base.trainable = False
    inputs = flavor.keras.Input(base.inputs[0].shape[1:])
    x = flavor.layers.Normalization(mean=0.5, variance=0.1, name="normalization")(inputs)
    x = flavor.layers.Dense(4, name="head")(base(x, training=False))
    return flavor.keras.Model(inputs, x)


def test_frozen_layers_with_new_weights_are_named(flavor):
    model = frozen_base(flavor)
    with pytest.warns(UserWarning, match="have new weights and are frozen.*/stem'.*preserve_f"):
        widen_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        widen_model(model, preserve_function=True)


def test_dtype_policies_stay(flavor):
    flavor.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = networks.residual(flavor)
    finally:
        flavor.keras.mixed_precision.set_global_policy("float32")
    wide = widen_model(model, preserve_function=True)
    assert wide.get_layer("stem").compute_dtype == "bfloat16"
    assert wide.get_layer("stem").variable_dtype == "float32"


def test_new_weights_come_from_the_layers_initialisers(flavor):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    x = layers.Normalization(mean=None, name="statistics")(x)
    x = layers.Conv2D(4, 1, kernel_initializer="ones", bias_initializer="zeros", name="conv")(x)
    model = flavor.keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    networks.randomize(model)
    statistics = [np.array(weight) for weight in model.get_layer("statistics").get_weights()]
    wide = widen_model(model)
    kernel, bias = wide.get_layer("conv").get_weights()
    np.testing.assert_array_equal(kernel, np.ones((1, 1, 3, 8)))
    np.testing.assert_array_equal(bias, np.zeros(8))
    # What was learnt from the data is not drawn anew.
    for before, after in zip(statistics, wide.get_layer("statistics").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_multiplier_of_one_gives_a_model_of_the_same_widths(flavor):
    model = networks.residual(flavor)
    wide = widen_model(model, width_multiplier=1, preserve_function=True)
    assert all(np.array_equal(a, b) for a, b in zip(_weights(model), _weights(wide), strict=True))


def test_widened_model_can_be_widened_and_saved(flavor, tmp_path):
    wide = widen_model(widen_model(networks.operators(flavor)))
    path = str(tmp_path / ("model.keras" if flavor.name == "keras" else "model.h5"))
    wide.save(path)
    loaded = flavor.keras.models.load_model(path)
    assert loaded.get_layer("stem").filters == 40
