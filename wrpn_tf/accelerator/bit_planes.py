"""k-bit weights as ternary planes, one for each bit of their magnitude."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.checks import check_int

MAX_BITS = 8


def num_planes(num_bits: int) -> int:
    """Returns how many ternary planes k-bit weights have: k - 1, and 1 for one bit.

    Raises:
        TypeError: If `num_bits` is not an int.
        ValueError: If it is outside 1..8.
    """
    return max(1, check_int("num_bits", num_bits, 1, MAX_BITS) - 1)


def check_weights(n: npt.ArrayLike, num_bits: int) -> npt.NDArray[Any]:
    """Returns `n` as an array if it holds k-bit weights: -L..L, L = 2^(k-1) - 1; 1 bit: -1 and 1.

    Raises:
        TypeError: If `n` holds no integers.
        ValueError: If a weight is not on the grid, or `num_bits` is outside 1..8.
    """
    planes = num_planes(num_bits)
    array = np.asarray(n)
    if array.dtype.kind not in "iu":
        raise TypeError(f"`n` must hold integers, got {array.dtype}.")
    largest = 2**planes - 1
    if array.size and (array.min() < -largest or array.max() > largest):
        raise ValueError(
            f"`n` must be in {-largest}..{largest} for {num_bits} bits, "
            f"got {array.min()}..{array.max()}."
        )
    if num_bits == 1 and not array.all():
        raise ValueError("`n` must be -1 or 1 for 1 bit, got 0.")
    return array


def bit_planes(n: npt.ArrayLike, num_bits: int) -> npt.NDArray[np.int8]:
    """Returns p of n = sum_i 2^i * p[i], p[i] in {-1, 0, 1} with the sign of n.

    Args:
        n: Integers of k-bit weights, of any shape.
        num_bits: k.

    Returns:
        [k - 1, *shape], the lowest bit first; [1, *shape] for one bit.

    Raises:
        TypeError, ValueError: As `check_weights`.
    """
    array = check_weights(n, num_bits).astype(np.int16)
    shifts = np.arange(num_planes(num_bits), dtype=np.int16).reshape(-1, *[1] * array.ndim)
    planes: npt.NDArray[np.int8] = ((np.abs(array) >> shifts & 1) * np.sign(array)).astype(np.int8)
    return planes
