"""Candidates for scales and biases at which no kernel's rounding can differ; see `snapping`.

D is the number of accumulator units per level, M the distance of reachable accumulators.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tflite_export.requantization import Floats, Integers
from tflite_export.snapping_values import Channels, Rounding

_LARGEST_DENOMINATOR = 64
# r * r * D / M stays below this, so that no two candidates lie within float32's precision.
_RESOLUTION = 4e4
_LARGEST_MOVE = 0.03
HOPELESS = -1e6
# A channel this close to a candidate, relatively, is held to stand on it: batch norm's parameters
# have float32's precision, 6e-8, and folding combines a few of them.
_SAME = 5e-7
# Where M = 1 leaves no room around the wanted scale (D a little below a power of two), how far to
# look for some, relatively.
_FAR = np.array([sign * far / 200 for far in range(1, 15) for sign in (-1, 1)])
# How far the adopted offset may be from B, so that rounding gives B.
_NEAREST = 0.45
# How much of the room that M = 1 leaves the thresholds may use: little is better for the margin,
# much for XNNPACK's float32.
_ROOM_USED = (0.5, 0.9)


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Some values of D and B per channel, best first.

    Attributes:
        unit: float64 [C, K], D.
        bias: float64 [C, K], whole numbers B.
        middle: float64 [C, K], the value in place of B that puts the exact rule's thresholds
            half-way between reachable accumulators: the same function as with B, which is the
            nearest whole number.
        score: float64 [C, K]; below `HOPELESS` where the kernels cannot agree.
    """

    unit: Floats
    bias: Floats
    middle: Floats
    score: Floats


def wanted_bias(
    channels: Channels, rounding: Rounding, unit: Floats, multiplier: Integers
) -> Floats:
    """Returns the B, [C, K], that keeps the reachable value nearest to 0 where it is.

    Args:
        channels: The wanted function; scale > 0.
        rounding: The output's grid.
        unit: float64 [C, K], D.
        multiplier: int64 [C], M.
    """
    ends = [channels.smallest * channels.scale, channels.largest * channels.scale]
    pivot = np.clip(0.0, *(np.clip(e + channels.offset, rounding.low, rounding.high) for e in ends))
    wanted = (multiplier / channels.scale)[:, None]
    bias: Floats = pivot[:, None] * (unit - wanted) + channels.offset[:, None] * wanted
    return bias


def below_zone(unit: Floats) -> Floats:
    """Returns how far below a threshold REF and OPT already round up: 1/2 < zone <= 1 units."""
    return unit / np.exp2(np.ceil(np.log2(unit)))


def candidates(
    channels: Channels, rounding: Rounding, multiplier: Integers, *, offset_is_free: bool
) -> Candidates:
    """Returns the candidates around the wanted scales, best first.

    Args:
        channels: The wanted function; scale > 0.
        rounding: The output's grid.
        multiplier: int64 [C], M >= 1.
        offset_is_free: Whether B may move the function, or must only choose its roundings.
    """
    found = _scored(channels, rounding, multiplier, offset_is_free)
    order = np.argsort(-found[-1], axis=1, kind="stable")
    return Candidates(*(np.take_along_axis(a, order, axis=1) for a in found))


def shared_candidates(
    channels: Channels, rounding: Rounding, multiplier: Integers, *, offset_is_free: bool
) -> Candidates:
    """Returns the candidates with one D for all channels, which are of one scale and M.

    A candidate is as good as its worst channel. The arguments are those of `candidates`.
    """
    found = _scored(channels, rounding, multiplier, offset_is_free)
    order = np.argsort(-found[-1].min(axis=0), kind="stable")
    return Candidates(*(a[:, order] for a in found))


