"""Profiles of whole models: independent counts, shared layers, nested models, unknown layers."""

from __future__ import annotations

import importlib

import pytest
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants, ops

from wrpn_tf import applications
from wrpn_tf.analysis import ModelProfile

_PRODUCTS = ("Conv2D", "DepthwiseConv2dNative", "MatMul")


def tensorflow_macs(model):
    """Half the floating-point operations that TensorFlow registers for its own kernels."""
    signature = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32)
    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(signature)
    # Constants, because the shape of a variable's value is not in the graph.
    graph = convert_to_constants.convert_variables_to_constants_v2(traced).graph
    operations = [op for op in graph.get_operations() if op.type in _PRODUCTS]
    return (
        sum(ops.get_stats_for_node_def(graph, op.node_def, "flops").value for op in operations) // 2
    )


# TensorFlow traces each network, which takes longest: one is enough to see tf_keras' graph read.
@pytest.mark.parametrize(
    ("flavor", "name"),
    [
        ("keras", "MobileNetV2"),
        ("tf_keras", "MobileNetV2"),
        ("keras", "ResNet50"),
        ("keras", "EfficientNetB0"),
    ],
    indirect=["flavor"],
)
def test_applications_count_as_tensorflow_does(name, flavor):
    build = getattr(importlib.import_module(f"{flavor.name}.applications"), name)
    model = build(weights=None, input_shape=(32, 32, 3), classes=10)
    profile = ModelProfile(model)
    assert profile.num_macs == tensorflow_macs(model)
    assert profile.num_parameters == model.count_params()
    assert profile.num_bytes == 4 * model.count_params()
    assert profile.uncounted == {}
    assert list(profile.macs_by_bits) == [(32, 32)]
    assert profile.cost == 64 * profile.num_macs


def test_rows_name_layers_shapes_and_weights(flavor):
    profile = ModelProfile(applications.ResNet8(keras_flavor=flavor.name))
    rows = {row.path: row for row in profile.layers}
    stem = rows["stem_conv"]
    assert (stem.class_name, stem.output_shapes) == ("Conv2D", ((None, 32, 32, 16),))
    assert [(w.name, w.shape, w.num_bits) for w in stem.weights] == [("kernel", (3, 3, 3, 16), 32)]
    assert (stem.num_parameters, stem.num_bytes) == (3 * 3 * 3 * 16, 4 * 3 * 3 * 3 * 16)
    assert stem.num_macs == 32 * 32 * 3 * 3 * 3 * 16
    assert (stem.num_bits_input, stem.num_bits_output) == ((32,), (32,))
    assert [w.name for w in rows["stem_bn"].weights] == [
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ]
    assert rows["stem_bn"].num_macs == 0
    assert rows["stage1_block0_add"].num_bits_input == (32, 32)
    assert [w.name for w in rows["predictions"].weights] == ["kernel", "bias"]


def test_shared_layers_count_macs_per_call_and_parameters_once(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((6, 6, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    model = flavor.keras.Model(inputs, shared(shared(inputs)))
    profile = ModelProfile(model)
    assert [row.path for row in profile.layers] == ["shared", "shared"]
    assert profile.num_macs == 2 * 6 * 6 * 3 * 3 * 4 * 4
    assert profile.num_parameters == 3 * 3 * 4 * 4 + 4
    assert profile.layers[1].weights == ()


def test_nested_models_are_flattened(flavor):
    layers = flavor.keras.layers
    inner = flavor.keras.Sequential(
        [flavor.keras.Input((5,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")],
        name="inner",
    )
    inputs = flavor.keras.Input((5,))
    model = flavor.keras.Model(inputs, layers.Dense(4, name="c")(inner(inputs)))
    profile = ModelProfile(model)
    assert [row.path for row in profile.layers] == ["inner/a", "inner/b", "c"]
    assert profile.num_macs == 5 * 3 + 3 * 2 + 2 * 4


def test_unknown_layers_are_named_and_in_no_total(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((5, 3))
    x = layers.LSTM(4, name="memory")(inputs)
    model = flavor.keras.Model(inputs, layers.Dense(2, name="head")(x))
    profile = ModelProfile(model)
    assert list(profile.uncounted) == ["memory"]
    assert "LSTM" in profile.uncounted["memory"]
    memory = profile.layers[0]
    assert memory.num_macs is None
    assert memory.is_float
    assert memory.num_parameters == 4 * (3 * 4 + 4 * 4 + 4)
    assert profile.num_macs == 4 * 2


def test_unknown_sizes_are_named(flavor):
    model = applications.ResNet8(input_shape=(None, None, 3), keras_flavor=flavor.name)
    profile = ModelProfile(model)
    assert "the size of an axis is unknown" in profile.uncounted["stem_conv"]
    assert profile.num_macs == 64 * 10  # the classifier's


def test_weightless_and_unreadable_models_are_refused(flavor):
    with pytest.raises(TypeError, match="`model` must be"):
        ModelProfile("resnet")
    inputs = flavor.keras.Input((2,))
    with pytest.raises(ValueError, match="`model` must have weights"):
        ModelProfile(flavor.keras.Model(inputs, flavor.keras.layers.ReLU()(inputs)))
