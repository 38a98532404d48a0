"""Small integer networks with which every kernel rounds alike."""

from __future__ import annotations

import numpy as np

from tflite_export import integer_model as im
from tflite_export.storage import max_multiplier


def tensor(name, shape, *, low=0, high=255, scale=1.0) -> im.Tensor:
    return im.Tensor(name, tuple(shape), np.float32(scale), low, high)


def kernel(rng, shape, source, output, *, num_bits=2, multiplier=16, axis=0) -> im.Kernel:
    """Random weights with which every kernel rounds alike; results reach beyond the output's grid.

    Accumulators are multiples of `apart` plus a bias, thresholds lie at multiples of it, too, and
    the bias is half way between.
    """
    limit = max(1, 2 ** (num_bits - 1) - 1)
    integers = rng.integers(-limit, limit + 1, shape)
    if num_bits == 1:
        integers = np.where(integers == 0, 1, integers)
    if multiplier == 1:  # Stored integers must be some units apart.
        integers -= np.fmod(integers, 4)
    apart = max(multiplier & -multiplier, 4)
    stored = np.moveaxis(integers * multiplier, axis, 0).reshape(shape[axis], -1)
    means = stored.sum(1) * (source.low + source.high) / 2
    deviation = np.sqrt((stored**2).sum(1).mean() / 12) * (source.high - source.low)
    # Six deviations are twice the grid; every other channel has coarser levels.
    step = 2.0 ** round(np.log2(max(1, 3 * deviation / (output.high - output.low))))
    steps = max(step, 2 * apart) * (1 + np.arange(len(stored)) % 2)
    middles = steps * (output.low + output.high + 1) // 2 - means
    bias = (middles + rng.uniform(-1, 1, len(stored)) * deviation) // apart * apart + apart // 2
    return im.Kernel(
        integers.astype(np.int8),
        num_bits,
        np.full(len(stored), multiplier, np.int32),
        (output.scale / (source.scale * steps)).astype(np.float32),
        bias.astype(np.int32),
    )


def one_operation(operation: im.Operation, *tensors: im.Tensor) -> im.IntegerModel:
    inputs = tuple(dict.fromkeys(operation.inputs))
    return im.IntegerModel({t.name: t for t in tensors}, (operation,), inputs, (operation.output,))


def largest_power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)


def with_kernel(
    operation: type[im.Operation],
    weights: tuple[int, ...],
    output: tuple[int, ...],
    *,
    storage: str = "int8",
    num_bits: int = 2,
    source: im.Tensor | None = None,
    grid: tuple[int, int] = (0, 15),
    **settings,
) -> im.IntegerModel:
    """Returns a network of one operation, "y" of "x", with random weights."""
    source = source or tensor("x", (7, 9, 6))
    target = tensor("y", output, low=grid[0], high=grid[1])
    values = kernel(
        np.random.default_rng(11),
        weights,
        source,
        target,
        num_bits=num_bits,
        multiplier=largest_power_of_two(max_multiplier(storage, operation, num_bits)),
        axis=3 if operation is im.DepthwiseConv2D else 0,
    )
    return one_operation(operation("y", ("x",), "y", kernel=values, **settings), source, target)


def small_network(storage: str) -> im.IntegerModel:
    """Returns a network of most operations, with two inputs and two outputs."""
    rng = np.random.default_rng(2)
    tensors = {}

    def add(name, shape, **grid):
        tensors[name] = tensor(name, shape, **grid)
        return tensors[name]

    def weights(source, name, operation, shape, num_bits, axis=0):
        multiplier = largest_power_of_two(max_multiplier(storage, operation, num_bits))
        ends = tensors[source], tensors[name]
        return kernel(rng, shape, *ends, num_bits=num_bits, multiplier=multiplier, axis=axis)

    add("image", (8, 8, 3))
    add("mask", (4, 4, 16), high=15)
    add("first", (8, 8, 8), high=15)
    add("depthwise", (4, 4, 16), low=-8, high=7)
    add("sum", (4, 4, 16), high=15, scale=3.0)
    add("joined", (4, 4, 32), high=15, scale=3.0)
    add("pooled", (2, 2, 32), high=15, scale=3.0)
    add("padded", (3, 3, 32), high=15, scale=3.0)
    add("features", (288,), high=15, scale=3.0)
    add("logits", (10,), low=-128, high=127)
    conv = weights("image", "first", im.Conv2D, (8, 3, 3, 3), 4)
    depthwise = weights("first", "depthwise", im.DepthwiseConv2D, (1, 3, 3, 16), 2, axis=3)
    dense = weights("features", "logits", im.FullyConnected, (10, 288), 2)
    operations = (
        im.Conv2D("first", ("image",), "first", conv, padding="same", relu=True),
        im.DepthwiseConv2D(
            "depthwise", ("first",), "depthwise", depthwise, padding="same", strides=(2, 2)
        ),
        im.Add("sum", ("depthwise", "mask"), "sum", relu=True),
        im.Concatenation("joined", ("sum", "sum"), "joined", -1),
        im.MaxPool2D("pooled", ("joined",), "pooled", (2, 2), (2, 2)),
        im.Pad("padded", ("pooled",), "padded", ((0, 1), (1, 0), (0, 0))),
        im.Reshape("features", ("padded",), "features"),
        im.FullyConnected("logits", ("features",), "logits", dense),
    )
    return im.IntegerModel(tensors, operations, ("image", "mask"), ("logits", "features"))
