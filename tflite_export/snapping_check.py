"""Whether kernels round as the exact rule does at every reachable accumulator, and how closely.

Rule and kernels are monotone in the accumulator: if they agree on both sides of every threshold
that is within reach (or at the nearer end of the range, for those that are not), they agree
everywhere in between.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tflite_export.requantization import Floats, Integers, exact_levels, requantize
from tflite_export.snapping_values import Channels, Rounding

_INT32 = 2**31 - 1


class Check(NamedTuple):
    """What `check` found, per channel; see `snapping_values.SnappedChannels`."""

    exact: np.ndarray
    margin: Floats
    relative_margin: Floats


def check(
    channels: Channels,
    rounding: Rounding,
    multiplier: Integers,
    weight_scale: Floats,
    bias: Integers,
) -> Check:
    """Returns whether M, the weight scale and B make the kernels compute the channels' function.

    Args:
        channels: The function: the exact rule on `scale` and `offset`, for every whole
            accumulator from `smallest` to `largest`.
        rounding: The output's grid and the kernels.
        multiplier: int64 [C], M.
        weight_scale: float32 [C], real value of one stored unit.
        bias: int64 [C], B.
    """
    levels = np.arange(rounding.low + 1, rounding.high + 1, dtype=np.float64)
    first = first_accumulators(channels, rounding)
    sides = np.stack([first - 1, first])
    inside = (sides >= channels.smallest[:, None]) & (sides <= channels.largest[:, None])
    sides = np.clip(sides, channels.smallest[:, None], channels.largest[:, None])
    accumulators = multiplier[:, None] * sides + bias[:, None]
    exact = _kernels_agree(channels, rounding, weight_scale, sides, accumulators)

    unit = np.float64(rounding.output_scale) / (
        np.float64(rounding.input_scale) * weight_scale.astype(np.float64)
    )
    real = sides * channels.scale[:, None] + channels.offset[:, None]
    distance = np.abs(real - (levels - 0.5)) * unit[:, None]
    size = np.maximum(np.abs(multiplier[:, None] * sides), np.abs(bias)[:, None])
    size = np.maximum(size, np.abs(levels - 0.5) * unit[:, None])
    margin = np.where(inside, distance, np.inf).min(axis=(0, 2))
    relative = np.where(inside, distance / size, np.inf).min(axis=(0, 2))
    return Check(exact, margin, relative)


def first_accumulators(channels: Channels, rounding: Rounding) -> Integers:
    """Returns the smallest accumulator that reaches each level low + 1..high: int64 [C, levels].

    Where that lies outside the reachable range: `smallest` or `largest + 1`.
    """
    levels = np.arange(rounding.low + 1, rounding.high + 1, dtype=np.float64)
    scale, offset = channels.scale[:, None], channels.offset[:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        guess = np.ceil((levels - 0.5 - offset) / scale)
    constant = np.where(offset + 0.5 >= levels, -np.inf, np.inf)
    guess = np.where(scale > 0, guess, constant)
    low, high = channels.smallest[:, None], channels.largest[:, None] + 1
    first: Integers = np.clip(guess, low, high).astype(np.int64)
    # Two roundings of float64 stand between the division and the rule.
    first = first + ((exact_levels(first, scale, offset) < levels) & (first < high))
    first = first - ((exact_levels(first - 1, scale, offset) >= levels) & (first > low))
    return first


def _kernels_agree(
    channels: Channels,
    rounding: Rounding,
    weight_scale: Floats,
    sides: Integers,
    accumulators: Integers,
) -> np.ndarray:
    """Returns whether every kernel gives the rule's level at `sides`, [2, C, levels]."""
    rule = exact_levels(sides, channels.scale[:, None], channels.offset[:, None])
    rule = np.clip(rule, rounding.low, rounding.high)
    agree = (np.abs(accumulators) <= _INT32).all(axis=(0, 2))
    for kernel in rounding.kernels:
        level = requantize(
            kernel,
            rounding.kind,
            np.clip(accumulators, -_INT32, _INT32),
            rounding.input_scale,
            weight_scale[:, None],
            rounding.output_scale,
        )
        agree &= (np.clip(level, rounding.low, rounding.high) == rule).all(axis=(0, 2))
    return np.asarray(agree)
