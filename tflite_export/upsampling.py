"""Bilinear upsampling, as one pending depthwise convolution for each place between the pixels."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from tflite_export.batch_norm_folding import Origin
from tflite_export.integer_model import EdgePad, Tensor
from tflite_export.kernel_layers import by_ones
from tflite_export.pending import Pending, Step, joined
from tflite_export.storage import largest_weight

# Eight leave int8 no multiplier, without which no scale serves all weights of an interpolation.
_MOST_BITS = 7


class _Place(NamedTuple):
    """Where new pixels stand between old ones, along one axis.

    Attributes:
        edges: How many pixels beyond the image are read: before it, after it.
        weights: Of the neighbours, whole numbers.
    """

    edges: tuple[int, int]
    weights: tuple[int, ...]


def bilinear(name: str, source: Tensor, size: tuple[int, int], shape: tuple[int, ...]) -> Pending:
    """Returns the pending image between whose pixels new ones were interpolated.

    As in Keras and TensorFlow, old and new pixels are areas that share their outer edges, and the
    outermost pixels go on beyond them.

    Args:
        name: Of the operation.
        source: What it reads, [height, width, channels].
        size: How many pixels become of one: rows, columns.
        shape: Of the result.

    Raises:
        ValueError: If the weights of a size take more than seven bits.
    """
    height, width, channels = source.shape
    rows, columns = (_places(factor) for factor in size)
    largest = math.prod(max(max(place.weights) for place in side) for side in (rows, columns))
    if largest > largest_weight(_MOST_BITS):
        raise ValueError(
            f"`model`: {name!r} must interpolate by weights of at most "
            f"{largest_weight(_MOST_BITS)} units, as sizes up to 5 do, got {largest} at the size "
            f"{size}."
        )
    stripes = []
    for i, row in enumerate(rows):
        parts = [
            _interpolated(f"{name}/{i}/{j}", source, row, column)
            for j, column in enumerate(columns)
        ]
        side_by_side = (height, width, len(columns) * channels)
        stripe = (height, 1, math.prod(side_by_side[1:]))
        stripes.append(joined(f"{name}/{i}", parts, stripe, 3, side_by_side))
    return joined(name, stripes, shape, 3, (height, 1, math.prod(shape) // height))


def _places(factor: int) -> list[_Place]:
    """The places of the new pixels of each old one."""
    places = []
    for place in range(factor):
        # From the old pixel's centre, in halves of new pixels, of which 2 * factor are an old one.
        distance = 2 * place + 1 - factor
        common = math.gcd(distance, 2 * factor)
        weights = (2 * factor - abs(distance)) // common, abs(distance) // common
        if distance < 0:
            places.append(_Place((1, 0), weights[::-1]))
        else:
            places.append(_Place((0, 1), weights) if distance else _Place((0, 0), (1,)))
    return places


def _interpolated(name: str, source: Tensor, row: _Place, column: _Place) -> Pending:
    """The new pixels of one place, as many as the old ones."""
    height, width, channels = source.shape
    weights = np.outer(row.weights, column.weights)
    pending = by_ones(
        name, source, weights.shape, 1, source.shape, Origin(np.full(channels, 1 / weights.sum()))
    )
    edges = (row.edges, column.edges, (0, 0))
    padded = (height + sum(row.edges), width + sum(column.edges), channels)
    return dataclasses.replace(
        pending,
        moves=(Step("edge", EdgePad("", (), "", edges), padded),) if padded != source.shape else (),
        integers=np.tile(weights.astype(np.int8)[None, :, :, None], channels),
        num_bits=max(2, int(weights.max()).bit_length() + 1),
    )
