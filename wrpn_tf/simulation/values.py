"""What stands for a tensor during a simulation: levels, or accumulators that wait to be rounded.

A kernel's accumulators, and what batch norm, bias and ReLU do to them, are one affine map per
channel and two limits; it is folded in float64 and applied once, where the network rounds.
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from wrpn_tf.grid import Grid

Integers: TypeAlias = npt.NDArray[np.int32]
Reals: TypeAlias = npt.NDArray[np.float64]
PerChannel: TypeAlias = Reals | float


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
    """A rounded tensor: real == scale * integers.

    Invariant: grid.low <= integers <= grid.high.

    Attributes:
        integers: int32 [batch, ...].
        scale: Distance between levels, the float64 value of a float32.
        grid: The integers that the tensor may hold.
        name: Of the rounding, as in `Simulation.levels`.
    """

    integers: Integers
    scale: float
    grid: Grid
    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """A tensor before its rounding: real == clamp(sum(scale * integers) / divisor + offset).

    Scales, offset and limits are scalars or per channel, the last axis; the divisor, what average
    pooling divides by, broadcasts against the integers. It is kept apart from the scales so that a
    mean that is halfway between two levels is halfway in float64 too.

    Attributes:
        terms: (int32 integers [batch, ...], float64 scale): one for a kernel, several for a sum.
        offset: float64; all there is, [batch, ...], of what is no multiple of integers.
        lower: float64, the smallest real value; -inf without a ReLU.
        upper: float64, the largest real value.
        divisor: float64, whole numbers.
    """

    terms: tuple[tuple[Integers, PerChannel], ...]
    offset: PerChannel = 0.0
    lower: PerChannel = -np.inf
    upper: PerChannel = np.inf
    divisor: PerChannel = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """Tensors side by side that are rounded to one grid.

    Attributes:
        parts: The tensors.
        axis: Along which they stand, the batch dimension counted.
    """

    parts: tuple[Value, ...]
    axis: int


Value: TypeAlias = Levels | Pending | Joined


def pending(value: Levels | Pending) -> Pending:
    """Returns levels as a sum of one term that may be scaled, shifted and rounded again."""
    if isinstance(value, Pending):
        return value
    return Pending(terms=((value.integers, value.scale),))


def scaled(value: Levels | Pending, factor: Reals, shift: Reals) -> Pending:
    """Returns factor * value + shift: batch norm.

    Args:
        value: A tensor of any kind but `Joined`.
        factor: float64 [channels]; a negative one swaps the limits of a ReLU before it.
        shift: float64 [channels].
    """
    source = pending(value)
    ends = [_affine(limit, factor, shift) for limit in (source.lower, source.upper)]
    return dataclasses.replace(
        source,
        terms=tuple((integers, scale * factor) for integers, scale in source.terms),
        offset=source.offset * factor + shift,
        lower=np.minimum(*ends),
        upper=np.maximum(*ends),
    )


def _affine(limit: PerChannel, factor: Reals, shift: Reals) -> Reals:
    """The limit scaled and shifted; an infinite one times 0 is 0."""
    finite = np.where(factor == 0, 0.0, limit)
    return np.asarray(finite * factor + shift, np.float64)


def rectified(value: Value, limit: float) -> Value:
    """Returns min(max(value, 0), limit): ReLU (limit inf) and ReLU6."""
    if isinstance(value, Joined):
        return Joined(tuple(rectified(part, limit) for part in value.parts), value.axis)
    source = pending(value)
    return dataclasses.replace(
        source, lower=np.clip(source.lower, 0.0, limit), upper=np.clip(source.upper, 0.0, limit)
    )


def rounded(value: Value, scale: float, grid: Grid) -> Integers:
    """Returns the levels of a tensor: clamp(floor(real / scale + 1/2), grid.low, grid.high).

    In float64, the division last: what is exactly halfway between two levels stays so, and goes up.

    Args:
        value: The tensor.
        scale: Distance between the levels.
        grid: The levels.

    Returns:
        int32 [batch, ...].
    """
    if isinstance(value, Joined):
        parts = [rounded(part, scale, grid) for part in value.parts]
        return np.concatenate(parts, axis=value.axis)
    if isinstance(value, Levels) and value.scale == scale:
        return np.clip(value.integers, grid.low, grid.high)
    levels = np.floor(real(value) / scale + 0.5)
    return np.clip(levels, grid.low, grid.high).astype(np.int32)


def real(value: Levels | Pending) -> Reals:
    """Returns the real values of a tensor, float64 [batch, ...]."""
    if isinstance(value, Levels):
        return value.integers * np.float64(value.scale)
    total = sum(integers * scale for integers, scale in value.terms)
    shifted = total / value.divisor + value.offset
    return np.asarray(np.clip(shifted, value.lower, value.upper), np.float64)
