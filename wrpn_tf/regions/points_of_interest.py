"""Points of interest: corners, by the detector of Shi and Tomasi."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from wrpn_tf.regions.image_values import grey_values
from wrpn_tf.regions.metric import Metric
from wrpn_tf.regions.tiles import check_sides, multiply_axes, tile_count


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
    _, height, width, _ = images.shape
    grey = grey_values(images)
    vertical, horizontal = (
        (_correlation_matrix(size, (-1, 0, 1)), _correlation_matrix(size, (1, 2, 1)))
        for size in (height, width)
    )
    gradient_y = multiply_axes(grey, vertical[0], horizontal[1])
    gradient_x = multiply_axes(grey, vertical[1], horizontal[0])
    products = (gradient_y * gradient_y, gradient_y * gradient_x, gradient_x * gradient_x)
    smoothing = [_correlation_matrix(size, _gaussian(sigma)) for size in (height, width)]
    a, b, c = (multiply_axes(product, *smoothing) for product in products)
    root = ops.sqrt(ops.square(a - c) + 4.0 * ops.square(b))
    return ops.maximum((a + c - root) / 2.0, 0.0)


def _correlation_matrix(size: int, weights: Any) -> np.ndarray:
    """Returns float32 [size, size]: a correlation along an axis whose ends are repeated."""
    matrix = np.zeros((size, size))
    for offset, weight in enumerate(weights, -(len(weights) // 2)):
        np.add.at(matrix, (np.arange(size), np.clip(np.arange(size) + offset, 0, size - 1)), weight)
    return matrix.astype(np.float32)


def _gaussian(sigma: float) -> np.ndarray:
    """Returns the weights of a Gaussian up to 4 sigma; they add up to 1."""
    radius = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / sigma))
    return weights / weights.sum()


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
