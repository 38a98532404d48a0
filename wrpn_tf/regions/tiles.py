"""Tiles of an image, and windows around them.

Tile i of an axis covers the positions i * tile .. (i + 1) * tile - 1; the last one may stick out of
the image. Its window has an odd side and the centre i * tile + tile // 2. What of a window lies
outside of the image is cut off, so a window larger than the image sees all of it.

Sums over windows are products with matrices of 0 and 1, one for the rows and one for the columns:
exact for whole numbers, and the window's cut-off ends need no case of their own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops


def tile_count(size: int, tile: int) -> int:
    """Returns the tiles of one axis: ceil(size / tile)."""
    return -(-size // tile)


def window_matrix(size: int, tile: int, window: int) -> np.ndarray:
    """Returns float32 [tiles, size]: 1 where a position of an axis is in a tile's window."""
    centres = np.arange(tile_count(size, tile)) * tile + tile // 2
    distances = np.abs(np.arange(size)[None, :] - centres[:, None])
    return (distances <= window // 2).astype(np.float32)


def window_sizes(height: int, width: int, tile: int, window: int) -> np.ndarray:
    """Returns int [rows of tiles, columns of tiles]: the pixels in each window."""
    rows, columns = (window_matrix(size, tile, window).sum(1) for size in (height, width))
    return np.outer(rows, columns).astype(np.int64)


def mean_factors(sizes: np.ndarray) -> np.ndarray:
    """Returns 1 / sizes in float32, to multiply sums with.

    TensorFlow rewrites a division by a constant to that in a graph, but not outside of one.
    """
    return np.float32(1.0) / sizes.astype(np.float32)


def window_sums(values: Any, tile: int, window: int) -> Any:
    """Sums over the windows; see `exact_parts` for values that are no whole numbers.

    Args:
        values: float32 tensor [..., height, width].
        tile: Side of a tile.
        window: Side of a window.

    Returns:
        float32 tensor [..., ceil(height / tile), ceil(width / tile)].
    """
    rows, columns = (window_matrix(size, tile, window) for size in values.shape[-2:])
    values = ops.matmul(ops.convert_to_tensor(rows), values)
    return ops.matmul(values, ops.convert_to_tensor(columns.T))


def exact_parts(values: Any, largest: float, pixels: int) -> tuple[Any, Any]:
    """Splits values >= 0 into two parts, of each of which float32 holds all sums exactly.

    Products of matrices add up in an order that depends on the CPU and on how many images there
    are. The sums of either part do not depend on the order, nor does the sum of both.

    Args:
        values: float32 tensor.
        largest: What no value exceeds, > 0.
        pixels: What is added up at most.

    Returns:
        Multiples of a power of two, and what they lack, rounded to those of a smaller one.
    """
    step = 2.0 ** (math.ceil(math.log2(largest * pixels)) - 23)
    coarse = ops.floor(values / step) * step
    finer = 2.0 ** (math.ceil(math.log2(step * pixels)) - 23)
    return coarse, ops.round((values - coarse) / finer) * finer


def check_tile(tile: int, images: Any) -> None:
    """Raises ValueError if a tile is larger than the images [batch, height, width, channels]."""
    _, height, width, _ = images.shape
    if tile > min(height, width):
        raise ValueError(
            f"`tile` must be at most the images' smaller side, got tiles of {tile} x {tile} for "
            f"images of {height} x {width}."
        )


def check_sides(tile: int, window: int | None = None) -> None:
    """Raises ValueError unless tile >= 1 and the window is odd and covers the tile."""
    if not is_whole(tile) or tile < 1:
        raise ValueError(f"`tile` must be a whole number >= 1, got {tile!r}.")
    if window is not None and (not is_whole(window) or window % 2 == 0 or window < tile):
        raise ValueError(
            f"`window` must be an odd whole number >= `tile` = {tile}, got {window!r}."
        )


def is_whole(value: Any) -> bool:
    """Says whether a value is an `int` and no truth value: what JSON keeps as a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)
