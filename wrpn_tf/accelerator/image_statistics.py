"""How numbers are distributed over images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Shares of the images that `Distribution` gives the quantiles of."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How a number is distributed over images.

    Attributes:
        mean: Its mean.
        std: Its standard deviation, of these images as the whole population.
        quantiles: Share of the images -> what so many have at most, for each of `QUANTILES`.
        best: Index of the image with the largest.
        worst: Index of the image with the smallest.
    """

    mean: float
    std: float
    quantiles: Mapping[float, float]
    best: int
    worst: int


def distribution(values: npt.NDArray[np.float64]) -> Distribution:
    """Returns the distribution of numbers, [images]."""
    quantiles = np.quantile(values, QUANTILES)
    return Distribution(
        mean=float(values.mean()),
        std=float(values.std()),
        quantiles=dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
        best=int(values.argmax()),
        worst=int(values.argmin()),
    )
