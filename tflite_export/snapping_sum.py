"""Scales at which every kernel adds two tensors, or subtracts one, alike.

With first_scale / output_scale = p0 / b and second_scale / output_scale = p1 / b for an odd b, the
sum (p0 * q0 + p1 * q1) / b of two levels is never closer than 1 / (2 b) to a rounding threshold,
far more than any kernel errs by (XNNPACK, the coarsest: 2^-13 levels).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tflite_export.addition import add
from tflite_export.integer_model import Tensor
from tflite_export.requantization import ALL_KERNELS
from tflite_export.snapping_values import LevelCheck

_LARGEST_DENOMINATOR = 255
# Where an output is so coarse that the finer addend has fewer numerators up to there: its largest.
_FEW_NUMERATORS, _LARGEST_NUMERATOR = 10, 63
# Scales are float32; ratios of two of them are this close to p / b where they are meant to be.
_SAME = 5e-7
# Where no ratios can be had, a scale is looked for within this relative distance, in 2 n + 1 steps.
_SCAN, _SCAN_STEPS = 0.01, 40
# Levels; some ten times XNNPACK's error.
_WIDE = 1e-3

Scales = tuple[np.float32, np.float32, np.float32]


def snap_sum(
    addends: tuple[Tensor, Tensor],
    output: Tensor,
    *,
    free: tuple[bool, bool, bool],
    largest: tuple[float, float, float] = (math.inf, math.inf, math.inf),
    kernels: tuple[str, ...] = ALL_KERNELS,
    sign: int = 1,
) -> Scales:
    """Returns scales of two tensors and their sum, near theirs, at which the kernels agree.

    Moves are weighed as in `snapping`: a margin e times as wide is worth 0.1 % of the scales.
    Scales at which the kernels agree already are returned as they are.

    Args:
        addends: The tensors that are added.
        output: The sum.
        free: Whether the scales of the first, the second and the output may move.
        largest: Beyond these the scales do not move.
        kernels: Those that must agree.
        sign: Of the second: -1 for a difference.

    Returns:
        The float32 scales. Where no exact ones exist (none is free, or the only free one cannot
        make up for the others), those with the widest margin; ask `check_sum`.
    """
    scales = (addends[0].scale, addends[1].scale, output.scale)
    highest = np.maximum(largest, scales)
    allowed = (each for each in _rational(scales, free) if (each.scales <= highest).all())
    tried = sorted(allowed, key=lambda each: _cost(each, scales))
    for candidate in tried[:12]:
        if check_sum(addends, output, candidate.scales, kernels, sign).exact:
            return candidate.scales
    best, widest = scales, -1.0
    for scanned in _scan(scales, free):
        if (scanned > highest).any():
            continue
        found = check_sum(addends, output, scanned, kernels, sign)
        if found.is_safe or (found.exact and scanned == scales):
            return scanned
        if found.margin + 10 * found.exact > widest:
            best, widest = scanned, found.margin + 10 * found.exact
    return best


def check_sum(
    addends: tuple[Tensor, Tensor],
    output: Tensor,
    scales: Scales | None = None,
    kernels: tuple[str, ...] = ALL_KERNELS,
    sign: int = 1,
) -> LevelCheck:
    """Returns whether the kernels add all pairs of levels as the exact rule does, and how closely.

    Args:
        addends: The tensors that are added.
        output: The sum.
        scales: In place of the tensors' own.
        kernels: Those that must agree.
        sign: Of the second: -1 for a difference.
    """
    scales = scales or (addends[0].scale, addends[1].scale, output.scale)
    first = np.arange(addends[0].low, addends[0].high + 1)[:, None]
    second = np.arange(addends[1].low, addends[1].high + 1)[None, :]
    y = np.float64(scales[2])
    real = first * (np.float64(scales[0]) / y) + sign * second * (np.float64(scales[1]) / y)
    level = np.clip(np.floor(real + 0.5), output.low, output.high)
    found = (add(kernel, first, second, *scales, sign=sign) for kernel in kernels)
    exact = all(np.array_equal(np.clip(sums, output.low, output.high), level) for sums in found)
    threshold = np.clip(np.round(real + 0.5), output.low + 1, output.high) - 0.5
    return LevelCheck("sum", exact, float(np.abs(real - threshold).min()), _WIDE)


class _Ratio(NamedTuple):
    scales: Scales
    denominator: int


def _cost(candidate: _Ratio, wanted: Scales) -> float:
    """The largest move, in units of 0.1 %, and the logarithm of the margin's inverse."""
    move = max(abs(float(s) / float(w) - 1) for s, w in zip(candidate.scales, wanted, strict=True))
    if move < _SAME:
        return float(candidate.denominator) - 1e6
    return move / 1e-3 + float(np.log(candidate.denominator))


def _rational(scales: Scales, free: tuple[bool, bool, bool]) -> Iterator[_Ratio]:
    """Yields scales whose ratios are p0 / b and p1 / b, the fixed ones left as they are."""
    anchor = next((i for i in (0, 1) if free[2] and not free[i]), 2)
    for b in _denominators(float(scales[2]) / float(min(scales[:2]))):
        if anchor == 2:
            yield from _with_output(scales, free, float(scales[2]), b)
            continue
        wanted = round(b * float(scales[anchor]) / float(scales[2]))
        for p in range(max(1, wanted - 2), wanted + 3):
            yield from _with_output(scales, free, float(scales[anchor]) * b / p, b)


def _denominators(coarseness: float) -> Iterator[int]:
    """Yields odd numbers, given how many levels of the finer addend are one of the output's."""
    yield from range(1, _LARGEST_DENOMINATOR + 1, 2)
    if coarseness * _FEW_NUMERATORS > _LARGEST_DENOMINATOR:
        for numerator in range(1, _LARGEST_NUMERATOR + 1):
            yield round(numerator * coarseness) | 1


def _with_output(
    scales: Scales, free: tuple[bool, bool, bool], output: float, b: int
) -> Iterator[_Ratio]:
    """Yields the addends' nearest scales for an output's scale, unless a fixed one is off."""
    chosen = []
    for scale, may_move in zip(scales[:2], free[:2], strict=True):
        p = max(1, round(b * float(scale) / output))
        near = _unless_same(scale, output * p / b)
        if not may_move and near != scale:
            return
        chosen.append(near)
    yield _Ratio((chosen[0], chosen[1], _unless_same(scales[2], output)), b)


def _unless_same(scale: np.float32, wanted: float) -> np.float32:
    """A wanted scale, or what is there already if that is as near as float32 numbers come."""
    near = np.float32(wanted)
    return scale if abs(float(near) / float(scale) - 1) <= _SAME else near


def _scan(scales: Scales, free: tuple[bool, bool, bool]) -> Iterator[Scales]:
    """Yields the scales themselves, then with one free scale moved, nearest first."""
    yield scales
    moving = next((i for i in (2, 0, 1) if free[i]), None)
    if moving is None:
        return
    for step in range(1, _SCAN_STEPS + 1):
        for sign in (1, -1):
            factor = 1 + sign * step * _SCAN / _SCAN_STEPS
            moved = [*scales]
            moved[moving] = np.float32(float(scales[moving]) * factor)
            yield (moved[0], moved[1], moved[2])
