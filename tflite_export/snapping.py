"""Move each channel's scale and offset to values at which every kernel rounds alike.

A channel has integer accumulators a = sum(n * q) and the level floor(a * scale + offset + 1/2),
clamped to low..high. A file stores weights n * M and a bias B, and its kernels see M * a + B, of
which D = output_scale / (input_scale * weight_scale) make one level. (Part of M may stand in the
input's levels, which the file spreads, instead of in the weights.) They follow the same rule
except close to a threshold x_n = (n - 1/2) * D: REF and OPT already reach a positive level within
one unit below x_n, REF reaches a level <= 0 only within one unit above, and XNNPACK's float32 is
some 2e-7 * x_n uncertain. So D and B are chosen such that no reachable M * a + B comes close to any
threshold, and the network adopts them:

- M >= 2: D = M * p / r puts all thresholds M / r apart (mod M), whatever their number, and B
  stands half-way between two of them.
- M = 1 (8-bit weights on 8-bit levels): D is an even whole number minus a hair, so that each
  x_n > 0 lies just below a whole number and the unit below it is empty.
- Few thresholds: any D does, with B in a gap between them.

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
import math
from collections.abc import Callable

import numpy as np

from tflite_export import snapping_bias, snapping_check, snapping_search
from tflite_export.requantization import Floats, Integers
from tflite_export.snapping_families import SAME, Problem
from tflite_export.snapping_solution import (
    constant,
    largest_multipliers,
    multipliers,
    realise,
    replace_channels,
    take,
    weight_scale_of,
)
from tflite_export.snapping_values import Channels, Rounding, SnappedChannels

__all__ = [
    "Channels",
    "Rounding",
    "SnappedChannels",
    "snap_channels",
    "snap_output_scale",
]

_ATTEMPTS = 70
# How many candidates a channel can stand on.
_STANDING = 2


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
    multiplier = multipliers(channels, rounding)
    moving = np.flatnonzero(multiplier > 0)
    if moving.size == 0:
        return constant(channels, rounding, offset_is_free)
    solve = _solve_free if scale_is_free else _solve_fixed
    solved = solve(take(channels, moving), rounding, multiplier[moving], offset_is_free)
    if moving.size == multiplier.size:
        return solved
    return replace_channels(constant(channels, rounding, offset_is_free), moving, solved)


def snap_output_scale(
    channels: Channels,
    rounding: Rounding,
    *,
    offset_is_free: bool = True,
    smallest: float = 0.0,
    largest: float = math.inf,
    accepts: Callable[[np.float32], bool] = lambda scale: True,
) -> tuple[np.float32, SnappedChannels]:
    """Returns an output scale at which the kernels agree on all channels, and the channels.

    For layers with one weight scale, where the output's scale can still be chosen.

    Args:
        channels: The wanted function, in levels of `rounding.output_scale`; all of one scale.
        rounding: As for `snap_channels`; `output_scale` is the wanted one.
        offset_is_free: Whether each channel may take an offset of its own.
        smallest: The smallest output scale that may be taken.
        largest: The largest output scale that may be taken, unless the wanted one is larger.
        accepts: Whether others that write this output agree to a scale; only where none is found
            at which all do is theirs left out of account.

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
    # One for all, as their weights have one scale; also for those that are zero.
    multiplier = largest_multipliers(channels, rounding)
    multiplier = np.full_like(multiplier, multiplier.min())
    problem = Problem(channels, rounding, multiplier, offset_is_free)
    found = snapping_search.shared_candidates(problem)
    weight_scale = np.float32(
        scale[0] * np.float64(rounding.output_scale) / rounding.input_scale / multiplier[0]
    )
    product = np.float64(rounding.input_scale) * np.float64(weight_scale)
    best: tuple[np.float32, SnappedChannels] | None = None
    outputs = (found.unit[0] * product).astype(np.float32)
    most = max(largest, rounding.output_scale)
    allowed = np.flatnonzero((smallest <= outputs) & (outputs <= most))
    if not allowed.size:
        outputs[0], allowed = rounding.output_scale, np.array([0])
    for k in allowed[:_ATTEMPTS]:
        if best is not None and found.score[:, k].min() < snapping_search.HOPELESS:
            break
        output = outputs[k]
        # An output scale that is right already stays, to the last bit.
        stands = abs(output / rounding.output_scale - 1) < SAME
        for chosen in (rounding.output_scale, output) if stands else (output,):
            result = _with_output_scale(
                channels,
                rounding,
                multiplier,
                weight_scale,
                chosen,
                (found.bias[:, k], found.middle[:, k]),
                offset_is_free,
            )
            if result.exact.all() and accepts(chosen):
                return chosen, result
            if best is None or result.exact.sum() > best[1].exact.sum():
                best = chosen, result
    assert best is not None
    return best


