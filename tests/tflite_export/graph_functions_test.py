"""Functions of each value by itself, and products of tensors, as the exporter reads them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.small_models import chain, outline, read
from tflite_export.integer_model import Lookup


def folded_function(flavor, function):
    """The folded net of a function between two layers."""
    L = flavor.layers
    inputs = flavor.keras.Input((4,), name="image")
    x = function(L, L.Dense(3, name="first")(inputs))
    return read(flavor.keras.Model(inputs, L.Dense(2, name="last")(x)))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda L, x: L.Activation("swish")(x), lambda x: x / (1 + np.exp(-x))),
        (lambda L, x: L.Activation("sigmoid")(x), lambda x: 1 / (1 + np.exp(-x))),
        (lambda L, x: L.LeakyReLU(0.25)(x), lambda x: np.where(x < 0, x / 4, x)),
        (lambda L, x: L.ReLU(negative_slope=0.5)(x), lambda x: np.where(x < 0, x / 2, x)),
        (lambda L, x: x + 3.0, lambda x: x + 3),
        (lambda L, x: x * 0.3, lambda x: x * 0.3),
        (lambda L, x: 1.0 - x, lambda x: 1 - x),
        (lambda L, x: x / 7.0, lambda x: x / 7),
        (lambda L, x: -x, lambda x: -x),
    ],
)
def test_functions_of_each_value(flavor, function, expected):
    folded = folded_function(flavor, function)
    first, table, last = folded.operations
    assert outline((first, last)) == [
        "FullyConnected first <- image",
        f"FullyConnected last <- {table.output.replace('quant_', '')}",
    ]
    assert isinstance(table, Lookup)
    source, output = folded.tensors[table.inputs[0]], folded.tensors[table.output]
    values = expected(np.arange(source.low, source.high + 1) * np.float64(source.scale))
    np.testing.assert_allclose(table.table.values(source), values, rtol=1e-5, atol=1e-6)
    levels = table.table.levels(source, output, output.low)
    wanted = np.clip(values / np.float64(output.scale), output.low, output.high)
    assert np.abs(levels - wanted).max() <= 0.51


def test_a_relu_behind_a_function_is_a_part_of_it(flavor):
    folded = folded_function(flavor, lambda L, x: L.ReLU(6.0, name="relu6")(x + 0.1) * (1 / 6))
    names = [type(operation).__name__ for operation in folded.operations]
    assert names == ["FullyConnected", "Lookup", "Lookup", "FullyConnected"]
    relu, share = folded.operations[1:3]
    assert relu.output == "quant_relu6"
    source, output = (folded.tensors[name] for name in (relu.inputs[0], relu.output))
    assert relu.relu
    assert folded.largest_scales["quant_relu6"] < 6 / 254
    assert relu.table.levels(source, output, 0).min() == 0
    assert folded.tensors[share.output].scale > 0


def parametric(flavor, slopes, shape=(4, 4, 3), **options):
    """A convolution, or a dense layer, with a PReLU of given slopes behind it."""
    L = flavor.layers
    layer = L.PReLU(name="slopes", **options)
    first = L.Dense(3) if len(shape) == 1 else L.Conv2D(3, 1, name="conv")
    net = chain(flavor, first, layer, shape=shape)
    layer.alpha.assign(np.reshape(slopes, layer.alpha.shape))
    return net


@pytest.mark.parametrize("slopes", [[0.25, -0.5, 0.0], [0.5]], ids=["each its own", "one for all"])
def test_parametric_relus_are_the_larger_of_two(flavor, slopes):
    axes = [1, 2] if len(slopes) > 1 else [1, 2, 3]
    folded = read(parametric(flavor, slopes, shared_axes=axes))
    assert outline(folded.operations[1:]) == [
        "DepthwiseConv2D slopes/0 <- conv",
        "DepthwiseConv2D slopes/1 <- conv",
        "Maximum slopes <- slopes/0, slopes/1",
    ]
    plain, sloped = (operation.kernel for operation in folded.operations[1:3])
    np.testing.assert_array_equal(plain.scale * plain.integers, np.ones((1, 1, 1, 3)))
    np.testing.assert_array_equal(
        sloped.scale * sloped.integers, np.broadcast_to(slopes, (1, 1, 1, 3))
    )
    assert (plain.origin.scale_freedom, sloped.origin.scale_freedom) == ("none", "channel")


def test_slopes_that_no_maximum_has_are_refused(flavor):
    with pytest.raises(ValueError, match=r"'quant_slopes' must share its slopes .*_axes=\[1, 2\]"):
        read(parametric(flavor, np.full((4, 4, 3), 0.25)))
    with pytest.raises(ValueError, match="'quant_slopes' must have slopes of at most 1, got 1.5"):
        read(parametric(flavor, [0.25, 1.5, 0.0], shape=(6,)))


def test_products(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((4, 4, 3), name="image")
    x = L.Conv2D(3, 1, activation="relu", name="conv")(inputs)
    gate = L.Conv2D(3, 1, activation="sigmoid", name="gate")(
        L.GlobalAveragePooling2D(keepdims=True, name="mean")(x)
    )
    y = L.Multiply(name="gated")([x, gate])
    y = L.ReLU(name="squared")(y * y)
    folded = read(flavor.keras.Model(inputs, L.Flatten(name="flat")(L.Conv2D(2, 1, name="y")(y))))
    assert outline(folded.operations) == [
        "Conv2D conv <- image",
        "Reshape mean/image <- conv",
        "Conv2D mean/flat <- mean/image",
        "Reshape mean <- mean/flat",
        "Conv2D gate <- mean",
        "Lookup gate_sigmoid <- gate",
        "Multiply gated <- conv, gate_sigmoid",
        "Multiply squared <- gated, gated",
        "Conv2D y <- squared",
        "Reshape flat <- y",
    ]
    assert folded.operations[7].relu
    gate = folded.tensors["quant_gate_sigmoid"]
    assert (gate.low, gate.high) == (0, 255)
    assert 0 < gate.scale <= folded.largest_scales["quant_gate_sigmoid"] == 1 / 255
