"""Each operation in each storage, on all kernels, against NumPy's levels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.tflite_export.flatbuffer_networks import (
    kernel,
    one_operation,
    small_network,
    tensor,
    with_kernel,
)
from tests.tflite_export.flatbuffer_reference import (
    assert_runtimes_agree,
    compute,
    interpreter,
    random_levels,
)
from tflite_export import integer_model as im
from tflite_export.description import describe
from tflite_export.flatbuffer import write

CONV, DEPTHWISE, TRANSPOSE = im.Conv2D, im.DepthwiseConv2D, im.TransposeConv
WITH_KERNELS = {
    "same": (CONV, (8, 3, 3, 6), (7, 9, 8), {"padding": "same"}),
    "strides": (CONV, (5, 3, 2, 6), (3, 8, 5), {"strides": (2, 1)}),
    "1x1": (CONV, (5, 1, 1, 6), (7, 9, 5), {}),
    "one filter": (CONV, (1, 3, 3, 6), (5, 7, 1), {}),
    "dilation": (CONV, (8, 3, 3, 6), (7, 9, 8), {"padding": "same", "dilation": (2, 3)}),
    "groups": (CONV, (8, 3, 3, 3), (7, 9, 8), {"padding": "same"}),
    "depthwise": (DEPTHWISE, (1, 3, 3, 6), (7, 9, 6), {"padding": "same"}),
    "depth multiplier": (
        DEPTHWISE,
        (1, 3, 3, 12),
        (4, 5, 12),
        {"padding": "same", "strides": (2, 2)},
    ),
    "depthwise dilation": (DEPTHWISE, (1, 3, 3, 6), (3, 5, 6), {"dilation": (2, 2)}),
    "transpose same": (
        TRANSPOSE,
        (5, 3, 3, 6),
        (14, 18, 5),
        {"padding": "same", "strides": (2, 2)},
    ),
    "transpose valid": (TRANSPOSE, (5, 3, 2, 6), (15, 18, 5), {"strides": (2, 2)}),
    "dense, rank 3": (im.FullyConnected, (4, 6), (7, 9, 4), {}),
}
RANDOM = np.random.default_rng(5)
GRIDS = {
    "unsigned 4": (0, 15),
    "signed 8": (-128, 127),
    "signed 4": (-8, 7),
    "observed": (-3, 12),
    "negative": (-7, 0),
}


@pytest.mark.parametrize("storage", ["int8", "int4", "int2"])
@pytest.mark.parametrize("num_bits", [1, 2, 4, 8])
@pytest.mark.parametrize("case", WITH_KERNELS)
def test_kernels_agree(case, num_bits, storage):
    operation, weights, output, settings = WITH_KERNELS[case]
    model = with_kernel(
        operation, weights, output, storage=storage, num_bits=num_bits, relu=True, **settings
    )
    levels = compute(model, {"x": random_levels(model, np.random.default_rng(0))[0]})["y"]
    assert np.mean((levels > 0) & (levels < 15)) > 0.15  # Not all at the ends.
    assert_runtimes_agree(model, write(model, storage=storage))


@pytest.mark.parametrize("storage", ["int8", "int4", "int2"])
@pytest.mark.parametrize("features", [12, 13, 15, 16])
@pytest.mark.parametrize("units", [1, 5])
def test_dense_layers_agree_whatever_the_packing_leaves_over(units, features, storage):
    model = with_kernel(
        im.FullyConnected,
        (units, features),
        (units,),
        storage=storage,
        source=tensor("x", (features,)),
        grid=(-128, 127),
    )
    assert_runtimes_agree(model, write(model, storage=storage))


def spread(model: im.IntegerModel, factor: int) -> im.IntegerModel:
    """The same network, the multipliers of its weights in the levels that they multiply."""
    operations = []
    for operation in model.operations:
        values = operation.kernel
        values = dataclasses.replace(
            values,
            multiplier=values.multiplier // factor,
            scale=values.scale * np.float32(factor),
            spread=factor,
        )
        operations.append(dataclasses.replace(operation, kernel=values))
    return dataclasses.replace(model, operations=tuple(operations))


@pytest.mark.parametrize("grid", ["unsigned 4", "signed 8"])
@pytest.mark.parametrize(
    ("low", "high", "factor"),
    [(0, 1, 128), (0, 3, 64), (-2, 1, 64), (-1, 1, 64), (0, 7, 32), (-8, 7, 16), (0, 127, 2)],
)
@pytest.mark.parametrize("case", ["same", "groups", "depthwise", "transpose same", "dense, rank 3"])
def test_spread_levels_agree(case, low, high, factor, grid):
    operation, weights, output, settings = WITH_KERNELS[case]
    source = tensor("x", (7, 9, 6), low=low, high=high, scale=0.25)
    target = tensor("y", output, low=GRIDS[grid][0], high=GRIDS[grid][1])
    values = kernel(
        np.random.default_rng(11),
        weights,
        source,
        target,
        num_bits=5,
        multiplier=4 * factor,
        axis=3 if operation is im.DepthwiseConv2D else 0,
    )
    model = one_operation(operation("y", ("x",), "y", kernel=values, **settings), source, target)
    assert len(np.unique(compute(model, {"x": random_levels(model, RANDOM)[0]})["y"])) > 4
    assert_runtimes_agree(model, write(spread(model, factor)))


def test_operations_that_read_the_same_spread_levels_share_them():
    operation, weights, output, _ = WITH_KERNELS["1x1"]
    source = tensor("x", (7, 9, 6), high=3)
    tensors = [source, tensor("y", output, high=15), tensor("z", output, high=15)]
    operations = []
    for factor, target in zip((64, 32), tensors[1:], strict=True):
        values = kernel(RANDOM, weights, source, target, multiplier=64)
        one = one_operation(operation(target.name, ("x",), target.name, kernel=values), target)
        operations += spread(one, factor).operations
    twice = dataclasses.replace(operations[1], kernel=operations[0].kernel)
    for second, count in ((operations[1], 2), (twice, 1)):
        model = im.IntegerModel(
            {t.name: t for t in tensors}, (operations[0], second), ("x",), ("y", "z")
        )
        names = [operator.name for operator in describe(write(model)).operators]
        assert names.count("QUANTIZE") == count


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("case", ["same", "depthwise", "transpose valid", "dense, rank 3"])
def test_levels_are_clamped_to_any_grid(case, grid, relu):
    operation, weights, output, settings = WITH_KERNELS[case]
    low, high = GRIDS[grid]
    model = with_kernel(operation, weights, output, grid=(low, high), relu=relu, **settings)
    levels = compute(model, {"x": random_levels(model, np.random.default_rng(0))[0]})["y"]
    assert {levels.min(), levels.max()} == {0 if relu else low, high}
    assert_runtimes_agree(model, write(model))


@pytest.mark.parametrize("num_bits", range(1, 9))
def test_unsigned_levels_of_all_widths_are_clamped_at_both_ends(num_bits):
    high = 2**num_bits - 1
    # Identity over a grid that reaches beyond the output's at both ends.
    source = tensor("x", (256, 1), low=-128, high=127, scale=high / 15)
    target = tensor("y", (256, 1), high=high, scale=high / 15)
    model = one_operation(
        im.FullyConnected(
            "y",
            ("x",),
            "y",
            kernel=im.Kernel(
                np.array([[1]], np.int8),
                2,
                np.array([64], np.int32),
                np.array([1 / 64], np.float32),
                np.array([0], np.int32),
            ),
        ),
        source,
        target,
    )
    levels = np.arange(-128, 128).reshape(256, 1)
    np.testing.assert_array_equal(compute(model, {"x": levels})["y"], np.clip(levels, 0, high))
    assert_runtimes_agree(model, write(model))


@pytest.mark.parametrize("low", [0, -8, -128])
@pytest.mark.parametrize("case", ["same", "groups", "depthwise", "transpose same"])
def test_padding_is_level_zero_of_any_input_grid(case, low):
    operation, weights, output, settings = WITH_KERNELS[case]
    source = tensor("x", (7, 9, 6), low=low, high=7)
    model = with_kernel(operation, weights, output, source=source, **settings)
    assert_runtimes_agree(model, write(model))


@pytest.mark.parametrize("case", ["same", "1x1", "depthwise", "transpose same"])
def test_each_channel_may_have_its_own_multiplier(case):
    operation, weights, output, settings = WITH_KERNELS[case]
    model = with_kernel(operation, weights, output, **settings)
    multiplier = model.operations[0].kernel.multiplier
    multiplier[::2] //= 4  # Still a multiple of the distance that `kernel` leaves.
    model.operations[0].kernel.bias[::2] = 2
    assert_runtimes_agree(model, write(model))


def _moving(operation, output, **settings):
    grid = {"low": -8, "high": 7, "scale": 0.3}
    tensors = [tensor(name, (7, 9, 6), **grid) for name in ("x", "z")]
    return one_operation(operation, *tensors, tensor("y", output, **grid))


@pytest.mark.parametrize(
    ("operation", "output"),
    [
        (im.MaxPool2D("y", ("x",), "y", (3, 3), (2, 2), "same"), (4, 5, 6)),
        (im.MaxPool2D("y", ("x",), "y", (2, 3), (1, 2), "valid"), (6, 4, 6)),
        (im.Pad("y", ("x",), "y", ((1, 2), (0, 3), (0, 0))), (10, 12, 6)),
        (im.Pad("y", ("x",), "y", ((0, 0), (1, 1), (1, 0))), (7, 11, 7)),
        (im.EdgePad("y", ("x",), "y", ((1, 1), (1, 0), (0, 0))), (9, 10, 6)),
        (im.EdgePad("y", ("x",), "y", ((0, 1), (0, 0), (0, 0))), (8, 9, 6)),
        (im.Crop("y", ("x",), "y", ((1, 2), (0, 3), (0, 0))), (4, 6, 6)),
        (im.Crop("y", ("x",), "y", ((0, 0), (8, 0), (2, 1))), (7, 1, 3)),
        (im.Permute("y", ("x",), "y", (2, 0, 1)), (6, 7, 9)),
        (im.Permute("y", ("x",), "y", (0, 2, 1)), (7, 6, 9)),
        (im.UpSample2D("y", ("x",), "y", (2, 2)), (14, 18, 6)),
        (im.UpSample2D("y", ("x",), "y", (1, 7)), (7, 63, 6)),
        (im.UpSample2D("y", ("x",), "y", (41, 3)), (287, 27, 6)),
        (im.Reshape("y", ("x",), "y"), (378,)),
        (im.Reshape("y", ("x",), "y"), (9, 42)),
        (im.Concatenation("y", ("x", "z"), "y", -1), (7, 9, 12)),
        (im.Concatenation("y", ("x", "z", "x"), "y", 1), (21, 9, 6)),
    ],
)
def test_operations_that_move_levels_agree(operation, output):
    model = _moving(operation, output)
    assert_runtimes_agree(model, write(model))


def test_four_axes_in_another_order_agree():
    # As between the halves of a channel shuffle.
    operation = im.Permute("y", ("x",), "y", (0, 1, 3, 2))
    grid = {"low": -8, "high": 7, "scale": 0.3}
    shapes = {"x": (3, 4, 2, 5), "y": (3, 4, 5, 2)}
    model = one_operation(operation, *(tensor(*item, **grid) for item in shapes.items()))
    assert_runtimes_agree(model, write(model))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("grid", [*GRIDS.values(), (0, 255), (0, 1)])
@pytest.mark.parametrize(("scale", "sign"), [(1.0, 1), (0.25, 1), (0.25, -1)])
def test_sums_agree(scale, sign, grid, relu):
    # A third of the branches' unit: no sum lies half way between two levels.
    tensors = [
        tensor("x", (7, 9, 6), low=-8, high=7, scale=scale),
        tensor("z", (7, 9, 6), high=15, scale=scale),
        tensor("y", (7, 9, 6), low=grid[0], high=grid[1], scale=3 * scale),
    ]
    model = one_operation(im.Add("y", ("x", "z"), "y", relu, sign), *tensors)
    assert_runtimes_agree(model, write(model))


@pytest.mark.parametrize("kind", [im.Maximum, im.Minimum])
@pytest.mark.parametrize("grid", [*GRIDS.values(), (0, 255), (0, 1)])
def test_extremes_agree(kind, grid):
    tensors = [tensor(name, (7, 9, 6), low=grid[0], high=grid[1]) for name in "xzy"]
    model = one_operation(kind("y", ("x", "z"), "y"), *tensors)
    assert_runtimes_agree(model, write(model))


def test_a_tensor_may_be_added_to_itself():
    tensors = [tensor("x", (4, 4, 2), low=-8, high=7), tensor("y", (4, 4, 2), scale=3.0)]
    model = one_operation(im.Add("y", ("x", "x"), "y"), *tensors)
    assert_runtimes_agree(model, write(model))


SHAPES = [((7, 9, 6), (7, 9, 6)), ((7, 9, 6), (1, 1, 6)), ((1, 9, 1), (7, 1, 6)), ((5, 6), (1, 6))]


def product(shapes, grid, relu=False):
    """Of 16 levels by 16; 7 of their products' units are a level, so that none is a tie."""
    tensors = [
        tensor("x", shapes[0], low=-8, high=7, scale=0.25),
        tensor("z", shapes[1], high=15, scale=0.5),
        tensor("y", np.broadcast_shapes(*shapes), low=grid[0], high=grid[1], scale=7 / 8),
    ]
    return one_operation(im.Multiply("y", ("x", "z"), "y", relu), *tensors)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("grid", [*GRIDS.values(), (0, 255), (0, 1)])
