"""Points of interest: corners, by the detector of Shi and Tomasi."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from wrpn_tf.regions.image_values import grey_values
from wrpn_tf.regions.metric import Metric
from wrpn_tf.regions.tiles import check_sides, tile_count


def shi_tomasi_response(images: Any, sigma: float = 1.0) -> Any:
    """Computes the smaller eigenvalue of the structure tensor of the grey values.

    response = ((a + c) - sqrt((a - c)^2 + 4 b^2)) / 2, at least 0

    with a, b and c the means of gy gy, gy gx and gx gx, weighted by a Gaussian that is cut off at 4
    sigma; gy and gx are Sobel derivatives with the weights (1, 2, 1) x (-1, 0, 1). Both repeat the
    image's outermost pixels beyond its border. In the interior this is
    `skimage.feature.corner_shi_tomasi`, which takes zeros there and so sees corners in the border.

    Args:
        images: float32 tensor [batch, height, width, channels].
        sigma: Standard deviation of the Gaussian, in pixels, > 0.

    Returns:
        float32 tensor [batch, height, width], >= 0.

    Source: Shi & Tomasi, "Good Features to Track", CVPR 1994.
    """
    grey = grey_values(images)
    gradient_y = _correlate(_correlate(grey, (-1.0, 0.0, 1.0), 1), (1.0, 2.0, 1.0), 2)
    gradient_x = _correlate(_correlate(grey, (1.0, 2.0, 1.0), 1), (-1.0, 0.0, 1.0), 2)
    products = (gradient_y * gradient_y, gradient_y * gradient_x, gradient_x * gradient_x)
    weights = _gaussian(sigma)
    a, b, c = (_correlate(_correlate(product, weights, 1), weights, 2) for product in products)
    root = ops.sqrt(ops.square(a - c) + 4.0 * ops.square(b))
    return ops.maximum((a + c - root) / 2.0, 0.0)


def _correlate(values: Any, weights: Sequence[float], axis: int) -> Any:
    """Correlates along an axis whose ends are repeated.

    Adds up shifted values: in the last bits of a product of matrices, an image depends on some CPUs
    on how many there are beside it.
    """
    size, radius = values.shape[axis], len(weights) // 2
    positions = np.clip(np.arange(-radius, size + radius), 0, size - 1)
    repeated = ops.take(values, positions, axis=axis)
    shifted = (
        repeated[(slice(None),) * axis + (slice(offset, offset + size),)]
        for offset in range(len(weights))
    )
    return sum(weight * part for weight, part in zip(weights, shifted, strict=True) if weight)


def _gaussian(sigma: float) -> list[float]:
    """Returns the weights of a Gaussian up to 4 sigma; they add up to 1."""
    radius = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    return (weights / weights.sum()).tolist()


@dataclasses.dataclass(frozen=True)
class PointsOfInterest(Metric):
    """Importance is the largest Shi-Tomasi corner response in a tile; see `shi_tomasi_response`.

    Args:
        sigma: Standard deviation of the Gaussian around each pixel, > 0.
        tile: Side of a tile.

    Raises:
        ValueError: If an argument is out of its range.

    Source: "Points of interest" are named in "A Case for Dynamic Activation Quantization in CNNs",
        EMC2 2018; the choice of detector is ours.
    """

    sigma: float = 1.0
    tile: int = 4

    def __post_init__(self) -> None:
        check_sides(self.tile)
        if not 0.0 < self.sigma < float("inf"):
            raise ValueError(f"`sigma` must be > 0 and finite, got {self.sigma!r}.")

    def _importance(self, images: Any) -> Any:
        return _tile_maxima(shi_tomasi_response(images, self.sigma), self.tile)


def _tile_maxima(response: Any, tile: int) -> Any:
    """Returns the largest of each tile's values, which are >= 0."""
    _, height, width = response.shape
    rows, columns = tile_count(height, tile), tile_count(width, tile)
    missing = ((0, 0), (0, rows * tile - height), (0, columns * tile - width))
    tiled = ops.reshape(ops.pad(response, missing), (-1, rows, tile, columns, tile))
    return ops.max(tiled, axis=(2, 4))
