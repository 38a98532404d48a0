"""Matrix products of k-bit weights and zero-pointed activations, as passes over the array."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.bit_planes import num_planes
from wrpn_tf.accelerator.checks import check_int
from wrpn_tf.accelerator.exact_sums import check_int32, check_partial_sums, matmul_exact
from wrpn_tf.accelerator.processing_element import ACTIVATION_MAX
from wrpn_tf.accelerator.systolic_array import SystolicArray
from wrpn_tf.accelerator.timing import gemm_trace
from wrpn_tf.accelerator.trace import ACTIVATION_BITS, Gemm, Trace


def stored_activations(q: npt.ArrayLike, low: int) -> npt.NDArray[np.uint8]:
    """Returns levels as the array stores them: u = q - low, uint8.

    Args:
        q: Integers in low..low + 255.
        low: The smallest level, in -255..0.

    Raises:
        TypeError: If `q` holds no integers, or `low` is not an int.
        ValueError: If a level or `low` is out of range.
    """
    check_int("low", low, -ACTIVATION_MAX, 0)
    levels = np.asarray(q)
    if levels.dtype.kind not in "iu":
        raise TypeError(f"`q` must hold integers, got {levels.dtype}.")
    if not levels.size:
        raise ValueError(f"`q` must have entries, got shape {levels.shape}.")
    smallest, largest = int(levels.min()), int(levels.max())
    if smallest < low or largest > low + ACTIVATION_MAX:
        raise ValueError(
            f"`q` must be in {low}..{low + ACTIVATION_MAX}, got {smallest}..{largest}."
        )
    return (levels.astype(np.int16) - np.int16(low)).astype(np.uint8)


def gemm(
    u: npt.NDArray[np.uint8],
    n: npt.NDArray[Any],
    *,
    low: int,
    num_bits: int,
    array: SystolicArray,
    name: str,
) -> npt.NDArray[np.int32]:
    """Returns (u + low) @ n for each group.

    The array makes u @ n; + low * sum n, a constant per column, corrects it to the levels' sum.

    Args:
        u: Stored activations, [groups, M, K].
        n: k-bit weights, [groups, K, N].
        low: The level of u = 0.
        num_bits: k.
        array: On which the sums run.
        name: Of the layer, for errors.

    Raises:
        OverflowError: If an accumulator leaves int32 at any time, or a corrected one does.
    """
    for group_u, group_n in zip(u, n, strict=True):
        check_partial_sums(group_u, group_n, num_bits, array.fold_length, name)
    sums = check_int32(matmul_exact(u, n), name)
    if low == 0:
        return sums
    correction = low * n.astype(np.int64).sum(axis=-2, keepdims=True)
    return check_int32(sums + correction, name)


def layer_trace(
    array: SystolicArray, M: int, N: int, K: int, groups: int, num_bits: int, input_size: int
) -> Trace:
    """Returns what a layer costs for one example.

    Args:
        array: On which it runs.
        M: Output positions.
        N: Output channels of a group.
        K: Products in each output.
        groups: Of channels, one after the other.
        num_bits: Of the weights: as many passes as they have planes.
        input_size: How many values the input has, which cross the DRAM's port once.
    """
    planes = num_planes(num_bits)
    job = Gemm(M=M, N=N, K=K, passes=planes * groups)
    trace = gemm_trace(array.rows, array.cols, array.dataflow, job, planes)
    dram = dataclasses.replace(trace.dram, activation_reads=input_size * ACTIVATION_BITS)
    return dataclasses.replace(trace, dram=dram)