@pytest.mark.parametrize("shapes", SHAPES)
def test_products_agree(shapes, grid, relu):
    model = product(shapes, grid, relu)
    assert_runtimes_agree(model, write(model))


def test_a_tensor_may_be_multiplied_by_itself():
    tensors = [tensor("x", (4, 4, 2), low=-8, high=7), tensor("y", (4, 4, 2), scale=3.0)]
    model = one_operation(im.Multiply("y", ("x", "x"), "y"), *tensors)
    assert_runtimes_agree(model, write(model))


def lookup(source, target):
    """Any levels of the output's, its ends among them."""
    tensors = [
        tensor(name, (7, 9, 6), low=low, high=high)
        for name, (low, high) in (("x", source), ("y", target))
    ]
    table = np.random.default_rng(3).integers(target[0], target[1] + 1, source[1] - source[0] + 1)
    table[[0, -1]] = target[::-1]
    return one_operation(im.Lookup("y", ("x",), "y", table), *tensors)


@pytest.mark.parametrize("target", [*GRIDS.values(), (0, 255)])
@pytest.mark.parametrize("source", [*GRIDS.values(), (0, 255), (0, 1)])
def test_functions_of_each_value_agree(source, target):
    model = lookup(source, target)
    assert_runtimes_agree(model, write(model))


@pytest.mark.parametrize(
    ("low", "high", "amount"),
    [(0, 255, -128), (0, 255, -255), (0, 15, -8), (0, 15, -3), (-8, 7, 8), (-128, 127, 128)],
)
def test_shifts_agree(low, high, amount):
    source = tensor("x", (7, 9, 6), low=low, high=high, scale=0.3)
    target = tensor("y", (7, 9, 6), low=low + amount, high=high + amount, scale=0.3)
    model = one_operation(im.Shift("y", ("x",), "y", amount), source, target)
    assert_runtimes_agree(model, write(model))


def test_xnnpack_takes_a_whole_int8_network():
    """Also where levels need clamps at both ends; a node that it leaves out splits the network."""
    model = small_network("int8")
    for runtime in ("tf.lite", "LiteRT"):
        running = interpreter(write(model), runtime, "AUTO")
        running.allocate_tensors()
        # The delegates stand behind the operators that they take.
        names = [operator["op_name"] for operator in running._get_ops_details()]
        assert names.count("DELEGATE") == 1
