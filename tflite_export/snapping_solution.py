"""What a file with given values computes, checked: the solutions from which `snapping` chooses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tflite_export.requantization import Floats, Integers, exact_levels
from tflite_export.snapping_check import check
from tflite_export.snapping_values import Channels, Rounding, SnappedChannels

_INT32_MAX = 2**31 - 1
# Half of int32, so that no candidate near the wanted values overflows.
_LARGEST_ACCUMULATOR = 2.0**30
# D of a channel whose level is constant, and how far it stays from its thresholds, in levels.
_CONSTANT_UNIT = 2.0**16
_CONSTANT_MARGIN = 1e-4
# Levels per unit of the accumulator; below, and where no level is crossed, weights do nothing.
_SMALLEST_SCALE = 2.0**-17


def largest_multipliers(channels: Channels, rounding: Rounding) -> Integers:
    """Returns the largest allowed M > 0 that int32 holds, channel by channel."""
    spread = rounding.spread
    if np.min(rounding.multiplier) < spread:
        raise ValueError(f"`rounding.multiplier` must be >= {spread}, got {rounding.multiplier}.")
    fitting = _fitting(channels)
    fitting = np.where(np.isfinite(fitting), fitting, 1)
    return np.clip(fitting, spread, rounding.multiplier).astype(np.int64) // spread * spread


def multipliers(channels: Channels, rounding: Rounding) -> Integers:
    """Returns the largest M, but 0 for channels of a constant level."""
    largest = largest_multipliers(channels, rounding)
    ends = [
        np.clip(exact_levels(end, channels.scale, channels.offset), rounding.low, rounding.high)
        for end in (channels.smallest, channels.largest)
    ]
    constant = (channels.smallest == channels.largest) | (channels.scale == 0)
    needless = (_fitting(channels) < rounding.spread) | (channels.scale < _SMALLEST_SCALE)
    constant |= needless & (ends[0] == ends[1])
    return np.where(constant, 0, largest)


def _fitting(channels: Channels) -> Floats:
    """How often int32 holds the accumulators and the bias of each channel; NaN, inf for scale 0."""
    reach = np.maximum(np.abs(channels.smallest), np.abs(channels.largest))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        size = reach + (np.abs(channels.offset) + 1) / channels.scale
        fitting: Floats = np.floor(_LARGEST_ACCUMULATOR / size)
    return fitting


def weight_scale_of(rounding: Rounding, unit: Floats) -> np.ndarray:
    """Returns the float32 real value of a stored unit of which `unit` make one output level."""
    scale = np.float64(rounding.output_scale) / (np.float64(rounding.input_scale) * unit)
    return np.asarray(scale.astype(np.float32))


def realise(
    channels: Channels,
    rounding: Rounding,
    multiplier: Integers,
    weight_scale: np.ndarray,
    bias: Floats,
    middle: Floats,
    *,
    scale_is_free: bool,
    offset_is_free: bool,
) -> SnappedChannels:
    """Returns what a file with these values computes, checked."""
    stored = np.clip(bias, -_INT32_MAX, _INT32_MAX).astype(np.int64)
    level = (
        np.float64(rounding.input_scale)
        * weight_scale.astype(np.float64)
        / np.float64(rounding.output_scale)
    )
    adopted = dataclasses.replace(
        channels,
        scale=multiplier * level if scale_is_free else channels.scale,
        offset=middle * level if offset_is_free else channels.offset,
    )
    return _checked(channels, adopted, rounding, multiplier, weight_scale, stored)


def _checked(
    channels: Channels,
    adopted: Channels,
    rounding: Rounding,
    multiplier: Integers,
    weight_scale: np.ndarray,
    bias: Integers,
) -> SnappedChannels:
    """Returns the adopted channels with the check's findings and the moves."""
    found = check(adopted, rounding, multiplier, weight_scale, bias)
    wanted = np.where(channels.scale > 0, channels.scale, 1.0)
    return SnappedChannels(
        multiplier=multiplier,
        weight_scale=weight_scale,
        bias=bias,
        scale=adopted.scale,
        offset=adopted.offset,
        margin=found.margin,
        relative_margin=found.relative_margin,
        exact=found.exact,
        scale_move=(adopted.scale - channels.scale) / wanted,
        offset_move=adopted.offset - channels.offset,
    )


def constant(channels: Channels, rounding: Rounding, offset_is_free: bool) -> SnappedChannels:
    """Returns every channel as a bias alone, M = 0: its level at its smallest accumulator."""
    ends = [end * channels.scale + channels.offset for end in (channels.smallest, channels.largest)]
    level = np.clip(np.floor(ends[0] + 0.5), rounding.low, rounding.high)
    up = np.where(level > rounding.low, level - 0.5 + _CONSTANT_MARGIN - ends[0], 0)
    down = np.where(level < rounding.high, ends[1] - (level + 0.5 - _CONSTANT_MARGIN), 0)
    shift = np.maximum(up, 0) - np.maximum(down, 0)
    adopted = dataclasses.replace(channels, offset=channels.offset + shift * offset_is_free)
    return _checked(
        channels,
        adopted,
        rounding,
        np.zeros_like(channels.smallest),
        weight_scale_of(rounding, np.full(level.shape, _CONSTANT_UNIT)),
        (level * _CONSTANT_UNIT).astype(np.int64),
    )


def take(part: Any, index: np.ndarray) -> Any:
    """Returns the channels `index` of a dataclass of arrays."""
    return dataclasses.replace(
        part, **{f.name: getattr(part, f.name)[index] for f in dataclasses.fields(part)}
    )


def replace_channels(
    result: SnappedChannels, index: Integers, part: SnappedChannels
) -> SnappedChannels:
    """Returns `result` with `part` in place of the channels `index`."""
    values = {}
    for field in dataclasses.fields(result):
        values[field.name] = getattr(result, field.name).copy()
        values[field.name][index] = getattr(part, field.name)
    return SnappedChannels(**values)
