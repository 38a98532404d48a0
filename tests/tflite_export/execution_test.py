"""Whole integer networks in NumPy, against loops and against the real kernels."""

import dataclasses
import itertools

import numpy as np
import pytest

from tests.tflite_export import integer_networks
from tflite_export import flatbuffer, interpreters
from tflite_export import integer_model as im
from tflite_export.execution import execute
from tflite_export.requantization import KERNELS

ONE = np.float32(1)


def unit_kernel(integers, channels, bias=0):
    """A kernel whose accumulators are its levels."""
    ones = np.ones(channels)
    return im.Kernel(
        integers.astype(np.int8),
        4,
        ones.astype(np.int32),
        ones.astype(np.float32),
        np.full(channels, bias, np.int32),
    )


def run_one(operation, x, shape, kernel="ref", low=-128, high=127):
    """Runs one operation on levels 0..3, into levels of scale 1."""
    model = im.IntegerModel(
        {
            "x": im.Tensor("x", x.shape[1:], ONE, 0, 3),
            "y": im.Tensor("y", shape, ONE, low, high),
        },
        (operation,),
        ("x",),
        ("y",),
    )
    return execute(model, {"x": x}, kernel)["y"]


def loops(x, weights, strides, dilation, padding, out_shape, bias, pick):
    """A convolution, one product at a time; `pick(o)` gives the input channels of channel o."""
    rows, columns = weights.shape[1:3]
    before = [0, 0]
    if padding == "same":
        for axis in (0, 1):
            extent = (weights.shape[axis + 1] - 1) * dilation[axis] + 1
            total = (out_shape[axis] - 1) * strides[axis] + extent - x.shape[axis + 1]
            before[axis] = max(total, 0) // 2
    result = np.full((len(x), *out_shape), bias)
    for n, i, j, o in np.ndindex(*result.shape):
        for r, c in itertools.product(range(rows), range(columns)):
            row = i * strides[0] + r * dilation[0] - before[0]
            column = j * strides[1] + c * dilation[1] - before[1]
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                for k, channel in enumerate(pick(o)):
                    result[n, i, j, o] += int(x[n, row, column, channel]) * weights[o, r, c, k]
    return result


