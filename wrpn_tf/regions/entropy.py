"""Local entropy: how many different grey values a neighbourhood has."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from keras import ops

from wrpn_tf.regions.image_values import grey_values
from wrpn_tf.regions.metric import Metric
from wrpn_tf.regions.tiles import check_sides, is_whole, mean_factors, window_sizes, window_sums

# Grey values of 8-bit colours are multiples of 1 / 255000. Some lie exactly on the edge of a bin,
# where float32 errs to either side, by 2e-7 at most. This moves them into the upper bin, and for
# 2, 4, 8, 16 or 32 bins no other across an edge: as whole numbers, 1000 grey * bins // 255000.
_EDGE = 2.0**-21


def local_entropy(images: Any, bins: int = 16, window: int = 9, tile: int = 4) -> Any:
    """Computes the Shannon entropy of the grey values around each tile.

    entropy = -sum_k (n_k / N) log2(n_k / N) = (N log2 N - sum_k n_k log2 n_k) / N

    with n_k of the N pixels in the tile's window in the bin k = floor(bins * grey). Windows are cut
    off at the image's border. With `tile=1` this is `skimage.filters.rank.entropy` of the bins; a
    larger tile has the entropy at its centre. All sums are exact, so a result depends neither on
    the order of summation nor on the device, and a constant image has exactly 0.

    Args:
        images: float32 tensor [batch, height, width, channels] with values in [0, 1].
        bins: Bins of equal width.
        window: Side of a window, odd.
        tile: Side of a tile.

    Returns:
        float32 tensor [batch, ceil(height / tile), ceil(width / tile)], in bits, 0..log2(bins).

    Source: The metric is named in "A Case for Dynamic Activation Quantization in CNNs", EMC2 2018;
        the formula, bins and window are ours.
    """
    _, height, width, _ = images.shape
    one_hot = ops.one_hot(grey_bins(images, bins), bins, axis=1, dtype="float32")
    counts = window_sums(one_hot, tile, window)
    pixels = window_sizes(height, width, tile, window)
    table = _entropy_table(int(pixels.max()))
    sums = ops.sum(ops.take(table, ops.cast(counts, "int32")), axis=1)
    return (table[pixels] - sums) * mean_factors(pixels)


def grey_bins(images: Any, bins: int) -> Any:
    """Returns int32 [batch, height, width]: min(floor(bins * grey), bins - 1)."""
    scaled = ops.clip(grey_values(images) + _EDGE, 0.0, 1.0) * bins
    return ops.minimum(ops.cast(scaled, "int32"), bins - 1)


def _entropy_table(pixels: int) -> np.ndarray:
    """Returns n log2 n for n = 0..pixels in float32, as multiples of one power of two.

    That power is small, and large enough for float32 to hold every sum of entries whose n add up
    to `pixels`.
    """
    counts = np.arange(pixels + 1)
    exact = counts * np.log2(np.maximum(counts, 1))
    step = 2.0 ** (math.ceil(math.log2(max(exact[-1], 1.0))) - 23)
    return (np.round(exact / step) * step).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Entropy(Metric):
    """Importance is the local entropy of the grey values, in bits; see `local_entropy`.

    Args:
        bins: Bins of the histogram, >= 2.
        window: Side of the window around each tile, odd, >= tile.
        tile: Side of a tile.

    Raises:
        ValueError: If an argument is out of its range.
    """

    bins: int = 16
    window: int = 9
    tile: int = 4

    def __post_init__(self) -> None:
        check_sides(self.tile, self.window)
        if not is_whole(self.bins) or self.bins < 2:
            raise ValueError(f"`bins` must be a whole number >= 2, got {self.bins!r}.")

    def _importance(self, images: Any) -> Any:
        return local_entropy(images, self.bins, self.window, self.tile)
