"""Move each channel's scale and offset to values at which every kernel rounds alike.

A channel has integer accumulators a = sum(n * q) and the level floor(a * scale + offset + 1/2),
clamped to low..high. A file stores weights n * M and a bias B, and its kernels see M * a + B, of
which D = output_scale / (input_scale * weight_scale) make one level. They follow the same rule
except close to a threshold x_n = (n - 1/2) * D: REF and OPT already reach a positive level within
one unit below x_n, REF reaches a level <= 0 only within one unit above, and XNNPACK's float32 is
some 2e-7 * x_n uncertain. So D and B are chosen such that no reachable M * a + B comes close to any
threshold, and the network adopts them:

- M >= 2: D = M * p / r puts all thresholds M / r apart (mod M), whatever their number, and B
  stands half-way between two of them.
- M = 1 (8-bit weights): D is an even whole number minus a hair, so that each x_n > 0 lies just
  below a whole number and the unit below it is empty.

The adopted offset need not be B itself: any value that leaves the thresholds between the same two
reachable accumulators is the same function, and the one half-way gives the widest margin.

What is traded: a wide margin keeps a float32 forward pass on the same side as the integers, and a
small denominator r makes it wide; a large r keeps the move of the scale small. A margin e times as
wide is held to be worth 0.1 % of scale or 0.05 levels of offset (more below 1e-6 of the
accumulator, nothing above 1e-3); see `snapping_search`.

A channel that already stands on such values, up to float32's precision, keeps them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tflite_export import snapping_check, snapping_search
from tflite_export.requantization import Floats, Integers, exact_levels
from tflite_export.snapping_values import Channels, Rounding, SnappedChannels

__all__ = ["Channels", "Rounding", "SnappedChannels", "snap_channels", "snap_output_scale"]

_INT32_MAX = 2**31 - 1
# Half of int32, so that no candidate near the wanted values overflows.
_LARGEST_ACCUMULATOR = 2.0**30
# D of a channel whose level is constant, and how far it stays from its thresholds, in levels.
_CONSTANT_UNIT = 2.0**16
_CONSTANT_MARGIN = 1e-4
_ATTEMPTS = 12


def snap_channels(
    channels: Channels,
    rounding: Rounding,
    *,
    scale_is_free: bool = True,
    offset_is_free: bool = True,
) -> SnappedChannels:
    """Returns values near the wanted ones at which the kernels agree, channel by channel.

    Args:
        channels: The wanted function.
        rounding: The output's grid and the kernels.
        scale_is_free: Whether each channel may take a scale of its own (a batch norm is behind).
            If not, the adopted scale is the wanted one.
        offset_is_free: Whether each channel may take an offset of its own (there is a bias). If
            not, the adopted offset is the wanted one, and B only chooses how it is rounded.

    Returns:
        One value per channel; `exact` is False where no solution was found: signed outputs with
        M = 1 (REF rounds halves away from zero, OPT upwards), and M = 1 with some 10,000 units per
        level or more (float32 cannot tell neighbouring accumulators apart).
    """
    multiplier = _multipliers(channels, rounding)
    result = _constant(channels, rounding, offset_is_free)
    moving = np.flatnonzero(multiplier > 0)
    if moving.size:
        part = _take(channels, moving)
        solve = _solve_free if scale_is_free else _solve_fixed
        solved = solve(part, rounding, multiplier[moving], offset_is_free)
        result = _replace(result, moving, solved)
    return result


def snap_output_scale(
    channels: Channels, rounding: Rounding, *, offset_is_free: bool = True
) -> tuple[np.float32, SnappedChannels]:
    """Returns an output scale at which the kernels agree on all channels, and the channels.

    For layers with one weight scale, where the output's scale can still be chosen.

    Args:
        channels: The wanted function, in levels of `rounding.output_scale`; all of one scale.
        rounding: As for `snap_channels`; `output_scale` is the wanted one.
        offset_is_free: Whether each channel may take an offset of its own.

    Returns:
        The output's float32 scale, and the channels in levels of it: their moves tell by how much
        `scale` and `offset` differ from the wanted ones, in which the change of the output's scale
        is contained.

    Raises:
        ValueError: If the channels' scales differ, or are 0.
    """
    if (channels.scale <= 0).any() or np.ptp(channels.scale) > 1e-6 * channels.scale.max():
        raise ValueError("`channels.scale` must be one positive number for all channels.")
    scale = np.full_like(channels.scale, channels.scale[0])
    channels = dataclasses.replace(channels, scale=scale)
    multiplier = np.maximum(_multipliers(channels, rounding), 1)
    multiplier = np.full_like(multiplier, multiplier.min())
    found = snapping_search.shared_candidates(
        channels, rounding, multiplier, offset_is_free=offset_is_free
    )
    weight_scale = np.float32(
        scale[0] * np.float64(rounding.output_scale) / rounding.input_scale / multiplier[0]
    )
    best: tuple[np.float32, SnappedChannels] | None = None
    for k in range(min(_ATTEMPTS, found.unit.shape[1])):
        output = np.float32(
            found.unit[0, k] * np.float64(rounding.input_scale) * np.float64(weight_scale)
        )
        ratio = np.float64(rounding.output_scale) / np.float64(output)
        target = dataclasses.replace(channels, scale=scale * ratio, offset=channels.offset * ratio)
        result = _realise(
            target,
            dataclasses.replace(rounding, output_scale=output),
            multiplier,
            np.full(scale.shape, weight_scale),
            found.bias[:, k],
            found.middle[:, k],
            scale_is_free=False,
            offset_is_free=offset_is_free,
        )
        result = dataclasses.replace(
            result,
            scale_move=result.scale / scale - 1,
            offset_move=result.offset - channels.offset,
        )
        if best is None or result.exact.sum() > best[1].exact.sum():
            best = output, result
        if best[1].exact.all():
            break
    assert best is not None
    return best


def _multipliers(channels: Channels, rounding: Rounding) -> Integers:
    """Returns M: the largest allowed one that int32 holds, 0 for channels of a constant level."""
    if rounding.multiplier < 1:
        raise ValueError(f"`rounding.multiplier` must be >= 1, got {rounding.multiplier}.")
    reach = np.maximum(np.abs(channels.smallest), np.abs(channels.largest))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        size = reach + (np.abs(channels.offset) + 1) / channels.scale
        fitting = np.floor(_LARGEST_ACCUMULATOR / size)
    ends = [
        np.clip(exact_levels(end, channels.scale, channels.offset), rounding.low, rounding.high)
        for end in (channels.smallest, channels.largest)
    ]
    constant = (channels.smallest == channels.largest) | (channels.scale == 0)
    constant |= (fitting < 1) & (ends[0] == ends[1])
    fitting = np.where(np.isfinite(fitting), fitting, 1)
    multiplier = np.clip(fitting, 1, rounding.multiplier).astype(np.int64)
    return np.where(constant, 0, multiplier)


def _solve_free(
    channels: Channels, rounding: Rounding, multiplier: Integers, offset_is_free: bool
) -> SnappedChannels:
    """Tries the candidates of each channel, best first, until the kernels agree."""
    found = snapping_search.candidates(
        channels, rounding, multiplier, offset_is_free=offset_is_free
    )
    result: SnappedChannels | None = None
    for k in range(min(_ATTEMPTS, found.unit.shape[1])):
        if result is None:
            open_ = np.arange(multiplier.size)
        else:
            open_ = np.flatnonzero(~result.exact & (found.score[:, k] > -np.inf))
        if open_.size == 0:
            continue
        tried = _realise(
            _take(channels, open_),
            rounding,
            multiplier[open_],
            _weight_scale(rounding, found.unit[open_, k]),
            found.bias[open_, k],
            found.middle[open_, k],
            scale_is_free=True,
            offset_is_free=offset_is_free,
        )
        if result is None:
            result = tried
        else:
            result = _replace(result, open_[tried.exact], _take(tried, tried.exact))
    assert result is not None
    return result


def _solve_fixed(
    channels: Channels, rounding: Rounding, multiplier: Integers, offset_is_free: bool
) -> SnappedChannels:
    """Chooses B alone."""
    weight_scale = _weight_scale(rounding, multiplier / channels.scale)
    unit = np.float64(rounding.output_scale) / (
        np.float64(rounding.input_scale) * weight_scale.astype(np.float64)
    )
    if offset_is_free:
        target = channels.offset * unit
        bias, middle = snapping_search.gap_bias(unit, multiplier, rounding, target)
    else:
        first = snapping_check.first_accumulators(channels, rounding)
        bias = snapping_search.interval_bias(channels, rounding, unit, first, multiplier)
        middle = bias
    return _realise(
        channels,
        rounding,
        multiplier,
        weight_scale,
        bias,
        middle,
        scale_is_free=False,
        offset_is_free=offset_is_free,
    )


def _weight_scale(rounding: Rounding, unit: Floats) -> np.ndarray:
    """Returns the float32 real value of a stored unit of which `unit` make one output level."""
    scale = np.float64(rounding.output_scale) / (np.float64(rounding.input_scale) * unit)
    return np.asarray(scale.astype(np.float32))


def _realise(
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
    found = snapping_check.check(adopted, rounding, multiplier, weight_scale, bias)
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


def _constant(channels: Channels, rounding: Rounding, offset_is_free: bool) -> SnappedChannels:
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
        _weight_scale(rounding, np.full(level.shape, _CONSTANT_UNIT)),
        (level * _CONSTANT_UNIT).astype(np.int64),
    )


def _take(part: Any, index: np.ndarray) -> Any:
    """Returns the channels `index` of a dataclass of arrays."""
    return dataclasses.replace(
        part, **{f.name: getattr(part, f.name)[index] for f in dataclasses.fields(part)}
    )


def _replace(result: SnappedChannels, index: Integers, part: SnappedChannels) -> SnappedChannels:
    """Returns `result` with `part` in place of the channels `index`."""
    values = {}
    for field in dataclasses.fields(result):
        values[field.name] = getattr(result, field.name).copy()
        values[field.name][index] = getattr(part, field.name)
    return SnappedChannels(**values)
