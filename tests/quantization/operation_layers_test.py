"""Operations of both Keras become the layers that compute them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from wrpn_tf.keras_flavor import KERAS, TF_KERAS, keras_class
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization.operation_layers import layers_for
from wrpn_tf.quantization.prepare import prepare

ops = KERAS.keras.ops

CHANNELS = ((0, 0), (0, 0), (0, 0), (1, 3))
SPACE = ((0, 0), (1, 2), (0, 1), (0, 0))
BOTH = ((0, 0), (1, 2), (0, 1), (1, 3))
# (operation of Keras 3, of TensorFlow, on images of 6 x 8 pixels and 4 channels; layers)
OPERATIONS = {
    "mean": (
        lambda x: ops.mean(x, axis=(1, 2)),
        lambda x: tf.reduce_mean(axis=[1, 2], input_tensor=x),
        ["GlobalAveragePooling2D"],
    ),
    "mean that keeps axes": (
        lambda x: ops.mean(x, axis=(-3, -2), keepdims=True),
        lambda x: tf.math.reduce_mean(x, [1, 2], keepdims=True),
        ["GlobalAveragePooling2D"],
    ),
    "maximum": (
        lambda x: ops.max(x, axis=(1, 2)),
        lambda x: tf.reduce_max(x, [1, 2]),
        ["GlobalMaxPooling2D"],
    ),
    "max pooling": (
        lambda x: ops.max_pool(x, (2, 3), strides=2, padding="same"),
        lambda x: tf.nn.max_pool2d(x, [2, 3], 2, "SAME"),
        ["MaxPooling2D"],
    ),
    "average pooling": (
        lambda x: ops.average_pool(x, 2),
        lambda x: tf.nn.avg_pool(x, [1, 2, 2, 1], strides=[1, 2, 2, 1], padding="VALID"),
        ["AveragePooling2D"],
    ),
    "padding of space": (
        lambda x: ops.pad(x, SPACE),
        lambda x: tf.pad(x, SPACE),
        ["ZeroPadding2D"],
    ),
    "padding of channels": (
        lambda x: ops.pad(x, CHANNELS),
        lambda x: tf.pad(paddings=CHANNELS, tensor=x),
        ["ZeroPadding2D"],
    ),
    "padding of both": (
        lambda x: ops.pad(x, BOTH),
        lambda x: tf.pad(x, BOTH),
        ["ZeroPadding2D", "ZeroPadding2D"],
    ),
    "axes exchanged": (
        lambda x: ops.swapaxes(x, 1, -1),
        lambda x: tf.transpose(x, (0, 3, 2, 1)),
        ["Permute"],
    ),
    "an axis moved": (
        lambda x: ops.moveaxis(x, 1, 3),
        lambda x: tf.transpose(x, (0, 2, 3, 1)),
        ["Permute"],
    ),
    "nearest pixels": (
        lambda x: ops.image.resize(x, (12, 24), interpolation="nearest"),
        lambda x: tf.image.resize(x, (12, 24), "nearest"),
        ["UpSampling2D"],
    ),
    "bilinear pixels": (
        lambda x: ops.image.resize(x, (12, 16)),
        lambda x: tf.image.resize(x, (12, 16)),
        ["UpSampling2D"],
    ),
    "every other pixel": (lambda x: x[:, ::2, ::2], lambda x: x[:, ::2, ::2], ["MaxPooling2D"]),
    "every third pixel of a part": (
        lambda x: x[:, 1::3, :5:2],
        lambda x: x[:, 1::3, :5:2],
        ["Cropping2D", "MaxPooling2D"],
    ),
    "depth to space": (
        lambda x: ops.depth_to_space(x, 2),
        lambda x: tf.nn.depth_to_space(x, 2),
        ["Reshape", "Permute", "Reshape"],
    ),
    "space to depth": (
        lambda x: ops.space_to_depth(x, 2),
        lambda x: tf.nn.space_to_depth(x, 2),
        ["Reshape", "Permute", "Reshape"],
    ),
}
# Keras 3 has layers' rules for its own operations of these names.
ONLY_TENSORFLOW = {
    "a reshape": (lambda x: tf.reshape(x, (-1, 12, 16)), ["Reshape"]),
    "an axis of one": (lambda x: tf.squeeze(tf.expand_dims(x, 1), [1]), ["Reshape", "Reshape"]),
    "a concatenation": (lambda x: tf.concat(values=[x, x], axis=-1), ["Concatenate"]),
}
# What no layer computes stays an operation.
OTHERS = {
    "a mean of rows": (lambda x: ops.mean(x, axis=1), lambda x: tf.reduce_mean(x, 1)),
    "a mean of channels": (lambda x: ops.mean(x, axis=(1, 3)), lambda x: tf.reduce_mean(x, [1, 3])),
    "mirrored edges": (
        lambda x: ops.pad(x, SPACE, mode="symmetric"),
        lambda x: tf.pad(x, SPACE, "SYMMETRIC"),
    ),
    "edges of ones": (
        lambda x: ops.pad(x, SPACE, constant_values=1.0),
        lambda x: tf.pad(x, SPACE, constant_values=1.0),
    ),
    "fewer pixels": (
        lambda x: ops.image.resize(x, (3, 12)),
        lambda x: tf.image.resize(x, (3, 12)),
    ),
    "pixels backwards": (lambda x: x[:, ::-2], lambda x: x[:, ::-2]),
    "every other channel": (lambda x: x[..., ::2], lambda x: x[..., ::2]),
}


def network(flavor, operation, shape=(6, 8, 4)):
    L = flavor.layers
    inputs = flavor.keras.Input(shape)
    conv = L.Conv1D if len(shape) == 2 else L.Conv2D
    x = operation(conv(4, 3, padding="same", activation="relu", name="conv")(inputs))
    return flavor.keras.Model(inputs, L.Dense(2, name="head")(L.Flatten(name="flat")(x)))


def the_operation(model):
    """The call between a network's convolution and its head."""
    own = ("conv", "flat", "head")
    (operation,) = [call for call in model_graph(model).calls if call.path not in own]
    return operation


