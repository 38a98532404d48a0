"""Runs an integer network with the arithmetic of one of TFLite's kernels, in NumPy.

It shares no code with `wrpn_tf.accelerator`: the two check each other. Sums are float64 matrix
products of integers, which are exact below 2^53.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tflite_export.addition import add
from tflite_export.integer_model import (
    Add,
    Concatenation,
    Conv2D,
    Crop,
    DepthwiseConv2D,
    EdgePad,
    FullyConnected,
    IntegerModel,
    Kernel,
    Lookup,
    Maximum,
    MaxPool2D,
    Minimum,
    Multiply,
    Operation,
    Pad,
    Permute,
    Probabilities,
    Reshape,
    Shift,
    Tensor,
    TransposeConv,
    UpSample2D,
    lowest_level,
    spread_scale,
)
from tflite_export.multiplication import multiply
from tflite_export.requantization import ALL_KERNELS, Floats, requantize

Levels = npt.NDArray[np.int32]
# Values of one matrix of gathered windows; larger batches are taken in parts.
_LARGEST_PART = 2**24


def execute(
    model: IntegerModel, inputs: Mapping[str, npt.NDArray[np.integer]], kernel: str
) -> dict[str, Levels]:
    """Returns the levels of all tensors of a network, as one kernel computes them.

    Args:
        model: The network.
        inputs: Levels of each of `model.inputs`, [batch, ...].
        kernel: One of `requantization.ALL_KERNELS`.

    Returns:
        Tensor name -> int32 levels [batch, ...], inputs included. Probabilities, in which
        kernels differ, and what reads them are left out.

    Raises:
        ValueError: If the kernel is unknown, or inputs are missing, of another shape or outside
            of their grid.
        OverflowError: If an accumulator leaves int32; names the operation.
        TypeError: If the model has an operation of an unknown type.
    """
    if kernel not in ALL_KERNELS:
        raise ValueError(f"`kernel` must be one of {ALL_KERNELS}, got {kernel!r}.")
    levels = {name: _checked_input(model.tensors[name], inputs) for name in model.inputs}
    for operation in model.operations:
        known = all(name in levels for name in operation.inputs)
        if known and not isinstance(operation, Probabilities):
            sources = [levels[name] for name in operation.inputs]
            result = _run(operation, model, sources, kernel)
            target = model.tensors[operation.output]
            if result.shape[1:] != target.shape:
                raise ValueError(
                    f"{operation.name!r} must give {target.shape}, got {result.shape[1:]}."
                )
            levels[operation.output] = result.astype(np.int32)
    return levels


def _checked_input(tensor: Tensor, inputs: Mapping[str, npt.NDArray[np.integer]]) -> Levels:
    if tensor.name not in inputs:
        raise ValueError(f"`inputs` must have {tensor.name!r}, got {sorted(inputs)}.")
    value = np.asarray(inputs[tensor.name])
    if value.shape[1:] != tensor.shape or value.ndim == 0:
        raise ValueError(
            f"`inputs[{tensor.name!r}]` must be [batch, {tensor.shape}], got {value.shape}."
        )
    if value.size and (value.min() < tensor.low or value.max() > tensor.high):
        raise ValueError(
            f"`inputs[{tensor.name!r}]` must be in {tensor.low}..{tensor.high}, "
            f"got {value.min()}..{value.max()}."
        )
    return value.astype(np.int32)


def _run(
    operation: Operation, model: IntegerModel, sources: list[Levels], kernel: str
) -> npt.NDArray[np.integer]:
    """Returns one operation's levels."""
    target = model.tensors[operation.output]
    scales = [model.tensors[name].scale for name in operation.inputs]
    x = sources[0]
    if isinstance(operation, (Conv2D, FullyConnected)):
        return _round_sums(operation, _sums(operation, x, target), scales[0], target, kernel)
    if isinstance(operation, Add):
        total = add(kernel, x, sources[1], scales[0], scales[1], target.scale, sign=operation.sign)
        return np.clip(total, lowest_level(operation, target), target.high)
    if isinstance(operation, Multiply):
        product = multiply(x, sources[1], scales[0], scales[1], target.scale)
        return np.clip(product, lowest_level(operation, target), target.high)
    if isinstance(operation, Lookup):
        return operation.table[x - model.tensors[operation.inputs[0]].low]
    if isinstance(operation, Shift):
        return x + operation.amount
    if isinstance(operation, Concatenation):
        return np.concatenate(sources, axis=operation.axis)
    if isinstance(operation, Maximum):
        return np.maximum(*sources)
    if isinstance(operation, Minimum):
        return np.minimum(*sources)
    if isinstance(operation, MaxPool2D):
        padded = _padded(x, operation.pool, operation.strides, operation.padding, -(2**31))
        windows = _windows(padded, operation.pool, operation.strides, (1, 1))
        return np.asarray(windows.max(axis=(3, 4)))
    if isinstance(operation, Pad):
        return np.pad(x, ((0, 0), *operation.amounts))
    if isinstance(operation, EdgePad):
        return np.pad(x, ((0, 0), *operation.amounts), mode="edge")
    if isinstance(operation, Crop):
        ends = zip(operation.amounts, x.shape[1:], strict=True)
        kept = (slice(before, size - after) for (before, after), size in ends)
        return x[(slice(None), *kept)]
    if isinstance(operation, Permute):
        return x.transpose(0, *(axis + 1 for axis in operation.order))
    if isinstance(operation, UpSample2D):
        return x.repeat(operation.size[0], axis=1).repeat(operation.size[1], axis=2)
    if isinstance(operation, Reshape):
        return x.reshape(len(x), *target.shape)
    raise TypeError(f"{operation.name!r} is a {type(operation).__name__}, which is not known here.")


