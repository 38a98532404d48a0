"""Families of scales at which no kernel's rounding can differ from the exact rule; see `snapping`.

D is the number of accumulator units per level, M the distance of reachable accumulators.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tflite_export.requantization import Floats, Integers
from tflite_export.snapping_values import Channels, Rounding

# How far the adopted offset may be from B, so that rounding gives B.
NEAREST = 0.45
# A channel this close to a candidate, relatively, is held to stand on it: batch norm's parameters
# have float32's precision, 6e-8, and folding combines a few of them.
SAME = 5e-7
_LARGEST_DENOMINATOR = 64
# r * r * D / M stays below this, so that no two candidates lie within float32's precision.
_RESOLUTION = 4e4
# How much of the room that M = 1 leaves the thresholds may use: little is better for the margin,
# much for XNNPACK's float32.
_ROOM_USED = (0.5, 0.9)
# Where M = 1 leaves no room around the wanted scale (D a little below a power of two), how far to
# look for some, relatively.
_FAR = np.array([sign * far / 200 for far in range(1, 15) for sign in (-1, 1)])
# Thresholds and kernels' zones stay this far from accumulators, in units: m has 31 bits.
_CLEAR = 1e-3
# Up to this many thresholds and this M, all D of ten bits nearby are tried, so many each way.
_FEW_THRESHOLDS, _FEW_MULTIPLES, _FEW_STEPS = 15, 18, 20


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What is to be solved.

    Attributes:
        channels: The wanted function; scale > 0.
        rounding: The output's grid.
        multiplier: int64 [C], M >= 1.
        offset_is_free: Whether B may move the function, or must only choose its roundings.
    """

    channels: Channels
    rounding: Rounding
    multiplier: Integers
    offset_is_free: bool

    @property
    def spacing(self) -> Floats:
        """M, [C, 1]."""
        return self.multiplier[:, None].astype(np.float64)

    @property
    def wanted(self) -> Floats:
        """Accumulators a per level, D / M, [C, 1]."""
        return 1.0 / self.channels.scale[:, None]

    def target(self, unit: Floats) -> Floats:
        """Returns the B that is wanted for each D, [C, K].

        It leaves the reachable real value that is nearest to 0 where it is.
        """
        channels, rounding = self.channels, self.rounding
        offset = channels.offset[:, None]
        if not self.offset_is_free:
            return offset * unit
        ends = [a * channels.scale + channels.offset for a in (channels.smallest, channels.largest)]
        pivot = np.clip(rounding.zero, *(np.clip(end, rounding.low, rounding.high) for end in ends))
        before = self.spacing * self.wanted
        # Less than float32 can tell is no move, and must not move B.
        move = np.where(np.abs(unit / before - 1) < SAME, 0, unit - before)
        target: Floats = pivot[:, None] * move + offset * before
        return target


class Family(NamedTuple):
    """Candidates, each [C, K].

    Attributes:
        unit: D.
        bias: Whole numbers B.
        middle: The value in place of B that puts the exact rule's thresholds half-way between
            reachable accumulators: the same function as with B, which is the nearest whole number.
        margin: Units of the accumulator; -inf where the kernels cannot agree, NaN where the family
            does not apply.
    """

    unit: Floats
    bias: Floats
    middle: Floats
    margin: Floats


def below_zone(unit: Floats) -> Floats:
    """Returns how far below a threshold REF and OPT already round up: 1/2 < zone <= 1 units."""
    return unit / np.exp2(np.ceil(np.log2(unit)))


def on_lattice(problem: Problem) -> Family:
    """Returns D = M p / r, which puts thresholds M / r apart, and B in the nearest gap; M > 1."""
    # A few neighbours of the nearest p for r = 1 and 2, where they are a large step apart.
    r = np.array([1] * 9 + [2] * 3 + [*range(3, _LARGEST_DENOMINATOR + 1)], np.float64)
    steps, factors = np.zeros_like(r), np.ones_like(r)
    steps[:12] = 0, -2, -1, 1, 2, 0, 0, 0, 0, 0, -1, 1
    factors[5:9] = 0.99, 0.995, 1.005, 1.01
    # And where a reachable sum is more levels than that: a whole number of levels.
    finer = np.maximum(np.round(1 / problem.wanted) + np.arange(-1.0, 2.0), _LARGEST_DENOMINATOR)
    r = np.concatenate([np.broadcast_to(r, (len(finer), r.size)), finer], axis=1)
    steps, factors = (np.pad(a, (0, 3), mode="edge") for a in (steps, factors))
    ideal = problem.wanted * factors * r
    # With an even p and no offset, a threshold would stand on a reachable accumulator.
    p = _whole(ideal if problem.offset_is_free else 2 * np.floor(ideal / 2) + 1, steps)
    unit = problem.spacing * p / r
    target = problem.target(unit)
    # Thresholds stand at j * M / (2 r) with j = p (mod 2).
    half = problem.spacing / (2 * r)
    parity = np.mod(p, 2)
    below = 2 * np.floor((target / half - parity) / 2 + 1e-9) + parity
    applies = (np.gcd(p.astype(np.int64), r.astype(np.int64)) == 1) & (problem.spacing > 1)
    applies &= (r * r * problem.wanted <= _RESOLUTION) | (r <= 2)
    found = _in_gaps(problem, unit, target, (below + 1) * half, half)
    return found._replace(margin=np.where(applies, found.margin, np.nan))