def check(model, classes, sizes=(6, 8)):
    """Holds a prepared model to its source, and the classes of its layers to those expected."""
    own = {layer.name for layer in model.layers}
    prepared, origin = prepare(model_graph(model))
    added = [call for call in model_graph(prepared).calls if call.path in origin]
    known = ("Conv1D", "Conv2D", "Flatten", "Dense")
    found = [keras_class(c.layer) for c in added if keras_class(c.layer) not in known]
    assert found == classes
    assert set(origin.values()) <= {*own, *(call.path for call in model_graph(model).calls)}
    channels = model.input_shape[-1]
    images = np.random.default_rng(0).normal(size=(3, *sizes, channels)).astype(np.float32)
    expected, got = np.asarray(model(images)), np.asarray(prepared(images))
    assert np.ptp(expected) > 0
    # Means and dense layers sum up to some hundred terms of float32.
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_becomes_layers(flavor, name):
    of_keras, of_tensorflow, classes = OPERATIONS[name]
    check(network(flavor, of_keras if flavor is KERAS else of_tensorflow), classes)


@pytest.mark.parametrize("name", ONLY_TENSORFLOW)
def test_an_operation_of_tensorflow_becomes_layers(name):
    operation, classes = ONLY_TENSORFLOW[name]
    check(network(TF_KERAS, operation), classes)


@pytest.mark.parametrize("name", OTHERS)
def test_what_no_layer_computes_stays_an_operation(flavor, name):
    model = network(flavor, OTHERS[name][0 if flavor is KERAS else 1])
    operation = the_operation(model)
    check(model, [keras_class(operation.layer)])


