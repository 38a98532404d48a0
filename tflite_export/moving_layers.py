"""Layers that move levels and round nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export.integer_model import Crop, MaxPool2D, Pad, Permute, Reshape, Tensor
from tflite_export.kernel_layers import check_channels_last, image_shapes, rows_and_columns
from tflite_export.pending import Pending, Read
from wrpn_tf.model_graph import LayerCall
from wrpn_tf.quantization import inner_layer


def _max_pool(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    layer = inner_layer(call.layer)
    check_channels_last(layer, name)
    pool, strides = rows_and_columns(layer.pool_size), rows_and_columns(layer.strides)
    operation = MaxPool2D(name, (sources[0].name,), "", pool, strides, layer.padding)
    return Pending(operation, sources, shape, image_shapes(sources[0], shape), moves_levels=True)


def _global_max_pool(
    call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any
) -> Pending:
    (source,) = sources
    check_channels_last(inner_layer(call.layer), name)
    image, _ = image_shapes(source, shape)
    height, width, channels = image
    operation = MaxPool2D(name, (source.name,), "", (height, width))
    inner_shapes = (image, (1, 1, channels))
    return Pending(operation, sources, shape, inner_shapes, moves_levels=True)


def _pad(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    layer = inner_layer(call.layer)
    amounts = _edges(layer.padding)
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        amounts = (amounts[-1], *amounts[:-1])
    return Pending(Pad(name, (sources[0].name,), "", amounts), sources, shape, moves_levels=True)


def _crop(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    layer = inner_layer(call.layer)
    check_channels_last(layer, name)
    operation = Crop(name, (sources[0].name,), "", _edges(layer.cropping))
    return Pending(operation, sources, shape, moves_levels=True)


def _slice(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    """What `x[..., :8]` takes: found by slicing the positions of two examples' values."""
    (source,) = sources
    positions = np.arange(2 * math.prod(source.shape)).reshape(2, *source.shape)
    taken = np.asarray(call.invoke(inner_layer(call.layer), {call.inputs[0]: positions}))
    _, *coordinates = np.unravel_index(taken.ravel(), positions.shape)
    bounds = [(int(axis.min()), int(axis.max()) + 1) for axis in coordinates]
    block = positions[(slice(None), *(slice(*pair) for pair in bounds))]
    if taken.shape[1:] != shape or not np.array_equal(block.ravel(), taken.ravel()):
        raise ValueError(
            f"`model`: {name!r} must slice without steps, and not the batch dimension, to be "
            "exported."
        )
    ends = zip(bounds, source.shape, strict=True)
    amounts = tuple((start, size - stop) for (start, stop), size in ends)
    inner_shapes = (source.shape, block.shape[1:])
    operation = Crop(name, (source.name,), "", amounts)
    return Pending(operation, sources, shape, inner_shapes, moves_levels=True)


def _permute(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    layer = inner_layer(call.layer)
    axes = (0, *layer.dims) if hasattr(layer, "dims") else layer.axes
    if axes is None or axes[0] != 0:
        raise ValueError(f"`model`: {name!r} must leave the batch dimension first, got {axes}.")
    order = tuple(axis % len(axes) - 1 for axis in axes[1:])
    operation = Permute(name, (sources[0].name,), "", order)
    return Pending(operation, sources, shape, moves_levels=True)


def _edges(amounts: Sequence[Any]) -> tuple[tuple[int, int], ...]:
    """(before, after) of each axis, from what layers have of those of space."""
    pairs = amounts if isinstance(amounts[0], Sequence) else (amounts,)
    return (*((before, after) for before, after in pairs), (0, 0))


def _flatten(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    check_channels_last(inner_layer(call.layer), name)
    return _reshape(call, name, sources, shape)


def _reshape(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    return Pending(Reshape(name, (sources[0].name,), ""), sources, shape, moves_levels=True)


_ON_SPACE = {
    "Cropping{}D": _crop,
    "GlobalMaxPooling{}D": _global_max_pool,
    "MaxPooling{}D": _max_pool,
    "ZeroPadding{}D": _pad,
}
MOVING_LAYERS: dict[str, Read] = {
    "ExpandDims": _reshape,
    "Flatten": _flatten,
    "GetItem": _slice,
    "Permute": _permute,
    "Reshape": _reshape,
    "SlicingOpLambda": _slice,
    "Squeeze": _reshape,
    "Transpose": _permute,
    **{name.format(rank): read for name, read in _ON_SPACE.items() for rank in (1, 2)},
}
"""Class name -> what reads a layer of it."""