def _round_sums(
    operation: Conv2D | FullyConnected,
    sums: Floats,
    input_scale: np.float32,
    target: Tensor,
    kernel: str,
) -> Levels:
    """Adds the bias, rounds and clamps."""
    stored = operation.kernel
    accumulators = sums * stored.spread + stored.bias
    if accumulators.size and np.abs(accumulators).max() > 2**31 - 1:
        raise OverflowError(f"The accumulators of {operation.name!r} leave int32.")
    if isinstance(operation, FullyConnected):
        kind = "fully_connected" if stored.scale.size > 1 else "fully_connected_per_tensor"
    else:
        kind = "transpose_conv" if isinstance(operation, TransposeConv) else "conv"
    input_scale = spread_scale(input_scale, stored.spread)
    level = requantize(kernel, kind, accumulators, input_scale, stored.scale, target.scale)
    return np.clip(level, lowest_level(operation, target), target.high)


def _sums(operation: Conv2D | FullyConnected, x: Levels, target: Tensor) -> Floats:
    """Returns sum(stored * q) of each output value, [batch, ..., channel]."""
    weights = _stored(operation.kernel, -1 if isinstance(operation, DepthwiseConv2D) else 0)
    if isinstance(operation, FullyConnected):
        product: Floats = x.astype(np.float64) @ weights.T
        return product
    if isinstance(operation, DepthwiseConv2D):
        return _depthwise(operation, x, weights)
    if isinstance(operation, TransposeConv):
        return _transposed(operation, x, weights, target.shape)
    return _convolution(operation, x, weights)


def _stored(kernel: Kernel, axis: int) -> Floats:
    """Returns integers * multiplier, the channels' axis given."""
    shape = [1] * kernel.integers.ndim
    shape[axis] = -1
    return kernel.integers.astype(np.float64) * kernel.multiplier.reshape(shape)


def _padded(
    x: npt.NDArray[np.integer],
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    value: int = 0,
) -> npt.NDArray[np.integer]:
    """Pads rows and columns as TensorFlow's `"same"` does: the odd one behind."""
    if padding == "valid":
        return x
    amounts = [(0, 0)]
    for size, extent, stride in zip(x.shape[1:3], window, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        amounts.append((total // 2, total - total // 2))
    return np.pad(x, (*amounts, (0, 0)), constant_values=value)


def _windows(
    x: npt.NDArray[np.integer],
    window: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
) -> npt.NDArray[np.integer]:
    """Returns a view [batch, rows, columns, window rows, window columns, channels]."""
    extent = _extent(window, dilation)
    view = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(1, 2))
    view = view[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]
    return view.transpose(0, 1, 2, 4, 5, 3)


def _extent(window: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Returns the rows and columns that a dilated window spans."""
    return (window[0] - 1) * dilation[0] + 1, (window[1] - 1) * dilation[1] + 1


def _convolution(operation: Conv2D, x: Levels, weights: Floats) -> Floats:
    """Gathers windows into a matrix, an example or a few at a time, and multiplies."""
    out, rows, columns, depth = weights.shape
    groups = x.shape[-1] // depth
    extent = _extent((rows, columns), operation.dilation)
    padded = _padded(x, extent, operation.strides, operation.padding)
    windows = _windows(padded, (rows, columns), operation.strides, operation.dilation)
    per_example = int(np.prod(windows.shape[1:]))
    step = max(1, _LARGEST_PART // max(per_example, 1))
    matrix = weights.reshape(groups, out // groups, -1).transpose(0, 2, 1)
    parts = []
    for start in range(0, len(x), step):
        part = windows[start : start + step]
        results = [
            part[..., g * depth : (g + 1) * depth].reshape(*part.shape[:3], -1).astype(np.float64)
            @ matrix[g]
            for g in range(groups)
        ]
        parts.append(np.concatenate(results, axis=-1))
    if not parts:
        return np.zeros((*windows.shape[:3], out))
    return np.concatenate(parts)


def _depthwise(operation: Conv2D, x: Levels, weights: Floats) -> Floats:
    """Adds up shifted copies of the input, one per weight of the window."""
    _, rows, columns, out = weights.shape
    extent = _extent((rows, columns), operation.dilation)
    padded = _padded(x, extent, operation.strides, operation.padding)
    padded = np.repeat(padded, out // x.shape[-1], axis=-1)
    windows = _windows(padded, (rows, columns), operation.strides, operation.dilation)
    total = np.zeros((*windows.shape[:3], out))
    for row in range(rows):
        for column in range(columns):
            total += windows[:, :, :, row, column] * weights[0, row, column]
    return total


def _transposed(operation: Conv2D, x: Levels, weights: Floats, shape: tuple[int, ...]) -> Floats:
    """Adds each input value's window to the output, which is cut as the padding says."""
    out, rows, columns, _ = weights.shape
    strides = operation.strides
    spans = [
        (size - 1) * stride + window
        for size, stride, window in zip(x.shape[1:3], strides, (rows, columns), strict=True)
    ]
    # Rows and columns that no window reaches remain 0.
    whole = np.zeros((len(x), *np.maximum(spans, shape[:2]), out))
    real = x.astype(np.float64)
    for row in range(rows):
        for column in range(columns):
            last_row = row + (x.shape[1] - 1) * strides[0] + 1
            last_column = column + (x.shape[2] - 1) * strides[1] + 1
            whole[:, row : last_row : strides[0], column : last_column : strides[1]] += (
                real @ weights[:, row, column].T
            )
    starts = [0, 0]
    if operation.padding == "same":
        starts = [max(span - size, 0) // 2 for span, size in zip(spans, shape[:2], strict=True)]
    return whole[:, starts[0] : starts[0] + shape[0], starts[1] : starts[1] + shape[1]]
