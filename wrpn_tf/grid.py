"""The number grids of WRPN, in NumPy: which integers a bit width has, and how reals map to them.

| tensor | k bits | integers | real value |
|---|---|---|---|
| weights | k >= 2 | -L..L, L = 2^(k-1) - 1 | n * (range / L) |
| weights | k = 1 | -1, +1 | n * range |
| activations (unsigned) | k >= 1 | 0..L, L = 2^k - 1 | n * (range / L) |
| signed activations | k >= 2 | -L - 1..L, L = 2^(k-1) - 1 | n * (range / L) |

Signed activations, which the paper does not have, take all 2^k levels of two's complement, so that
an int8 that saturates clamps as the grid does. With range 1 the others are the quantizers of the
paper: w_k = round((2^(k-1) - 1) w) / (2^(k-1) - 1) on [-1, 1] and a_k = round((2^k - 1) a) /
(2^k - 1) on [0, 1].

Ties: half up, towards +inf, on every grid: +1/2 -> 1 and -1/2 -> 0. `to_int` evaluates in float32
and in the order of TensorFlow's fused fake-quantization kernel, so that what training rounds to and
what is exported are the same integers.

Source: Mishra et al., "WRPN: Wide Reduced-Precision Networks", arXiv 1709.01134, section 5.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_BITS = 8

# Largest level -> where to put it, in standard deviations, so that a normal distribution is rounded
# with the least mean squared error (Max, "Quantizing for minimum distortion", IRE Trans. Inf.
# Theory 1960, for uniform levels; recomputed in tests/grid_test.py).
_OPTIMAL_LARGEST_LEVEL = {
    1: 1.224,
    3: 1.952,
    7: 2.474,
    15: 2.899,
    31: 3.270,
    63: 3.607,
    127: 3.920,
    255: 4.215,
}


def check_num_bits(num_bits: int, argument: str = "num_bits") -> int:
    """Returns `num_bits` if it is a whole number in 1..8.

    Raises:
        TypeError: If it is not an int, or is a bool.
        ValueError: If it is outside 1..8.
    """
    if isinstance(num_bits, (bool, np.bool_)) or not isinstance(num_bits, (int, np.integer)):
        raise TypeError(
            f"`{argument}` must be an int in 1..{MAX_BITS}, "
            f"got {type(num_bits).__name__} {num_bits!r}."
        )
    if not 1 <= num_bits <= MAX_BITS:
        raise ValueError(f"`{argument}` must be in 1..{MAX_BITS}, got {num_bits}.")
    return int(num_bits)


def is_positive(value: Any) -> bool:
    """Returns whether a value is a finite number above 0, of Python's or NumPy's, and no bool."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and 0 < float(value) < math.inf


