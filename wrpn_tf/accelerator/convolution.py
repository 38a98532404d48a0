"""Convolutions and dense layers as matrix products on the array.

Levels q are integers in low..low + 255; padding is level 0. Weights n are integers on the WRPN grid
of `num_bits`. Results are sum n * q, int32, exact. Traces are of one example (one entry of the
first axis): the array takes the examples one by one, at the same cost each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.bit_planes import check_weights
from wrpn_tf.accelerator.checks import check_int
from wrpn_tf.accelerator.gemm import gemm, layer_trace, stored_activations
from wrpn_tf.accelerator.systolic_array import SystolicArray, with_range
from wrpn_tf.accelerator.trace import Trace
from wrpn_tf.accelerator.windows import Padding, check_padding, pair, window_axis


def conv2d(
    q: npt.ArrayLike,
    n: npt.ArrayLike,
    *,
    num_bits: int,
    array: SystolicArray,
    low: int = 0,
    strides: int | tuple[int, int] = 1,
    padding: Padding = "valid",
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    max_rows: int | None = None,
    name: str = "",
) -> tuple[npt.NDArray[np.int32], Trace]:
    """Convolves levels with integer weights.

    As a matrix product: M output positions, N output channels of a group, K = height * width *
    input channels of a group; a pass for each group and bit plane.

    Args:
        q: Levels, [batch, height, width, channels].
        n: Weights, [height, width, channels / groups, filters].
        num_bits: Of the weights, 1..8.
        array: On which it runs.
        low: The smallest level, in -255..0.
        strides: Of the windows.
        padding: "same" or "valid", as TensorFlow's, or "causal", as Keras' `Conv1D`'s.
        dilation: Distance between the values of a window.
        groups: Of channels, each with its own filters.
        max_rows: At most so many windows are written out at a time; None: all. The result is the
            same.
        name: Of the layer, for errors.

    Returns:
        [batch, output height, output width, filters], and the trace of one example.

    Raises:
        TypeError, ValueError: If an argument does not fit.
        OverflowError: If an accumulator leaves int32 at any time; the message begins with `name`.
    """
    u = stored_activations(q, low)
    kernel = check_weights(n, num_bits)
    _check_shapes(u, kernel, groups)
    if max_rows is not None:
        check_int("max_rows", max_rows, 1)
    windows = _windows(u, kernel.shape, low, pair("strides", strides), padding, dilation)
    weights = _by_group(kernel, groups)
    out = np.empty((*windows.shape[:3], kernel.shape[-1]), np.int32)
    flat = out.reshape(-1, groups, kernel.shape[-1] // groups)
    start = 0
    for patches in _patches(windows, max_rows):
        rows = _rows_by_group(patches, groups)
        sums = gemm(rows, weights, low=low, num_bits=num_bits, array=array, name=name)
        flat[start : start + len(patches)] = sums.transpose(1, 0, 2)
        start += len(patches)
    _, depth, width = weights.shape
    positions = windows.shape[1] * windows.shape[2]
    trace = layer_trace(array, positions, width, depth, groups, num_bits, u[0].size)
    return out, with_range(trace, out)


def depthwise_conv2d(
    q: npt.ArrayLike, n: npt.ArrayLike, **settings: Any
) -> tuple[npt.NDArray[np.int32], Trace]:
    """Convolves each channel with its own filters: `conv2d` with as many groups as channels.

    Args:
        q: Levels, [batch, height, width, channels].
        n: Weights, [height, width, channels, multiplier].
        **settings: As `conv2d`'s, but no `groups`.

    Returns:
        [batch, output height, output width, channels * multiplier], and the trace of one example.

    Raises:
        TypeError, ValueError, OverflowError: As `conv2d`.
    """
    kernel = np.asarray(n)
    if kernel.ndim != 4:
        raise ValueError(f"`n` must have 4 dimensions, got shape {kernel.shape}.")
    height, width, channels, _ = kernel.shape
    return conv2d(q, kernel.reshape(height, width, 1, -1), groups=channels, **settings)


def dense(
    q: npt.ArrayLike,
    n: npt.ArrayLike,
    *,
    num_bits: int,
    array: SystolicArray,
    low: int = 0,
    name: str = "",
) -> tuple[npt.NDArray[np.int32], Trace]:
    """Multiplies levels by a matrix of integer weights.

    Args:
        q: Levels, [batch, ..., inputs].
        n: Weights, [inputs, outputs].
        num_bits: Of the weights, 1..8.
        array: On which it runs.
        low: The smallest level, in -255..0.
        name: Of the layer, for errors.

    Returns:
        [batch, ..., outputs], and the trace of one example.

    Raises:
        TypeError, ValueError: If an argument does not fit.
        OverflowError: If an accumulator leaves int32 at any time; the message begins with `name`.
    """
    u = stored_activations(q, low)
    kernel = check_weights(n, num_bits)
    if u.ndim < 2 or kernel.ndim != 2 or u.shape[-1] != kernel.shape[0] or not kernel.size:
        raise ValueError(
            f"`q` must be [batch, ..., inputs] and `n` [inputs, outputs], "
            f"got shapes {u.shape} and {kernel.shape}."
        )
    rows = u.reshape(1, -1, u.shape[-1])
    sums = gemm(rows, kernel[np.newaxis], low=low, num_bits=num_bits, array=array, name=name)
    depth, width = kernel.shape
    trace = layer_trace(array, u[0].size // depth, width, depth, 1, num_bits, u[0].size)
    return sums.reshape(*u.shape[:-1], width), with_range(trace, sums)


def _check_shapes(u: npt.NDArray[Any], kernel: npt.NDArray[Any], groups: int) -> None:
    if u.ndim != 4 or kernel.ndim != 4 or not kernel.size:
        raise ValueError(
            f"`q` must be [batch, height, width, channels] and `n` have 4 dimensions, "
            f"got shapes {u.shape} and {kernel.shape}."
        )
    channels, filters = u.shape[3], kernel.shape[3]
    check_int("groups", groups, 1)
    if channels % groups or filters % groups:
        raise ValueError(
            f"`groups` must divide the {channels} channels and {filters} filters, got {groups}."
        )
    if kernel.shape[2] * groups != channels:
        raise ValueError(
            f"`n` must have {channels // groups} input channels for {groups} groups of {channels} "
            f"channels, got {kernel.shape[2]}."
        )


def _windows(
    u: npt.NDArray[np.uint8],
    shape: tuple[int, ...],
    low: int,
    strides: tuple[int, int],
    padding: Padding,
    dilation: int | tuple[int, int],
) -> npt.NDArray[np.uint8]:
    """A view [batch, output height, output width, height, width, channels] of the padded input."""
    check_padding(padding)
    steps = pair("dilation", dilation)
    rows, cols = (
        window_axis(u.shape[1 + i], shape[i], strides[i], steps[i], padding) for i in range(2)
    )
    margins = ((0, 0), (rows.before, rows.after), (cols.before, cols.after), (0, 0))
    padded = np.pad(u, margins, constant_values=-low)
    reach = tuple((shape[i] - 1) * steps[i] + 1 for i in range(2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1], :, :: steps[0], :: steps[1]]
    return windows[:, : rows.outputs, : cols.outputs].transpose(0, 1, 2, 4, 5, 3)


def _patches(
    windows: npt.NDArray[np.uint8], max_rows: int | None
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields the windows written out, [rows, height, width, channels]."""
    if max_rows is None:
        yield windows.reshape(-1, *windows.shape[3:])
        return
    total = int(np.prod(windows.shape[:3]))
    for start in range(0, total, max_rows):
        chosen = np.arange(start, min(start + max_rows, total))
        yield windows[np.unravel_index(chosen, windows.shape[:3])]


def _rows_by_group(patches: npt.NDArray[np.uint8], groups: int) -> npt.NDArray[np.uint8]:
    """[rows, height, width, channels] -> [groups, rows, height * width * channels / groups]."""
    rows, height, width, channels = patches.shape
    split = patches.reshape(rows, height * width, groups, channels // groups)
    return split.transpose(2, 0, 1, 3).reshape(groups, rows, -1)


def _by_group(kernel: npt.NDArray[Any], groups: int) -> npt.NDArray[Any]:
    """[height, width, channels, filters] -> [groups, height * width * channels, filters/groups]."""
    filters = kernel.shape[-1]
    split = kernel.reshape(-1, groups, filters // groups)
    return split.transpose(1, 0, 2)