def with_few_thresholds(problem: Problem) -> Family | None:
    """Returns arbitrary D, with B in a wide gap between the few thresholds, or None."""
    rounding = problem.rounding
    levels = np.arange(rounding.low + 1, rounding.high + 1)
    few = problem.multiplier[:, None] <= _FEW_MULTIPLES
    if len(levels) > _FEW_THRESHOLDS or not problem.offset_is_free or not few.any():
        return None
    unit = _grid(problem.spacing * problem.wanted, np.arange(-_FEW_STEPS, _FEW_STEPS + 1.0))
    target = problem.target(unit)
    spacing = problem.spacing[:, :, None]
    residues = np.sort(np.mod((levels - 0.5) * unit[:, :, None], spacing), axis=2)
    half = np.diff(residues, axis=2, append=residues[:, :, :1] + spacing) / 2
    centre = residues + half
    centre = centre + np.round((target[:, :, None] - centre) / spacing) * spacing
    found = _in_gaps(problem, unit[:, :, None], target[:, :, None], centre, half)
    wide = found.margin >= 0.5 * found.margin.max(axis=2, keepdims=True)
    distance = np.where(wide, np.abs(centre - target[:, :, None]), np.inf)
    best = np.argmin(distance, axis=2)[:, :, None]
    bias, middle, margin = (
        np.take_along_axis(a, best, axis=2)[:, :, 0]
        for a in (found.bias, found.middle, found.margin)
    )
    return Family(unit, bias, middle, np.where(few, margin, np.nan))


def anywhere(problem: Problem) -> Family:
    """Returns D and B next to the wanted ones, for channels that no family solves."""
    unit = _grid(problem.spacing * problem.wanted, np.zeros(1))
    bias = np.floor(problem.target(unit) + 0.5)
    return Family(unit, bias, bias, np.full_like(unit, -np.inf))


def below_even(problem: Problem) -> Family | None:
    """Returns D = an even number minus a hair, and the nearest B, for M = 1; or None.

    Threshold n lies (n - 1/2) * hair below a whole number.
    """
    if not (problem.multiplier == 1).any():
        return None
    channels, rounding = problem.channels, problem.rounding
    steps = np.concatenate([[0.0, -3, -2, -1, 1, 2, 3], np.zeros(_FAR.size)])
    factors = np.concatenate([np.ones(7), 1 + _FAR])
    near = 2 * _whole(problem.wanted * factors / 2, steps)
    even = np.concatenate([near] * len(_ROOM_USED), axis=1)
    room = 1 - below_zone(even)
    used = room * np.repeat(_ROOM_USED, near.shape[1])
    unit = even - used / (rounding.high - 0.5)
    margin = (1 - used) / 2
    target = problem.target(unit)
    bias = np.round(target - margin)
    middle = bias + margin
    if not problem.offset_is_free:
        bias = np.floor(target + 0.5)
        # The first threshold is hair / 2 from it: relatively as far as the last is from its own.
        margin = used
    # REF and OPT round halves of negative levels apart: no D serves both.
    least = channels.smallest * channels.scale + channels.offset
    negative = (rounding.low < 0) & (least < -0.4)
    margin = np.where((room > 0.004) & ~negative[:, None], margin, -np.inf)
    return Family(unit, bias, middle, np.where(problem.spacing == 1, margin, np.nan))


def _whole(ideal: Floats, steps: Floats) -> Floats:
    """Returns positive whole numbers of 17 bits, which float32 can tell apart, some steps away."""
    return _stepped(ideal, steps, lambda size: np.maximum(size - 16, 0))


def _grid(ideal: Floats, steps: Floats) -> Floats:
    """Returns numbers of ten bits around others, some steps away."""
    return _stepped(ideal, steps, lambda size: size - 9)


def _stepped(ideal: Floats, steps: Floats, exponent: Callable[[Floats], Floats]) -> Floats:
    """Returns multiples of 2^exponent(floor(log2(x))), the nearest ones and some steps away."""
    step = np.exp2(exponent(np.floor(np.log2(ideal))))
    near = np.maximum(np.round(ideal / step) + steps, 1.0) * step
    # Beyond the next power of two, steps are twice as large.
    step = np.exp2(exponent(np.floor(np.log2(near))))
    stepped: Floats = np.round(near / step) * step
    return stepped


def _in_gaps(
    problem: Problem, unit: Floats, target: Floats, centre: Floats, half: Floats
) -> Family:
    """Returns B near the centre of gaps that are 2 * half wide, where it is clear of the zones."""
    zone = below_zone(unit) + _CLEAR
    bias = np.floor(centre + 0.5)
    bias -= half - (bias - centre) < zone
    upper, lower = half - (bias - centre), half + (bias - centre)
    possible = (upper >= zone) & (lower >= (zone if problem.rounding.low < 0 else _CLEAR))
    bias = np.where(possible, bias, np.floor(target + 0.5))
    middle = np.clip(centre, bias - NEAREST, bias + NEAREST)
    margin = half - np.abs((middle if problem.offset_is_free else target) - centre)
    return Family(unit, bias, middle, np.where(possible, margin, -np.inf))
