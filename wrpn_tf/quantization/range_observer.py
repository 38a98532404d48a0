"""What a tensor to be rounded holds, and the range that rounds it best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.grid import Grid
from wrpn_tf.quantization.quantizers import ObservedQuantizer, Quantizer

_BINS = 4096


class RangeObserver:
    """Collects what is to be rounded: the extremes, and a histogram of the magnitudes."""

    def __init__(self) -> None:
        self._smallest = self._largest = 0.0
        self._width = 0.0  # of a histogram bin
        self._counts = np.zeros(_BINS, np.int64)

    def observe(self, values: npt.NDArray[np.float32], path: str) -> None:
        """Adds values to the histogram.

        Args:
            values: Of any shape.
            path: The layer that makes them, for the error.

        Raises:
            ValueError: If a value is not finite.
        """
        if not np.isfinite(values).all():
            raise ValueError(f"`dataset` must be finite, got NaN or infinity at layer {path!r}.")
        self._smallest = min(self._smallest, float(values.min()))
        self._largest = max(self._largest, float(values.max()))
        magnitudes = np.abs(values).ravel()
        reach = float(magnitudes.max())
        if reach == 0:
            return
        if not self._width:
            self._width = reach / _BINS
        while reach > self._width * _BINS:  # pairs of bins become one
            self._counts = np.append(self._counts.reshape(-1, 2).sum(1), np.zeros(_BINS // 2, int))
            self._width *= 2
        bins = np.minimum((magnitudes / self._width).astype(np.int64), _BINS - 1)
        self._counts += np.bincount(bins, minlength=_BINS)

    def set_range(
        self,
        quantizer: Quantizer,
        variables: Mapping[str, Any],
        method: str = "mse",
        percentile: float = 99.99,
    ) -> None:
        """Sets a quantizer's range from what was seen; leaves it if that was nothing but zeros.

        Args:
            quantizer: Of an activation.
            variables: The quantizer's variables.
            method: As in `wrpn_tf.calibrate`.
            percentile: As in `wrpn_tf.calibrate`.
        """
        if self._smallest == self._largest:
            return  # nothing but zeros: any range rounds them
        if isinstance(quantizer, ObservedQuantizer) or method == "max":
            quantizer.set_range(variables, self._smallest, self._largest)
            return
        if method == "percentile":
            share = np.cumsum(self._counts) / self._counts.sum()
            reach = self._width * (1 + int(np.searchsorted(share, percentile / 100)))
        else:
            reach = self._least_error(quantizer.grid)
        quantizer.set_range(variables, -reach, reach)

    def _least_error(self, grid: Grid) -> float:
        """The range that rounds the histogram's bin centres with the least mean squared error."""
        centres = (np.arange(_BINS) + 0.5) * self._width
        largest = self._width * (1 + int(np.flatnonzero(self._counts)[-1]))

        def error(reach: float) -> float:
            rounded = grid.quantize(centres, reach / grid.high)
            return float((self._counts * (rounded - centres) ** 2).sum())

        return min(largest * np.geomspace(1 / 64, 1, 128), key=error)
