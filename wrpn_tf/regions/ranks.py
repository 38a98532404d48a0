"""From importance to ranks, and from ranks to a layer's resolution: functions of tensors."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from wrpn_tf.regions.region_plan import RegionPlan, Resolution

# Share of the error that a training step takes out, about: it settles within some 30 steps.
_RATE = 0.2


def ranks_from_importance(importance: Any, thresholds: Any) -> Any:
    """Returns how many thresholds each value reaches, as float32.

    Args:
        importance: float32 [batch, rows, columns].
        thresholds: Rising, [ranks - 1], or [batch, ranks - 1].
    """
    thresholds = ops.reshape(thresholds, (-1, 1, 1, ops.shape(thresholds)[-1]))
    reached = ops.cast(importance[..., None] >= thresholds, "float32")
    return ops.sum(reached, axis=-1)


def kept_thresholds(importance: Any, shares: Sequence[float]) -> Any:
    """Returns the thresholds that keep shares of each image: [batch, shares].

    Equal values are kept or not all together, whichever comes nearer to the share; a constant image
    is kept.

    Args:
        importance: float32 [batch, rows, columns], static rows and columns.
        shares: Falling, each in 0..1.
    """
    count = importance.shape[1] * importance.shape[2]
    ordered = ops.sort(ops.reshape(importance, (-1, count)), axis=1)
    columns = []
    for share in shares:
        wanted = int(np.floor(share * count + 0.5))
        if not wanted:
            columns.append(ops.full_like(ordered[:, 0], np.inf))
            continue
        least = ordered[:, count - wanted : count - wanted + 1]
        greater = ordered > least
        num_greater = ops.sum(ops.cast(greater, "int32"), axis=1)
        num_kept = ops.sum(ops.cast(ordered >= least, "int32"), axis=1)
        next_value = ops.min(ops.where(greater, ordered, np.float32(np.inf)), axis=1)
        is_nearer = (wanted - num_greater < num_kept - wanted) & (num_greater > 0)
        columns.append(ops.where(is_nearer, next_value, least[:, 0]))
    return ops.stack(columns, axis=1)


def at_resolution(ranks: Any, tile: int, image_size: tuple[int, int], target: Resolution) -> Any:
    """Returns the ranks of a tensor's positions: [batch, height, width, 1].

    A position has the greatest rank of the image positions that it stands for, or that its value
    may come from; padding has rank 0.

    Args:
        ranks: float32 [batch, rows, columns], one for each tile.
        tile: Side of a tile in positions of the image.
        image_size: (height, width) of the image.
        target: The tensor's resolution.
    """
    values = ops.repeat(ops.repeat(ranks, tile, axis=1), tile, axis=2)
    values = values[:, : image_size[0], : image_size[1], None]
    windows, strides = [1, 1], [1, 1]
    for axis in (0, 1):
        values, windows[axis], strides[axis] = _along_axis(values, axis, target)
    if windows == [1, 1]:
        return values
    return ops.max_pool(values, tuple(windows), tuple(strides), "valid")


def _along_axis(values: Any, axis: int, target: Resolution) -> tuple[Any, int, int]:
    """Repeats, cuts and pads an axis for a pooling that gives the target; its window and stride."""
    repeats = round(1 / min(target.stride[axis], 1.0))
    values = ops.repeat(values, repeats, axis=axis + 1) if repeats > 1 else values
    before, after = (round(reach * repeats) for reach in target.reach[axis])
    stride = round(target.stride[axis] * repeats)
    window = before + stride + after
    start, length = round(target.offset[axis] * repeats) - before, values.shape[axis + 1]
    end = start + stride * (target.size[axis] - 1) + window
    cut = slice(min(max(start, 0), length), max(min(end, length), 0))
    values = values[:, cut] if axis == 0 else values[:, :, cut]
    widths = [(0, 0)] * 4
    widths[axis + 1] = (max(min(-start, end - start), 0), max(end - max(length, start), 0))
    if any(widths[axis + 1]):
        values = ops.pad(values, widths)
    return values, window, stride


def mean_activation_bits(maps: Sequence[Any], plan: RegionPlan) -> Any:
    """Returns each image's activation bits per multiply-accumulate, over the network: [batch].

    Args:
        maps: The ranks at each of the plan's resolutions, [batch, height, width, 1].
        plan: What reads them.
    """
    total = ops.zeros_like(maps[0][:, 0, 0, 0]) + plan.fixed_bit_macs / plan.macs
    for (index, bits), macs in plan.weighed().items():
        share = ops.convert_to_tensor(macs / plan.macs, "float32")
        ranks = maps[index][..., 0]
        total = total + bits[0] * float(macs.sum() / plan.macs)
        for rank in range(1, len(bits)):
            if bits[rank] != bits[rank - 1]:
                reached = ops.cast(ranks >= rank, "float32")
                gain = bits[rank] - bits[rank - 1]
                total = total + gain * ops.sum(reached * share, axis=(1, 2))
    return total


def moved_thresholds(
    thresholds: Any, importance: Any, mean_bits: Any, plan: RegionPlan, target: float
) -> Any:
    """Returns thresholds nearer to those that give a mean of `target` bits.

    They start where a normal distribution of a batch's importance would have the shares of
    `target_shares`, and move together, by the error of the batch's mean bits times its deviation.

    Args:
        thresholds: [ranks - 1]; -inf before the first step.
        importance: float32 [batch, rows, columns].
        mean_bits: [batch], what the thresholds give.
        plan: What reads the regions.
        target: The mean bits to reach.
    """
    mean, deviation = ops.mean(importance), ops.std(importance)
    lowest, highest = plan.mean_bits(0), plan.mean_bits()
    shares = target_shares(target, lowest, highest, int(thresholds.shape[0]) + 1)
    places = np.float32([statistics.NormalDist().inv_cdf(share) for share in shares])
    error = (ops.mean(mean_bits) - target) / (highest - lowest)
    moved = thresholds + _RATE * deviation * error
    return ops.where(thresholds == -np.inf, mean + deviation * places, moved)


def target_shares(target: float, lowest: float, highest: float, count: int) -> list[float]:
    """Returns the shares of positions below rank 1, 2, ...: rising, strictly inside 0..1.

    Of all distributions of ranks with bits spread evenly from `lowest` to `highest` and the mean
    `target` it is the one of greatest entropy: shares in geometric progression.
    """
    place = min(max((target - lowest) / (highest - lowest), 1e-3), 1 - 1e-3)
    steps = np.linspace(0, 1, count)
    low, high = -200.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.exp(middle * (steps - (middle > 0)))
        low, high = (middle, high) if (weights @ steps) / weights.sum() < place else (low, middle)
    shares = np.cumsum(weights / weights.sum())[:-1]
    return [min(max(float(share), 1e-3), 1 - 1e-3) for share in shares]
