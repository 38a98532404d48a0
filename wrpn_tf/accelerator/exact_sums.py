"""Sums of products, exact, and the check that a 32-bit accumulator holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.bit_planes import bit_planes
from wrpn_tf.accelerator.processing_element import (
    ACCUMULATOR_MAX,
    ACCUMULATOR_MIN,
    ACTIVATION_MAX,
)

_FLOAT32_WHOLE = 2**24  # float32 holds every whole number up to this, float64 those up to 2^53
_FLOAT64_WHOLE = 2**53
# OpenBLAS spreads products of more multiplications than this over threads. For small ones that
# gains little, and on a busy machine each waits a time slice, 200 times as long as it takes itself.
_ONE_THREAD_MACS = 2**18
_SMALL_MACS = 2**24
_FEWEST_ROWS = 4
_EXACT_CHECK_SIZE = 2**22  # products held at once where partial sums are looked at one by one


def worst_sum(n: npt.NDArray[Any]) -> int:
    """Returns the largest that |any partial sum| of a column of weights can be: 255 * sum |n|.

    Whatever the activations, the order of the additions and the bit planes they come from, for the
    planes of n have n's sign.

    Args:
        n: Integer weights, [K, N].
    """
    return ACTIVATION_MAX * int(np.abs(n.astype(np.int64)).sum(axis=-2).max(initial=0))


def matmul_exact(u: npt.NDArray[Any], n: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Returns u @ n in int64, by floating-point BLAS: whole numbers that the type holds are exact.

    Args:
        u: Integers in 0..255, [..., M, K], of any type that holds them.
        n: Integer weights, [..., K, N].
    """
    worst = worst_sum(n)
    dtype: type[np.number[Any]] = np.int64
    if worst <= _FLOAT64_WHOLE:
        dtype = np.float32 if worst <= _FLOAT32_WHOLE else np.float64
    product = _matmul(u.astype(dtype), n.astype(dtype))
    return product.astype(np.int64)


def _matmul(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Multiplies matrices; small products in pieces that stay on one thread."""
    *_, height, depth = left.shape
    width = right.shape[-1]
    piece = _ONE_THREAD_MACS // (depth * width)
    if height <= piece or piece < _FEWEST_ROWS or height * depth * width > _SMALL_MACS:
        whole: npt.NDArray[Any] = left @ right
        return whole
    product = np.empty((*left.shape[:-1], width), left.dtype)
    for start in range(0, height, piece):
        part = np.s_[..., start : start + piece, :]
        np.matmul(left[part], right, out=product[part])
    return product


def check_partial_sums(
    u: npt.NDArray[np.uint8],
    n: npt.NDArray[Any],
    num_bits: int,
    fold_length: int | None,
    name: str,
) -> None:
    """Raises `OverflowError` if an accumulator of the array ever leaves int32.

    Where 255 * sum |n| of every column fits, none can, in any order. Otherwise every sum that the
    array holds on these operands is looked at: within each bit plane and fold, the sum of the first
    1, 2, ... products in the order of K; and the accumulators outside the array after each fold and
    plane, planes from the lowest, shifted.

    Args:
        u: Stored activations, [M, K].
        n: Integer weights, [K, N].
        num_bits: Of the weights.
        fold_length: How many products the array adds before the sum leaves it; None: all K.
        name: Of the layer, for the message.
    """
    if worst_sum(n) <= ACCUMULATOR_MAX:
        return
    depth = n.shape[0]
    length = depth if fold_length is None else fold_length
    planes = bit_planes(n, num_bits)
    rows_at_once = max(1, _EXACT_CHECK_SIZE // max(1, min(length, depth)))
    for start in range(0, u.shape[0], rows_at_once):
        rows = u[start : start + rows_at_once].astype(np.int64)
        for column in range(n.shape[1]):
            total = np.zeros(len(rows), np.int64)
            for shift, plane in enumerate(planes):
                for first in range(0, depth, length):
                    part = slice(first, first + length)
                    sums = np.cumsum(rows[:, part] * plane[part, column], axis=1)
                    check_int32(sums, name)
                    total += sums[:, -1] << shift
                    check_int32(total, name)


def check_int32(sums: npt.NDArray[np.int64], name: str) -> npt.NDArray[np.int32]:
    """Returns the sums as int32.

    Raises:
        OverflowError: If one does not fit; the message begins with the layer's name.
    """
    if sums.size and (sums.min() < ACCUMULATOR_MIN or sums.max() > ACCUMULATOR_MAX):
        value = max(int(sums.max()), int(sums.min()), key=abs)
        raise OverflowError(f"{name or 'product'}: an accumulator would be {value}, outside int32.")
    return sums.astype(np.int32)