def _scored(
    channels: Channels, rounding: Rounding, multiplier: Integers, offset_is_free: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """Returns D, B, B's middle and the score of all candidates, each [C, K]."""
    families = [_on_lattice(channels, rounding, multiplier, offset_is_free)]
    if (multiplier == 1).any():
        families.append(_below_even(channels, rounding, multiplier, offset_is_free))
    unit, bias, middle, margin = (np.concatenate(a, axis=1) for a in zip(*families, strict=True))
    score = _score(channels, rounding, multiplier, unit, middle, margin, offset_is_free)
    return unit, bias, middle, score


def _on_lattice(
    channels: Channels, rounding: Rounding, multiplier: Integers, offset_is_free: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """Returns D = M p / r, B in a gap of M / r, the gap's middle, and the margin.

    The margin is -inf where the kernels cannot agree, NaN where M = 1.
    """
    # A few neighbours of the nearest p for r = 1 and 2, where they are a large step apart.
    r = np.array([1] * 9 + [2] * 3 + [*range(3, _LARGEST_DENOMINATOR + 1)], np.float64)
    steps, factors = np.zeros_like(r), np.ones_like(r)
    steps[:12] = 0, -2, -1, 1, 2, 0, 0, 0, 0, 0, -1, 1
    factors[5:9] = 0.99, 0.995, 1.005, 1.01
    wanted = factors / channels.scale[:, None]
    # With an even p and no offset, a threshold would stand on a reachable accumulator.
    nearest = np.round(wanted * r) if offset_is_free else 2 * np.floor(wanted * r / 2) + 1
    p = np.maximum(nearest + steps, 1.0)
    spacing = multiplier[:, None].astype(np.float64)
    unit = spacing * p / r
    target = _target(channels, rounding, unit, multiplier, offset_is_free)
    # Thresholds stand at j * M / (2 r) with j = p (mod 2).
    half = spacing / (2 * r)
    parity = np.mod(p, 2)
    below = 2 * np.floor((target / half - parity) / 2 + 1e-9) + parity
    middle = (below + 1) * half
    bias = np.floor(middle + 0.5)
    zone = below_zone(unit) + 1e-3
    bias -= half - (bias - middle) < zone
    upper, lower = half - (bias - middle), half + (bias - middle)
    possible = (upper >= zone) & (lower >= (zone if rounding.low < 0 else 1e-3))
    possible &= np.gcd(p.astype(np.int64), r.astype(np.int64)) == 1
    possible &= (r * r * wanted <= _RESOLUTION) | (r <= 2)
    middle = np.clip(middle, bias - _NEAREST, bias + _NEAREST)
    margin = half if offset_is_free else half - np.abs(target - middle)
    margin = np.where(possible, margin, -np.inf)
    return unit, bias, middle, np.where(spacing > 1, margin, np.nan)


def _below_even(
    channels: Channels, rounding: Rounding, multiplier: Integers, offset_is_free: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """Returns D = an even number minus a hair, B, its middle, and the margin.

    Threshold n lies (n - 1/2) * hair below a whole number. The margin is -inf where the kernels
    cannot agree, NaN where M > 1.
    """
    wanted = 1.0 / channels.scale[:, None]
    steps = np.concatenate([[0.0, -3, -2, -1, 1, 2, 3], np.zeros(_FAR.size)])
    factors = np.concatenate([np.ones(7), 1 + _FAR])
    near = 2 * np.maximum(np.round(wanted * factors / 2) + steps, 1.0)
    even = np.concatenate([near] * len(_ROOM_USED), axis=1)
    room = 1 - below_zone(even)
    used = room * np.repeat(_ROOM_USED, near.shape[1])
    unit = even - used / (rounding.high - 0.5)
    margin = (1 - used) / 2
    target = _target(channels, rounding, unit, multiplier, offset_is_free)
    bias = np.round(target - margin)
    middle = bias + margin
    if not offset_is_free:
        bias = np.floor(target + 0.5)
        # The first threshold is hair / 2 from it: relatively as far as the last is from its own.
        margin = used
    # REF and OPT round halves of negative levels apart: no D serves both.
    least = channels.smallest * channels.scale + channels.offset
    negative = (rounding.low < 0) & (least < -0.4)
    margin = np.where((room > 0.004) & ~negative[:, None], margin, -np.inf)
    return unit, bias, middle, np.where(multiplier[:, None] == 1, margin, np.nan)


def _target(
    channels: Channels,
    rounding: Rounding,
    unit: Floats,
    multiplier: Integers,
    offset_is_free: bool,
) -> Floats:
    """Returns the B, [C, K], that is wanted for each D."""
    if offset_is_free:
        return wanted_bias(channels, rounding, unit, multiplier)
    return channels.offset[:, None] * unit


def _score(
    channels: Channels,
    rounding: Rounding,
    multiplier: Integers,
    unit: Floats,
    middle: Floats,
    margin: Floats,
    offset_is_free: bool,
) -> Floats:
    """Returns how good candidates are: the logarithm of the margin less the moves."""
    spacing = multiplier[:, None]
    move = np.abs(spacing / (channels.scale[:, None] * unit) - 1)
    size = (max(rounding.high, -rounding.low) - 0.5) * unit
    size = np.maximum(size, np.abs(middle))
    relative = np.clip(margin, 1e-12, None) / size
    gain = np.log(np.clip(relative, 1e-6, 1e-3)) + 10 * np.log(np.minimum(relative / 1e-6, 1))
    score = gain - move / 1e-3 - 1000.0 * (move > _LARGEST_MOVE)
    stands = (move < _SAME) & (relative > 1e-8)
    if offset_is_free:
        target = wanted_bias(channels, rounding, unit, multiplier)
        distance = np.abs(middle - target)
        score -= distance / unit / 0.05
        precision = 0.05 + _SAME * (np.abs(middle) + unit * rounding.high)
        stands &= distance < np.minimum(precision, np.maximum(0.1 * spacing, 0.45))
    score += 1e6 * stands
    hopeless = np.where(np.isnan(margin), 3 * HOPELESS, 2 * HOPELESS - np.round(move, 5))
    return np.where(margin > -np.inf, score, hopeless)


def gap_bias(
    unit: Floats, multiplier: Integers, rounding: Rounding, target: Floats
) -> tuple[Floats, Floats]:
    """Returns B and the middle nearest to `target` in a wide gap of thresholds, for a given D.

    Wide: at least half as wide as the widest.

    Args:
        unit: float64 [C], D.
        multiplier: int64 [C], M.
        rounding: The output's grid.
        target: float64 [C].
    """
    spacing = multiplier[:, None].astype(np.float64)
    thresholds = (np.arange(rounding.low + 1, rounding.high + 1) - 0.5) * unit[:, None]
    residues = np.sort(np.mod(thresholds, spacing), axis=1)
    gaps = np.diff(residues, axis=1, append=residues[:, :1] + spacing)
    middle = residues + gaps / 2
    shift = np.round((target[:, None] - middle) / spacing) * spacing
    wide = gaps >= 0.5 * gaps.max(axis=1, keepdims=True)
    distance = np.where(wide, np.abs(middle + shift - target[:, None]), np.inf)
    best = np.argmin(distance, axis=1)[:, None]
    gap = np.take_along_axis(gaps, best, axis=1)[:, 0]
    chosen = np.take_along_axis(middle + shift, best, axis=1)[:, 0]
    bias = _whole_number_in(chosen - gap / 2, chosen + gap / 2, unit, rounding)
    return bias, np.clip(chosen, bias - _NEAREST, bias + _NEAREST)


def interval_bias(
    channels: Channels, rounding: Rounding, unit: Floats, first: Integers, multiplier: Integers
) -> Floats:
    """Returns the B in the middle of those that give the wanted levels, for a D that is given.

    Args:
        channels: The wanted function.
        rounding: The output's grid.
        unit: float64 [C], D.
        first: int64 [C, levels], the smallest a that reaches each level.
        multiplier: int64 [C], M.
    """
    thresholds = (np.arange(rounding.low + 1, rounding.high + 1) - 0.5) * unit[:, None]
    reached = thresholds - multiplier[:, None] * first
    missed = thresholds - multiplier[:, None] * (first - 1)
    least = np.where(first <= channels.largest[:, None], reached, -np.inf).max(axis=1)
    most = np.where(first > channels.smallest[:, None], missed, np.inf).min(axis=1)
    wanted = channels.offset * unit
    least = np.where(np.isfinite(least), least, np.minimum(wanted, most) - 2)
    most = np.where(np.isfinite(most), most, np.maximum(wanted, least) + 2)
    return _whole_number_in(least, most, unit, rounding)


def _whole_number_in(
    least: Floats, most: Floats, unit: npt.NDArray[np.float64], rounding: Rounding
) -> Floats:
    """Returns the interval's middle, lowered where the kernels' zone at its end asks for it."""
    zone = below_zone(unit)
    bias = np.floor((least + most + 1) / 2)
    return np.asarray(np.where((rounding.low >= 0) & (most - bias < zone), bias - 1, bias))