@dataclasses.dataclass(frozen=True)
class Grid:
    """The integers `low..high`; an integer q stands for the real value `scale * q`.

    Invariants: low <= 0 <= high, low < high.
    """

    low: int
    high: int

    def to_int(self, real: npt.ArrayLike, scale: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Rounds reals to the grid: floor(clip(real, low * scale, high * scale) / scale + 1/2).

        Args:
            real: Reals of any shape.
            scale: Distance between levels, > 0; a scalar, or an array that broadcasts against
                `real`.

        Returns:
            Integers in low..high, shaped as `real`.
        """
        step = np.asarray(scale, np.float32)
        smallest = np.float32(self.low) * step
        largest = np.float32(self.high) * step
        clipped = np.maximum(np.minimum(np.asarray(real, np.float32), largest), smallest)
        shifted = (clipped - smallest) / step + np.float32(self.low)
        integers: npt.NDArray[np.int32] = np.floor(shifted + np.float32(0.5)).astype(np.int32)
        return integers

    def to_real(self, integers: npt.ArrayLike, scale: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Returns `scale * integers` in float32.

        Raises:
            ValueError: If an integer lies outside the grid.
        """
        array = np.asarray(integers)
        if array.size and (array.min() < self.low or array.max() > self.high):
            raise ValueError(
                f"`integers` must be in {self.low}..{self.high}, got {array.min()}..{array.max()}."
            )
        return array.astype(np.float32) * np.asarray(scale, np.float32)

    def quantize(self, real: npt.ArrayLike, scale: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Returns the level nearest to each real: `to_real(to_int(real))`."""
        return self.to_real(self.to_int(real, scale), scale)

    def nested_step(self, num_bits: int) -> int:
        """Returns the distance between the integers of the nested grid of fewer bits.

        (2^k - 1) / (2^num_bits - 1) for this grid's k bits: 17, 85 or 255 for 4, 2 or 1 of 8 bits.

        Raises:
            TypeError, ValueError: As `check_num_bits`, or if `num_bits` does not divide k.
        """
        bits = (self.high - self.low).bit_length()
        if bits % check_num_bits(num_bits):
            raise ValueError(f"`num_bits` must divide the grid's {bits} bits, got {num_bits}.")
        return int((2**bits - 1) // (2**num_bits - 1))

    def coarsen(self, integers: npt.ArrayLike, num_bits: int) -> npt.NDArray[np.int32]:
        """Rounds integers of this grid to those of the nested grid of fewer bits.

        step * clip(floor(q / step + 1/2), ceil(low / step), floor(high / step)) with the step of
        `nested_step`; 0 bits: 0. The step is odd, so that no integer lies in the middle: rounding a
        real to this grid and then to the nested one is rounding it to that at once.

        Args:
            integers: Integers in low..high, of any shape.
            num_bits: 0, or a divisor of this grid's bits.

        Raises:
            TypeError, ValueError: As `nested_step`.
        """
        values = np.asarray(integers, np.int32)
        if num_bits == 0:
            return np.zeros_like(values)
        step = self.nested_step(num_bits)
        multiples = (2 * values + step) // (2 * step)
        rounded: npt.NDArray[np.int32] = step * np.clip(
            multiples, -(-self.low // step), self.high // step
        )
        return rounded

    @property
    def optimal_largest_level(self) -> float:
        """The real value of `high` at which a standard normal distribution is rounded best.

        Best is the least mean squared error; for grids from 0, of the distribution's positive half.
        """
        return _OPTIMAL_LARGEST_LEVEL[self.high]


@dataclasses.dataclass(frozen=True)
class SignGrid(Grid):
    """The two integers -1 and +1 of 1-bit weights; the sign of 0 is +1."""

    low: int = -1
    high: int = 1

    def to_int(self, real: npt.ArrayLike, scale: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Returns +1 where real >= 0, else -1; `scale` does not matter."""
        del scale
        return np.where(np.asarray(real) >= 0, np.int32(1), np.int32(-1)).astype(np.int32)


def weight_grid(num_bits: int) -> Grid:
    """Returns the grid of k-bit weights: -L..L with L = 2^(k-1) - 1, and {-1, +1} for one bit.

    Raises:
        TypeError, ValueError: As `check_num_bits`.
    """
    if check_num_bits(num_bits) == 1:
        return SignGrid()
    largest = 2 ** (num_bits - 1) - 1
    return Grid(-largest, largest)


def activation_grid(num_bits: int, signed: bool = False) -> Grid:
    """Returns the grid of k-bit activations: 0..2^k - 1; signed ones: -2^(k-1)..2^(k-1) - 1.

    Raises:
        TypeError, ValueError: As `check_num_bits`, or if signed levels shall have one bit.
    """
    if signed:
        if check_num_bits(num_bits) == 1:
            raise ValueError("`num_bits` must be in 2..8 for signed values, got 1.")
        return Grid(-(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)
    return Grid(0, 2 ** check_num_bits(num_bits) - 1)


def affine_grid(num_bits: int, smallest: float, largest: float) -> tuple[Grid, np.float32]:
    """Returns a grid of 2^k levels over [smallest, largest], 0 among them, and its scale.

    The zero point is `-grid.low`; unsigned storage of an integer q is `q - grid.low`. Both bounds
    are first widened to include 0.

    Raises:
        TypeError, ValueError: As `check_num_bits`, or if the bounds are equal (or not finite).
    """
    steps = 2 ** check_num_bits(num_bits) - 1
    low, high = np.float32(min(smallest, 0.0)), np.float32(max(largest, 0.0))
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(
            f"`smallest` and `largest` must be finite and span a range, "
            f"got {smallest} and {largest}."
        )
    scale = (high - low) / np.float32(steps)
    zero_point = int(np.floor(-low / scale + np.float32(0.5)))
    return Grid(-zero_point, steps - zero_point), np.float32(scale)
