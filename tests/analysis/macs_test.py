"""Multiply-accumulates of every known layer, written as arithmetic; refusals to guess."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tf_keras

from wrpn_tf.analysis import macs
from wrpn_tf.quantization.quantize_registry import weight_name

# class, arguments, input shape, expected counts
_CASES = [
    ("Dense", {"units": 5}, (7,), {"kernel": 7 * 5}),
    ("Dense", {"units": 5}, (4, 6, 7), {"kernel": 4 * 6 * 7 * 5}),
    ("Conv1D", {"filters": 5, "kernel_size": 3}, (9, 4), {"kernel": 7 * 3 * 4 * 5}),
    (
        "Conv1D",
        {"filters": 5, "kernel_size": 3, "padding": "causal", "dilation_rate": 2},
        (9, 4),
        {"kernel": 9 * 3 * 4 * 5},
    ),
    (
        "Conv2D",
        {"filters": 6, "kernel_size": (3, 2), "strides": 2, "padding": "same"},
        (9, 8, 4),
        {"kernel": 5 * 4 * 3 * 2 * 4 * 6},
    ),
    (
        "Conv2D",
        {"filters": 6, "kernel_size": 3, "groups": 2},
        (9, 8, 4),
        {"kernel": 7 * 6 * 3 * 3 * (4 // 2) * 6},
    ),
    ("Conv3D", {"filters": 2, "kernel_size": 2}, (4, 5, 6, 3), {"kernel": 3 * 4 * 5 * 8 * 3 * 2}),
    (
        "DepthwiseConv1D",
        {"kernel_size": 3, "depth_multiplier": 2},
        (9, 4),
        {"depthwise": 7 * 3 * 4 * 2},
    ),
    (
        "DepthwiseConv2D",
        {"kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2},
        (9, 8, 4),
        {"depthwise": 5 * 4 * 3 * 3 * 4 * 2},
    ),
    (
        "SeparableConv1D",
        {"filters": 5, "kernel_size": 3, "depth_multiplier": 2},
        (9, 4),
        {"depthwise_kernel": 7 * 3 * 4 * 2, "pointwise_kernel": 7 * 4 * 2 * 5},
    ),
    (
        "SeparableConv2D",
        {"filters": 5, "kernel_size": 3},
        (9, 8, 4),
        {"depthwise_kernel": 7 * 6 * 3 * 3 * 4, "pointwise_kernel": 7 * 6 * 4 * 5},
    ),
    (
        "Conv1DTranspose",
        {"filters": 5, "kernel_size": 3, "strides": 2},
        (9, 4),
        {"kernel": 9 * 4 * 3 * 5},
    ),
    (
        "Conv2DTranspose",
        {"filters": 5, "kernel_size": 3, "strides": 2, "padding": "same"},
        (9, 8, 4),
        {"kernel": 9 * 8 * 4 * 3 * 3 * 5},
    ),
    (
        "Conv3DTranspose",
        {"filters": 2, "kernel_size": 2},
        (4, 5, 6, 3),
        {"kernel": 4 * 5 * 6 * 3 * 8 * 2},
    ),
    (
        "EinsumDense",
        {"equation": "abc,cd->abd", "output_shape": (None, 5)},
        (4, 7),
        {"kernel": 4 * 7 * 5},
    ),
    (
        "EinsumDense",
        {"equation": "...x,xy->...y", "output_shape": 5},
        (4, 6, 7),
        {"kernel": 4 * 6 * 7 * 5},
    ),
    (
        "EinsumDense",
        {"equation": "abc,bde->ade", "output_shape": (2, 5)},
        (4, 7),
        {"kernel": 4 * 7 * 2 * 5},
    ),
    (
        "EinsumDense",
        {"equation": "btd,dhk->bthk", "output_shape": (None, 2, 5)},
        (4, 7),
        {"kernel": 4 * 7 * 2 * 5},
    ),
    ("BatchNormalization", {}, (9, 8, 4), {}),
    ("Embedding", {"input_dim": 11, "output_dim": 3}, (4,), {}),
    ("LayerNormalization", {}, (9, 4), {}),
    ("PReLU", {}, (9, 4), {}),
    ("ReLU", {}, (9, 4), {}),
    ("MaxPooling2D", {}, (9, 8, 4), {}),
    ("AveragePooling2D", {"pool_size": 2}, (9, 8, 4), {}),
    ("Flatten", {}, (9, 8, 4), {}),
]


def call(layer, input_shape, flavor):
    """The shapes of a layer's input and output in a graph."""
    inputs = flavor.keras.Input(shape=input_shape)
    return layer, tuple(inputs.shape), tuple(layer(inputs).shape)