def _with_output_scale(
    channels: Channels,
    rounding: Rounding,
    multiplier: Integers,
    weight_scale: np.float32,
    output_scale: np.float32,
    biases: tuple[Floats, Floats],
    offset_is_free: bool,
) -> SnappedChannels:
    """Returns the channels in levels of another output scale, with B and its middle."""
    ratio = np.float64(rounding.output_scale) / np.float64(output_scale)
    offset = rounding.zero + (channels.offset - rounding.zero) * ratio
    result = realise(
        dataclasses.replace(channels, scale=channels.scale * ratio, offset=offset),
        dataclasses.replace(rounding, output_scale=output_scale),
        multiplier,
        np.full(channels.scale.shape, weight_scale),
        *biases,
        scale_is_free=False,
        offset_is_free=offset_is_free,
    )
    return dataclasses.replace(
        result,
        scale_move=result.scale / channels.scale - 1,
        offset_move=result.offset - channels.offset,
    )


def _solve_free(
    channels: Channels, rounding: Rounding, multiplier: Integers, offset_is_free: bool
) -> SnappedChannels:
    """Tries the candidates of each channel, best first, until the kernels agree."""
    found = snapping_search.candidates(Problem(channels, rounding, multiplier, offset_is_free))
    result: SnappedChannels | None = None
    for k in range(min(_ATTEMPTS, found.unit.shape[1])):
        if result is None:
            open_ = np.arange(multiplier.size)
        else:
            open_ = np.flatnonzero(~result.exact & (found.score[:, k] > snapping_search.HOPELESS))
        if open_.size == 0:
            continue
        tried = realise(
            take(channels, open_),
            rounding,
            multiplier[open_],
            weight_scale_of(rounding, found.unit[open_, k]),
            found.bias[open_, k],
            found.middle[open_, k],
            scale_is_free=True,
            offset_is_free=offset_is_free,
        )
        if result is None:
            result = tried
        else:
            result = replace_channels(result, open_[tried.exact], take(tried, tried.exact))
    assert result is not None
    return result


def _solve_fixed(
    channels: Channels, rounding: Rounding, multiplier: Integers, offset_is_free: bool
) -> SnappedChannels:
    """Takes D and B of the candidates that channels stand on, and chooses B alone elsewhere."""
    result = _with_own_scale(channels, rounding, multiplier, offset_is_free)
    found = snapping_search.candidates(Problem(channels, rounding, multiplier, True))
    for k in range(_STANDING):
        open_ = np.flatnonzero(found.score[:, k] > snapping_search.STANDS)
        tried = realise(
            take(channels, open_),
            rounding,
            multiplier[open_],
            weight_scale_of(rounding, found.unit[open_, k]),
            found.bias[open_, k],
            found.middle[open_, k],
            scale_is_free=False,
            offset_is_free=offset_is_free,
        )
        # The better of two that channels stand on comes first.
        better = tried.exact & ((k == 0) | ~result.exact[open_])
        result = replace_channels(result, open_[better], take(tried, better))
    return result


def _with_own_scale(
    channels: Channels, rounding: Rounding, multiplier: Integers, offset_is_free: bool
) -> SnappedChannels:
    """Chooses B alone."""
    weight_scale = weight_scale_of(rounding, multiplier / channels.scale)
    unit = np.float64(rounding.output_scale) / (
        np.float64(rounding.input_scale) * weight_scale.astype(np.float64)
    )
    if offset_is_free:
        target = channels.offset * unit
        bias, middle = snapping_bias.gap_bias(unit, multiplier, rounding, target)
    else:
        first = snapping_check.first_accumulators(channels, rounding)
        bias = snapping_bias.interval_bias(channels, rounding, unit, first, multiplier)
        middle = bias
    return realise(
        channels,
        rounding,
        multiplier,
        weight_scale,
        bias,
        middle,
        scale_is_free=False,
        offset_is_free=offset_is_free,
    )
