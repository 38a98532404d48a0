"""The bias B for scales that cannot move; see `snapping`."""

from __future__ import annotations

import numpy as np

from tflite_export.requantization import Floats, Integers
from tflite_export.snapping_families import NEAREST, below_zone
from tflite_export.snapping_values import Channels, Rounding


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
    return bias, np.clip(chosen, bias - NEAREST, bias + NEAREST)


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


def _whole_number_in(least: Floats, most: Floats, unit: Floats, rounding: Rounding) -> Floats:
    """Returns the interval's middle, lowered where the kernels' zone at its end asks for it."""
    zone = below_zone(unit)
    bias = np.floor((least + most + 1) / 2)
    return np.asarray(np.where((rounding.low >= 0) & (most - bias < zone), bias - 1, bias))