@pytest.mark.parametrize(("name", "arguments", "input_shape", "expected"), _CASES)
def test_counts(name, arguments, input_shape, expected, flavor):
    layer = getattr(flavor.keras.layers, name)(**arguments)
    if "depthwise" in expected:  # named otherwise in each Keras
        name = {"keras": "kernel", "tf_keras": "depthwise_kernel"}[flavor.name]
        expected = {name: expected["depthwise"]}
    called = call(layer, input_shape, flavor)
    assert macs.count_macs(*called) == expected
    assert set(expected) <= {weight_name(variable) for variable in layer.weights}


@pytest.mark.parametrize("name", ["Conv2D", "SeparableConv2D", "Conv2DTranspose"])
def test_channels_first_counts_the_same_as_channels_last(name, flavor):
    counts = []
    for data_format, shape in (("channels_last", (9, 8, 4)), ("channels_first", (4, 9, 8))):
        layer = getattr(flavor.keras.layers, name)(5, 3, data_format=data_format)
        counts.append(macs.count_macs(*call(layer, shape, flavor)))
    assert counts[0] == counts[1]


def test_a_users_subclass_counts_as_its_keras_base(flavor):
    class MyDense(flavor.keras.layers.Dense):
        pass

    assert macs.count_macs(*call(MyDense(5), (7,), flavor)) == {"kernel": 7 * 5}


@pytest.mark.parametrize(
    ("name", "arguments", "input_shape"),
    [
        ("LSTM", {"units": 3}, (4, 2)),
        ("Lambda", {"function": lambda x: 2 * x}, (4,)),
        ("Conv2D", {"filters": 3, "kernel_size": 1}, (None, None, 2)),
        ("Dense", {"units": 3}, (None, 2)),
    ],
)
def test_what_cannot_be_told_is_refused(name, arguments, input_shape, flavor):
    layer = getattr(flavor.keras.layers, name)(**arguments)
    with pytest.raises(macs.UncountableError):
        macs.count_macs(*call(layer, input_shape, flavor))


def test_a_layer_of_the_users_own_is_refused(flavor):
    class Scale(flavor.keras.layers.Layer):
        def build(self, input_shape):
            self.factor = self.add_weight(name="factor", shape=(1,))

        def call(self, inputs):
            return inputs * self.factor

    with pytest.raises(macs.UncountableError, match="Scale has weights used in an unknown way"):
        macs.count_macs(*call(Scale(), (4,), flavor))


def test_products_of_activations_are_refused():
    left, right = keras.Input((3, 4)), keras.Input((4, 5))
    operation = keras.ops.matmul(left, right)._keras_history[0]
    with pytest.raises(macs.UncountableError, match="Matmul multiplies tensors that are not"):
        macs.count_macs(operation, (None, 3, 4), (None, 3, 5))

    left, right = tf_keras.Input((3, 4)), tf_keras.Input((4, 5))
    operation = (left @ right)._keras_history[0]
    with pytest.raises(macs.UncountableError, match="matmul multiplies tensors that are not"):
        macs.count_macs(operation, (None, 3, 4), (None, 3, 5))


def test_counts_agree_with_the_products_done(flavor):
    """With ones in kernel and input, the sum of the outputs is the number of products."""
    for name, arguments, input_shape, expected in _CASES:
        if len(expected) != 1 or "padding" in arguments:
            continue
        if "Transpose" in name:
            arguments = {**arguments, "padding": "valid"}  # nothing cropped
        role = "depthwise" if name.startswith("Depthwise") else "kernel"
        kernel = {f"{role}_initializer": "ones"}
        if name != "EinsumDense":
            kernel["use_bias"] = False
        layer = getattr(flavor.keras.layers, name)(**arguments, **kernel)
        products = np.sum(np.array(layer(np.ones((1, *input_shape), "float32"))))
        assert products == sum(expected.values()), name
