"""Output scales at which no product of two levels, and no value of a table, is near a threshold.

A product of levels p is p * first_scale * second_scale / output_scale levels of the output. With
that factor k / d for an odd d, it is never closer than 1 / (2 d) to a threshold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from tflite_export.integer_model import Tensor
from tflite_export.multiplication import multiply
from tflite_export.requantization import Floats
from tflite_export.snapping_values import LevelCheck

# Relative errors of a product of three float32 numbers, and ten times as much.
_FLOAT32_ERROR, _WIDE = 4e-7, 4e-6
_LARGEST_NUMERATOR = 63
# A table's scale is looked for within this relative distance, in 2 n + 1 steps.
_SCAN, _SCAN_STEPS = 0.01, 40


def snap_product(
    first: Tensor, second: Tensor, output: Tensor, *, low: int, largest: float
) -> np.float32:
    """Returns a scale of a product, near its own, at which it is exact everywhere.

    Args:
        first: A factor.
        second: The other.
        output: The product.
        low: Its lowest level, 0 where a ReLU is fused.
        largest: The largest scale that may be taken.

    Returns:
        The float32 scale; its own, if that is good already.
    """
    unit = np.float64(first.scale) * np.float64(second.scale)
    coarseness = np.float64(output.scale) / unit

    def candidates() -> Iterator[tuple[float, np.float32]]:
        for numerator in range(1, _LARGEST_NUMERATOR + 1):
            nearest = 2 * int(coarseness * numerator / 2) + 1
            for denominator in (nearest, nearest - 2, nearest + 2):
                if denominator > 0:
                    move = abs(denominator / numerator / coarseness - 1)
                    cost = move / 1e-3 + float(np.log(denominator))
                    yield cost, np.float32(unit * denominator / numerator)

    def check(tensor: Tensor) -> LevelCheck:
        return check_product(first, second, tensor, low=low)

    return _first_safe(output, [scale for _, scale in sorted(candidates())], largest, check)


def check_product(first: Tensor, second: Tensor, output: Tensor, *, low: int) -> LevelCheck:
    """Returns whether files multiply all pairs of levels as the exact rule does, and how closely.

    Args:
        first: A factor.
        second: The other.
        output: The product.
        low: Its lowest level, 0 where a ReLU is fused.
    """
    a, b = np.arange(first.low, first.high + 1)[:, None], np.arange(second.low, second.high + 1)
    real = a * b * (np.float64(first.scale) * np.float64(second.scale) / np.float64(output.scale))
    levels = np.clip(multiply(a, b, first.scale, second.scale, output.scale), low, output.high)
    rule = np.clip(np.floor(real + 0.5), low, output.high)
    return _check("product", real, low, output.high, agrees=np.array_equal(levels, rule))


def snap_values(values: Floats, output: Tensor, *, low: int, largest: float) -> np.float32:
    """Returns a scale of a table's output, near its own, at which no value is near a threshold.

    Args:
        values: What the table's function makes of each level.
        output: The table's output.
        low: Its lowest level, 0 where a ReLU is fused.
        largest: The largest scale that may be taken.
    """
    steps = np.arange(1, _SCAN_STEPS + 1) * _SCAN / _SCAN_STEPS
    factors = 1 + np.stack([-steps, steps], axis=1).reshape(-1)
    scales = [np.float32(scale) for scale in np.float64(output.scale) * factors]
    return _first_safe(
        output, scales, largest, lambda tensor: check_values(values, tensor, low=low)
    )


def check_values(values: Floats, output: Tensor, *, low: int) -> LevelCheck:
    """Returns whether Keras rounds a table's values as the table does, and how closely.

    Args:
        values: What the table's function makes of each level.
        output: The table's output.
        low: Its lowest level, 0 where a ReLU is fused.
    """
    real = values / np.float64(output.scale)
    return _check("function", real, low, output.high, agrees=True)


def _check(kind: str, real: Floats, low: int, high: int, *, agrees: bool) -> LevelCheck:
    threshold = np.clip(np.round(real + 0.5), low + 1, high) - 0.5
    margin = float(np.abs(real - threshold).min())
    reach = max(-low, high)
    return LevelCheck(kind, agrees and margin > _FLOAT32_ERROR * reach, margin, _WIDE * reach)


def _first_safe(
    output: Tensor,
    candidates: list[np.float32],
    largest: float,
    check: Callable[[Tensor], LevelCheck],
) -> np.float32:
    """The output's own scale or the first candidate that is safe, or that of the widest margin."""
    best, widest = output.scale, -1.0
    for scale in (output.scale, *candidates):
        if scale > max(largest, output.scale):
            continue
        found = check(dataclasses.replace(output, scale=scale))
        if found.is_safe:
            return scale
        if found.margin > widest:
            best, widest = scale, found.margin
    return best
