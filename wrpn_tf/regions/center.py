"""Nearness to the image's centre: a control that reads no pixel."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from wrpn_tf.regions.metric import Metric
from wrpn_tf.regions.tiles import check_sides, tile_count


def center_nearness(height: int, width: int, tile: int) -> np.ndarray:
    """Computes how near each tile is to the centre, for images of one size.

    nearness = 1 - sqrt((u^2 + v^2) / 2)

    with u and v the distances of the tile's middle from the image's middle, from 0 to 1 at the
    outermost pixels. A last tile that sticks out of the image has the middle of its pixels.

    Returns:
        float32 [ceil(height / tile), ceil(width / tile)] in [0, 1].
    """
    vertical, horizontal = (_distances(size, tile) for size in (height, width))
    squares = np.square(vertical)[:, None] + np.square(horizontal)[None, :]
    return (1.0 - np.sqrt(squares / 2.0)).astype(np.float32)


def _distances(size: int, tile: int) -> np.ndarray:
    """Returns each tile's distance from the middle of an axis, in half sides."""
    first = np.arange(tile_count(size, tile)) * tile
    last = np.minimum(first + tile, size) - 1
    return np.abs(first + last - (size - 1)) / max(size - 1, 1)


@dataclasses.dataclass(frozen=True)
class Center(Metric):
    """Importance is the nearness to the image's centre, whatever the image; see `center_nearness`.

    A control for the metrics that read the image: photographs tend to show their object there.

    Args:
        tile: Side of a tile.

    Raises:
        ValueError: If the tile is out of its range.
    """

    tile: int = 4

    def __post_init__(self) -> None:
        check_sides(self.tile)

    def _importance(self, images: Any) -> Any:
        batch, height, width, _ = ops.shape(images)
        nearness = center_nearness(height, width, self.tile)
        return ops.broadcast_to(nearness[None], (batch, *nearness.shape))
