"""Bilinear upsampling of levels."""

from __future__ import annotations

import numpy as np

from wrpn_tf.simulation.values import Integers, Pending


def interpolated(integers: Integers, scale: float, size: tuple[int, int]) -> Pending:
    """Returns an image with new pixels between the old ones, as Keras interpolates them.

    Pixels are areas; the outermost go on beyond the image.

    Args:
        integers: Levels, int32 [batch, height, width, channels].
        scale: Distance between levels.
        size: How many pixels become of one: rows, columns.
    """
    total = _along(_along(integers, size[0], axis=1), size[1], axis=2)
    return Pending(((total, scale),), divisor=4.0 * size[0] * size[1])


def _along(integers: Integers, factor: int, axis: int) -> Integers:
    """Interpolates along an axis; returns 2 * factor times the values, which are whole numbers."""
    beyond = [(1, 1) if i == axis else (0, 0) for i in range(integers.ndim)]
    padded, length = np.pad(integers, beyond, mode="edge"), integers.shape[axis]
    before, here, after = (padded.take(range(i, i + length), axis) for i in range(3))
    places = []
    for place in range(factor):
        # From the old pixel's centre to the new one's; an old pixel is 2 * factor wide.
        distance = 2 * place + 1 - factor
        neighbour = before if distance < 0 else after
        places.append((2 * factor - abs(distance)) * here + abs(distance) * neighbour)
    shape = [size * factor if i == axis else size for i, size in enumerate(integers.shape)]
    return np.stack(places, axis=axis + 1).reshape(shape)
