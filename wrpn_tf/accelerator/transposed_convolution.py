"""Transposed convolutions as a matrix product on the array and a sum of overlapping windows."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.bit_planes import check_weights
from wrpn_tf.accelerator.exact_sums import check_int32
from wrpn_tf.accelerator.gemm import gemm, layer_trace, stored_activations
from wrpn_tf.accelerator.systolic_array import SystolicArray, with_range
from wrpn_tf.accelerator.trace import ACCUMULATOR_BITS, Trace
from wrpn_tf.accelerator.windows import Axis, Padding, check_padding, pair, transposed_axis


def conv2d_transpose(
    q: npt.ArrayLike,
    n: npt.ArrayLike,
    *,
    num_bits: int,
    array: SystolicArray,
    low: int = 0,
    strides: int | tuple[int, int] = 1,
    padding: Padding = "valid",
    name: str = "",
) -> tuple[npt.NDArray[np.int32], Trace]:
    """Spreads each level over a window of outputs, and adds up where windows overlap.

    As a matrix product: M input positions, N = height * width * filters, K input channels, a pass
    for each bit plane; the accumulators outside the array add up what overlaps.

    Args:
        q: Levels, [batch, height, width, channels].
        n: Weights, [height, width, filters, channels].
        num_bits: Of the weights, 1..8.
        array: On which it runs.
        low: The smallest level, in -255..0.
        strides: Distance between the windows.
        padding: "same" or "valid", as TensorFlow's.
        name: Of the layer, for errors.

    Returns:
        [batch, output height, output width, filters], and the trace of one example.

    Raises:
        TypeError, ValueError: If an argument does not fit.
        OverflowError: If an accumulator leaves int32 at any time; the message begins with `name`.
    """
    u = stored_activations(q, low)
    kernel = check_weights(n, num_bits)
    if u.ndim != 4 or kernel.ndim != 4 or u.shape[3] != kernel.shape[3] or not kernel.size:
        raise ValueError(
            f"`q` must be [batch, height, width, channels] and `n` [height, width, filters, "
            f"channels], got shapes {u.shape} and {kernel.shape}."
        )
    check_padding(padding, ("same", "valid"))
    steps = pair("strides", strides)
    batch, rows, cols, channels = u.shape
    height, width, filters, _ = kernel.shape
    weights = kernel.reshape(1, -1, channels).transpose(0, 2, 1)
    products = gemm(
        u.reshape(1, -1, channels), weights, low=low, num_bits=num_bits, array=array, name=name
    ).reshape(batch, rows, cols, height, width, filters)
    axes = (
        transposed_axis(rows, height, steps[0], padding),
        transposed_axis(cols, width, steps[1], padding),
    )
    out = _overlap(products, steps, axes, name)
    trace = layer_trace(array, rows * cols, weights.shape[2], channels, 1, num_bits, u[0].size)
    trace = _with_overlap(trace, products.shape, steps, axes)
    return out, with_range(with_range(trace, products), out)


def _overlap(
    products: npt.NDArray[np.int32], steps: tuple[int, int], axes: tuple[Axis, Axis], name: str
) -> npt.NDArray[np.int32]:
    """Adds the windows up, one kernel position after the other, and cuts the padding off."""
    batch, rows, cols, height, width, filters = products.shape
    size = [axis.before + axis.outputs + axis.after for axis in axes]
    total = np.zeros((batch, *size, filters), np.int64)
    kept = total[
        :,
        axes[0].before : axes[0].before + axes[0].outputs,
        axes[1].before : axes[1].before + axes[1].outputs,
    ]
    for y in range(height):
        for x in range(width):
            down = slice(y, y + (rows - 1) * steps[0] + 1, steps[0])
            right = slice(x, x + (cols - 1) * steps[1] + 1, steps[1])
            total[:, down, right] += products[:, :, :, y, x]
            check_int32(kept, name)
    return check_int32(kept, name)


def _with_overlap(
    trace: Trace,
    products: tuple[int, ...],
    steps: tuple[int, int],
    axes: tuple[Axis, Axis],
) -> Trace:
    """Replaces the accumulators' traffic: products are added to outputs, or cut off unwritten."""
    _, rows, cols, height, width, filters = products
    kept_rows, met_rows = _landings(rows, height, steps[0], axes[0])
    kept_cols, met_cols = _landings(cols, width, steps[1], axes[1])
    size = rows * cols * height * width * filters
    times = trace.sram.accumulator_writes // (ACCUMULATOR_BITS * size)
    added = times * kept_rows * kept_cols * filters
    met = met_rows * met_cols * filters
    outputs = axes[0].outputs * axes[1].outputs * filters
    sram = dataclasses.replace(
        trace.sram,
        accumulator_reads=(added - met) * ACCUMULATOR_BITS,
        accumulator_writes=(added + outputs - met) * ACCUMULATOR_BITS,
    )
    dram = dataclasses.replace(trace.dram, accumulator_writes=outputs * ACCUMULATOR_BITS)
    return dataclasses.replace(trace, sram=sram, dram=dram)


def _landings(length: int, kernel: int, step: int, axis: Axis) -> tuple[int, int]:
    """How many products land on an axis' outputs, and on how many different ones."""
    landed = np.add.outer(np.arange(length) * step, np.arange(kernel)) - axis.before
    kept = landed[(landed >= 0) & (landed < axis.outputs)]
    return kept.size, np.unique(kept).size