@pytest.mark.parametrize(
    ("of_keras", "of_tensorflow", "classes"),
    [
        (
            lambda x: ops.mean(x, axis=1, keepdims=True),
            lambda x: tf.reduce_mean(x, 1, keepdims=True),
            ["GlobalAveragePooling1D"],
        ),
        (
            lambda x: ops.max_pool(x[:, 1::2], 2, padding="valid"),
            lambda x: tf.nn.max_pool1d(x[:, 1::2], 2, 2, "VALID"),
            ["Cropping1D", "MaxPooling1D", "MaxPooling1D"],
        ),
        (
            lambda x: ops.pad(x, ((0, 0), (2, 0), (0, 0))),
            lambda x: tf.pad(x, ((0, 0), (2, 0), (0, 0))),
            ["ZeroPadding1D"],
        ),
    ],
)
def test_operations_on_sequences_become_layers(flavor, of_keras, of_tensorflow, classes):
    operation = of_keras if flavor is KERAS else of_tensorflow
    check(network(flavor, operation, (8, 3)), classes, sizes=(8,))


def test_images_of_any_size(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((None, None, 4))
    x = L.Conv2D(4, 3)(inputs)
    if flavor is KERAS:
        x = ops.mean(ops.average_pool(x, 7, strides=1), axis=(1, 2))
    else:
        x = tf.reduce_mean(tf.nn.avg_pool2d(x, 7, 1, "VALID"), [1, 2])
    classes = ["AveragePooling2D", "GlobalAveragePooling2D"]
    check(flavor.keras.Model(inputs, L.Dense(2)(x)), classes, sizes=(10, 11))


def test_operations_on_whole_numbers_stay(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((4, 3), dtype="int32")
    tokens = ops.swapaxes(inputs, 1, 2) if flavor is KERAS else tf.transpose(inputs, (0, 2, 1))
    x = L.Dense(2)(L.Flatten()(L.Embedding(10, 5)(tokens)))
    graph = model_graph(flavor.keras.Model(inputs, x))
    assert [layers_for(call, graph) for call in graph.calls] == [()] * 4


def test_mixed_precision_stays():
    keras = KERAS.keras
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network(KERAS, lambda x: ops.mean(x, axis=(1, 2)))
    finally:
        keras.config.set_dtype_policy("float32")
    prepared, _ = prepare(model_graph(model))
    mean = the_operation(prepared)
    assert keras_class(mean.layer) == "GlobalAveragePooling2D"
    assert model_graph(prepared).dtypes[mean.outputs[0]] == "float16"


def test_overrides_name_the_operation(flavor):
    of_keras, of_tensorflow, _ = OPERATIONS["average pooling"]
    pool = of_keras if flavor is KERAS else of_tensorflow
    model = network(flavor, lambda x: flavor.layers.Conv2D(3, 1)(pool(x)))
    (path,) = [call.path for call in model_graph(model).calls if "pool" in call.path]
    rules = {path.replace(".", r"\."): {"num_bits_activation": 4}}
    quantized = wrpn_tf.quantize_model(model, overrides=rules)
    bits = {
        row.path: row.num_bits_output for row in wrpn_tf.analysis.ModelProfile(quantized).layers
    }
    assert bits[path.replace(".", "_")] == (4,)


def test_a_plan_counts_them_as_the_built_network_does(flavor):
    of_keras, of_tensorflow, _ = OPERATIONS["padding of channels"]
    pad = of_keras if flavor is KERAS else of_tensorflow
    model = network(flavor, lambda x: flavor.layers.Conv2D(3, 1)(pad(x[:, ::2, ::2])))
    (_, cell) = wrpn_tf.plan(model, num_bits=[(2, 4)], width_multipliers=[1], print_fn=None).cells
    summary = wrpn_tf.summary(
        wrpn_tf.quantize_model(model, num_bits_weight=2, num_bits_activation=4), print_fn=None
    )
    assert (cell.num_bytes, cell.num_macs) == (summary.num_bytes, summary.num_macs)
    float_cost = wrpn_tf.summary(model, print_fn=None).cost
    # Exact but for the division.
    assert cell.cost == pytest.approx(summary.cost / float_cost, rel=1e-15)
