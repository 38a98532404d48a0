"""Sums over windows of levels: what average pooling divides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from wrpn_tf.simulation.values import Integers, Pending

_INT32_LARGEST = 2**31 - 1


def mean_over_windows(
    integers: Integers, scale: float, pool: Sequence[int], strides: Sequence[int], padding: str
) -> Pending:
    """Returns the mean of each window; padding is in no mean, as in Keras.

    Args:
        integers: Levels, int32 [batch, height, width, channels], or [batch, length, channels].
        scale: Distance between levels.
        pool: Size of a window along each axis of space.
        strides: Distance between windows along each axis of space.
        padding: `"same"` or `"valid"`.
    """
    ones = np.ones((1, *integers.shape[1:-1], 1), np.int32)
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
    integers: Integers, pool: Sequence[int], strides: Sequence[int], padding: str
) -> Integers:
    """The sum of each window over all axes but the first and the last, padded with 0."""
    sides = zip(integers.shape[1:-1], pool, strides, strict=True)
    spans = [_span(*side, padding) for side in sides]
    amounts = [(before, after) for before, after, _ in spans]
    padded = np.pad(integers, [(0, 0), *amounts, (0, 0)])
    counts = [count for _, _, count in spans]
    total = np.zeros((len(integers), *counts, integers.shape[-1]), np.int32)
    for starts in itertools.product(*map(range, pool)):
        steps = zip(starts, counts, strides, strict=True)
        taken = (slice(start, start + stride * (n - 1) + 1, stride) for start, n, stride in steps)
        total += padded[(slice(None), *taken)]
    return total


def _span(size: int, window: int, stride: int, padding: str) -> tuple[int, int, int]:
    """Padding before and after, and the number of windows, along one axis."""
    if padding == "valid":
        return 0, 0, (size - window) // stride + 1
    count = -(-size // stride)
    missing = max((count - 1) * stride + window - size, 0)
    return missing // 2, missing - missing // 2, count