def out_size(size, window, stride, dilation, padding):
    extent = (window - 1) * dilation + 1
    return -(-size // stride) if padding == "same" else (size - extent) // stride + 1


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("window", "strides", "dilation", "groups"),
    [
        ((3, 3), (1, 1), (1, 1), 1),
        ((3, 2), (2, 1), (1, 1), 1),
        ((2, 2), (2, 2), (1, 1), 1),
        ((3, 3), (1, 1), (2, 2), 1),
        ((3, 3), (2, 2), (1, 1), 2),
        ((1, 1), (2, 2), (1, 1), 4),
        ((5, 5), (1, 1), (1, 1), 1),
    ],
)
def test_convolution_against_loops(window, strides, dilation, groups, padding):
    random = np.random.default_rng(1)
    x = random.integers(0, 4, (2, 6, 7, 4))
    weights = random.integers(-1, 2, (4, *window, 4 // groups))
    shape = (
        *(out_size(x.shape[a + 1], window[a], strides[a], dilation[a], padding) for a in (0, 1)),
        4,
    )
    kernel = unit_kernel(weights, 4, bias=3)
    operation = im.Conv2D("c", ("x",), "y", kernel, strides, padding, dilation)
    width = 4 // groups

    def channels(o):
        first = o // width * width
        return range(first, first + width)

    expected = loops(x, weights, strides, dilation, padding, shape, 3, channels)
    np.testing.assert_array_equal(run_one(operation, x, shape), np.clip(expected, -128, 127))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution_against_loops(multiplier, padding):
    random = np.random.default_rng(2)
    x = random.integers(0, 4, (2, 6, 5, 3))
    out = 3 * multiplier
    weights = random.integers(-3, 4, (out, 3, 3, 1))
    shape = (*(out_size(n, 3, 2, 1, padding) for n in (6, 5)), out)
    kernel = unit_kernel(weights.transpose(3, 1, 2, 0), out)
    operation = im.DepthwiseConv2D("d", ("x",), "y", kernel, (2, 2), padding)
    expected = loops(x, weights, (2, 2), (1, 1), padding, shape, 0, lambda o: [o // multiplier])
    np.testing.assert_array_equal(run_one(operation, x, shape), expected)


@pytest.mark.parametrize(
    ("window", "stride", "padding", "size"),
    [
        (3, 2, "same", 8),
        (2, 2, "valid", 8),
        (3, 2, "valid", 9),
        (3, 1, "same", 4),
        (1, 2, "same", 8),
    ],
)
def test_transposed_convolution_against_loops(window, stride, padding, size):
    """Each input value adds its window, begun at stride * position - padding before."""
    random = np.random.default_rng(3)
    x = random.integers(0, 4, (2, 4, 4, 2))
    weights = random.integers(-3, 4, (3, window, window, 2))
    before = max(3 * stride + window - size, 0) // 2 if padding == "same" else 0
    expected = np.zeros((2, size, size, 3), np.int64)
    for n, i, j, k in np.ndindex(*x.shape):
        for o, r, c in np.ndindex(3, window, window):
            row, column = i * stride + r - before, j * stride + c - before
            if 0 <= row < size and 0 <= column < size:
                expected[n, row, column, o] += x[n, i, j, k] * weights[o, r, c, k]
    operation = im.TransposeConv(
        "t", ("x",), "y", unit_kernel(weights, 3), (stride, stride), padding
    )
    np.testing.assert_array_equal(run_one(operation, x, (size, size, 3)), expected)


def test_relu_and_the_grid_s_ends_clamp():
    x = np.array([[0, 1, 2, 3]])
    weights = np.array([[1, 1, 1, 1], [-1, -1, -1, -1]])
    dense = im.FullyConnected("f", ("x",), "y", unit_kernel(weights, 2))
    assert run_one(dense, x, (2,), low=-4, high=5).tolist() == [[5, -4]]
    dense = dataclasses.replace(dense, relu=True)
    assert run_one(dense, x, (2,), low=-4, high=5).tolist() == [[5, 0]]


def test_pooling_padding_joining_and_reshaping():
    x = np.arange(4 * 4).reshape(1, 4, 4, 1) % 4
    tensors = {
        name: im.Tensor(name, shape, ONE, -2, 3)
        for name, shape in [
            ("x", (4, 4, 1)), ("p", (5, 5, 1)), ("m", (3, 3, 1)), ("c", (3, 3, 2)), ("r", (18,)),
        ]
    }  # fmt: skip
    operations = (
        im.Pad("p", ("x",), "p", ((1, 0), (0, 1), (0, 0))),
        im.MaxPool2D("m", ("p",), "m", (2, 2), (2, 2), "same"),
        im.Concatenation("c", ("m", "m"), "c", axis=3),
        im.Reshape("r", ("c",), "r"),
    )
    model = im.IntegerModel(tensors, operations, ("x",), ("r",))
    levels = execute(model, {"x": x}, "ref")
    assert levels["p"][0, :, :, 0].tolist() == [[0] * 5] + [[0, 1, 2, 3, 0]] * 4
    assert levels["m"][0, :, :, 0].tolist() == [[1, 3, 0]] * 3
    assert levels["r"].tolist() == [[1, 1, 3, 3, 0, 0] * 3]


def unsnapped(model, seed):
    """The network with scales and biases at which the kernels differ, ties among them."""
    random = np.random.default_rng(seed)
    operations = []
    for operation in model.operations:
        kernel = getattr(operation, "kernel", None)
        if kernel is not None:
            source, target = model.tensors[operation.inputs[0]], model.tensors[operation.output]
            even = 2 * random.integers(1, 9, kernel.bias.size)
            noise = np.where(random.random(kernel.bias.size) < 0.5, 1, random.uniform(0.9, 1.1))
            scale = np.float64(target.scale) / (np.float64(source.scale) * even) * noise
            kernel = dataclasses.replace(
                kernel,
                scale=scale.astype(np.float32),
                bias=random.integers(-20, 60, kernel.bias.size).astype(np.int32),
                multiplier=np.ones_like(kernel.multiplier),
            )
            operation = dataclasses.replace(operation, kernel=kernel)
        operations.append(operation)
    return dataclasses.replace(model, operations=tuple(operations))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("network", [integer_networks.small, integer_networks.varied])
def test_every_tensor_is_what_the_real_kernels_compute(network, seed):
    """On networks that are not snapped, on which each kernel gives other levels."""
    model = unsnapped(network(seed=seed), seed)
    images = integer_networks.images(model, count=30, seed=seed)
    levels = {"image": np.rint(images / model.tensors["image"].scale).astype(np.int32)}
    blob = flatbuffer.write(model, input_type="float32")
    formulas = {kernel: execute(model, levels, kernel) for kernel in (*KERNELS, "tflm")}
    for runtime in interpreters.available():
        kernel = "tflm" if runtime.library == "TFLM" else runtime.kernels
        real = interpreters.Network(runtime, blob).run([images])
        for name, expected in formulas[kernel].items():
            wrong = np.count_nonzero(real[name] != expected)
            assert wrong == 0, f"{runtime.name}, {name}: {wrong} of {expected.size} differ"
    for other in ("opt", "xnn"):
        assert any(
            (formulas[other][name] != levels).any() for name, levels in formulas["ref"].items()
        )
    assert "softmax" not in formulas["ref"]


def test_batches_of_any_size():
    model = integer_networks.small()
    levels = np.random.default_rng(0).integers(-100, 156, (3, 8, 8, 3))
    whole = execute(model, {"image": levels}, "xnn")["logits"]
    for n in range(3):
        one = execute(model, {"image": levels[n : n + 1]}, "xnn")["logits"]
        np.testing.assert_array_equal(one, whole[n : n + 1])
    assert execute(model, {"image": levels[:0]}, "xnn")["logits"].shape == (0, 10)


def test_overflow_names_the_operation():
    weights = np.full((1, 4), 127)
    kernel = dataclasses.replace(unit_kernel(weights, 1), bias=np.array([2**31 - 2], np.int32))
    dense = im.FullyConnected("dense", ("x",), "y", kernel)
    with pytest.raises(OverflowError, match="accumulators of 'dense' leave int32"):
        run_one(dense, np.array([[3, 3, 3, 3]]), (1,))


@pytest.mark.parametrize(
    ("inputs", "kernel", "message"),
    [
        ({}, "ref", "`inputs` must have 'image', got"),
        ({"image": np.zeros((1, 8, 8, 4), int)}, "ref", r"must be \[batch, \(8, 8, 3\)\], got"),
        ({"image": np.full((1, 8, 8, 3), 200)}, "ref", r"must be in -100\.\.155, got 200\.\.200"),
        ({"image": np.zeros((1, 8, 8, 3), int)}, "gpu", "`kernel` must be one of"),
    ],
)
def test_bad_inputs_are_refused(inputs, kernel, message):
    with pytest.raises(ValueError, match=message):
        execute(integer_networks.small(), inputs, kernel)


def test_a_wrong_shape_names_the_operation():
    dense = im.FullyConnected("dense", ("x",), "y", unit_kernel(np.ones((2, 4)), 2))
    with pytest.raises(ValueError, match=r"'dense' must give \(3,\), got \(2,\)"):
        run_one(dense, np.zeros((1, 4), int), (3,))
