"""Sums over windows of levels: what average pooling divides."""

from __future__ import annotations

import math

import numpy as np

from wrpn_tf.simulation.values import Integers, Pending

_INT32_LARGEST = 2**31 - 1


def mean_over_windows(
    integers: Integers, scale: float, pool: tuple[int, int], strides: tuple[int, int], padding: str
) -> Pending:
    """Returns the mean of each window; padding is in no mean, as in Keras.

    Args:
        integers: Levels, int32 [batch, height, width, channels].
        scale: Distance between levels.
        pool: Rows and columns of a window.
        strides: Rows and columns between windows.
        padding: `"same"` or `"valid"`.
    """
    ones = np.ones((1, *integers.shape[1:3], 1), np.int32)
    counts = _window_sums(ones, pool, strides, padding)
    sums = _window_sums(integers, pool, strides, padding)
    return Pending(((sums, scale),), divisor=counts.astype(np.float64))


def mean_over_space(integers: Integers, scale: float, keepdims: bool) -> Pending:
    """Returns the mean over all axes but the first and the last: global average pooling.

    Raises:
        OverflowError: If a sum might leave 32 bits.
    """
    axes = tuple(range(1, integers.ndim - 1))
    count = math.prod(integers.shape[1:-1])
    if count * 256 > _INT32_LARGEST:
        raise OverflowError(f"a sum of {count} levels may not fit the 32-bit accumulator")
    sums = integers.sum(axis=axes, keepdims=keepdims, dtype=np.int32)
    return Pending(((sums, scale),), divisor=float(count))


def _window_sums(
    integers: Integers, pool: tuple[int, int], strides: tuple[int, int], padding: str
) -> Integers:
    """The sum of each window of the axes 1 and 2, padded with 0."""
    sides = zip(integers.shape[1:3], pool, strides, strict=True)
    spans = [_span(*side, padding) for side in sides]
    amounts = [(before, after) for before, after, _ in spans]
    padded = np.pad(integers, [(0, 0), *amounts, (0, 0)])
    rows, columns = (count for _, _, count in spans)
    total = np.zeros((len(integers), rows, columns, integers.shape[3]), np.int32)
    for row in range(pool[0]):
        for column in range(pool[1]):
            last = row + strides[0] * (rows - 1) + 1, column + strides[1] * (columns - 1) + 1
            total += padded[:, row : last[0] : strides[0], column : last[1] : strides[1]]
    return total


def _span(size: int, window: int, stride: int, padding: str) -> tuple[int, int, int]:
    """Padding before and after, and the number of windows, along one axis."""
    if padding == "valid":
        return 0, 0, (size - window) // stride + 1
    count = -(-size // stride)
    missing = max((count - 1) * stride + window - size, 0)
    return missing // 2, missing - missing // 2, count
