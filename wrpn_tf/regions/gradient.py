"""Colour gradient: how fast the colours change."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from keras import ops

from wrpn_tf.regions.metric import Metric
from wrpn_tf.regions.tiles import (
    check_sides,
    exact_parts,
    mean_factors,
    window_sizes,
    window_sums,
)


def color_gradient(images: Any) -> Any:
    """Computes the magnitude of the gradient over all channels.

    magnitude = sqrt(sum_c gx_c^2 + gy_c^2)

    with the differences of `numpy.gradient`: central inside, one-sided at the image's border.

    Args:
        images: float32 tensor [batch, height, width, channels], at least 2 x 2 pixels.

    Returns:
        float32 tensor [batch, height, width], per pixel.
    """
    squares = sum(ops.square(_differences(images, axis)) for axis in (1, 2))
    return ops.sqrt(ops.sum(squares, axis=-1))


def _differences(images: Any, axis: int) -> Any:
    """Returns half the difference of both neighbours, at the ends that to the only one."""

    def part(start: int | None, stop: int | None) -> Any:
        index = [slice(None)] * len(images.shape)
        index[axis] = slice(start, stop)
        return images[tuple(index)]

    first, last = part(1, 2) - part(0, 1), part(-1, None) - part(-2, -1)
    inside = 0.5 * (part(2, None) - part(None, -2))
    return ops.concatenate([first, inside, last], axis=axis)


@dataclasses.dataclass(frozen=True)
class ColorGradient(Metric):
    """Importance is the mean colour gradient in the window around each tile.

    Args:
        window: Side of the window around each tile, odd, >= tile.
        tile: Side of a tile.

    Raises:
        ValueError: If an argument is out of its range; when called, if images have a side of one
            pixel.

    Source: The metric is named in "A Case for Dynamic Activation Quantization in CNNs", EMC2 2018;
        the formula and the window are ours.
    """

    window: int = 9
    tile: int = 4

    def __post_init__(self) -> None:
        check_sides(self.tile, self.window)

    def _importance(self, images: Any) -> Any:
        _, height, width, channels = images.shape
        if min(height, width) < 2:
            raise ValueError(
                f"`images` must have at least 2 x 2 pixels for a gradient, got {height} x {width}."
            )
        pixels = window_sizes(height, width, self.tile, self.window)
        largest = math.sqrt(2 * channels)  # Each difference of values in [0, 1] is at most 1.
        parts = exact_parts(color_gradient(images), largest, int(pixels.max()))
        coarse, fine = (window_sums(part, self.tile, self.window) for part in parts)
        return (coarse + fine) * mean_factors(pixels)
