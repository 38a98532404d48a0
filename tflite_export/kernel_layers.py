"""Keras layers that multiply by weights, as pending operations with TFLite's layout of weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export.batch_norm_folding import Origin
from tflite_export.integer_model import (
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Operation,
    Pad,
    Tensor,
    TransposeConv,
)
from tflite_export.pending import Pending, Step
from wrpn_tf.model_graph import LayerCall
from wrpn_tf.quantization import inner_layer, weight_quantizers


def rounded_again(name: str, source: Tensor) -> Pending:
    """Returns what takes levels to another grid: a pending depthwise convolution by 1."""
    return by_ones(name, source, (1, 1), 1, source.shape, Origin(np.ones(source.shape[-1])))


def by_ones(
    name: str,
    source: Tensor,
    window: tuple[int, int],
    strides: int | tuple[int, int],
    shape: tuple[int, ...],
    origin: Origin,
) -> Pending:
    """Returns a pending depthwise convolution whose integers are all 1.

    It sees features and sequences as images of one row, and what a mean leaves as one pixel.
    """
    channels = source.shape[-1]
    image = (1, math.prod(source.shape[:-1]), channels)
    read = source.shape if len(source.shape) == 3 else image
    written = shape if len(shape) == 3 else (1, math.prod(shape[:-1]), channels)
    steps = (strides, strides) if isinstance(strides, int) else tuple(strides)
    return Pending(
        operation=DepthwiseConv2D(name, (source.name,), "", None, steps, "valid"),
        sources=(source,),
        shape=shape,
        inner_shapes=(read, written),
        integers=np.ones((1, *window, channels), np.int8),
        num_bits=2,
        channel_axis=-1,
        origin=origin,
    )


def _kernel(
    call: LayerCall, source: Tensor, operation: Operation, order: tuple[int, ...], axis: int = 0
) -> Pending:
    """A kernel layer; `order` brings Keras' axes into TFLite's, output channels along `axis`."""
    ((_, (variable, quantizer)),) = weight_quantizers(call.layer).items()
    integers = np.asarray(quantizer.to_int(variable), np.int8)
    steps = np.broadcast_to(np.asarray(quantizer.scale(variable), np.float64), integers.shape)
    if integers.ndim == 3:  # of sequences
        integers, steps = integers[np.newaxis], steps[np.newaxis]
    if isinstance(operation, DepthwiseConv2D):
        flat = (1, *integers.shape[:2], -1)
        integers, steps = integers.reshape(flat), steps.reshape(flat)
    integers, steps = integers.transpose(order), np.moveaxis(steps.transpose(order), axis, 0)
    step = steps.reshape(len(steps), -1)[:, 0].copy()
    layer = inner_layer(call.layer)
    bias = layer.bias if layer.use_bias else None
    shape = call.output_shapes[0][1:]
    return Pending(
        operation=operation,
        sources=(source,),
        shape=shape,
        inner_shapes=None if isinstance(operation, FullyConnected) else image_shapes(source, shape),
        integers=np.ascontiguousarray(integers),
        num_bits=quantizer.num_bits,
        channel_axis=axis,
        origin=Origin(step, (variable, quantizer), bias),
    )


def convolution(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    """Returns a Conv1D or Conv2D layer, grouped or not, as a pending convolution."""
    strides, padding, dilation = _window(call, name)
    is_causal = padding == "causal"
    operation = Conv2D(
        name, (sources[0].name,), "", None, strides, "valid" if is_causal else padding, dilation
    )
    pending = _kernel(call, sources[0], operation, (3, 0, 1, 2))
    if not is_causal:
        return _without_negative_padding(pending)
    before = (inner_layer(call.layer).kernel_size[-1] - 1) * dilation[1]
    (height, width, channels), _ = image_shapes(sources[0], shape)
    zeros = Pad("", (), "", ((0, 0), (before, 0), (0, 0)))
    step = Step("causal", zeros, (height, width + before, channels))
    return dataclasses.replace(pending, moves=(step,))


def depthwise(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    """Returns a DepthwiseConv1D or 2D layer as a pending depthwise convolution."""
    operation = DepthwiseConv2D(name, (sources[0].name,), "", None, *_window(call, name))
    return _without_negative_padding(_kernel(call, sources[0], operation, (0, 1, 2, 3), axis=-1))


def _without_negative_padding(pending: Pending) -> Pending:
    """A pending convolution with a step that pads, where windows leave out some of the edge.

    There the padding "same" is negative by the formula, and 0; XNNPACK of TensorFlow 2.21 computes
    something else, but for kernels of one pixel.
    """
    operation, kernel = pending.operation, pending.integers.shape[1:3]
    if operation.padding != "same" or kernel == (1, 1):
        return pending
    (*sizes, channels), (*results, _) = pending.inner_shapes
    totals = [
        (result - 1) * stride + (length - 1) * dilation + 1 - size
        for size, result, length, stride, dilation in zip(
            sizes, results, kernel, operation.strides, operation.dilation, strict=True
        )
    ]
    if min(totals) >= 0:
        return pending
    amounts = tuple((max(total, 0) // 2, -(-max(total, 0) // 2)) for total in totals)
    shape = (*(n + sum(amount) for n, amount in zip(sizes, amounts, strict=True)), channels)
    step = Step("same", Pad("", (), "", (*amounts, (0, 0))), shape)
    return dataclasses.replace(
        pending,
        operation=dataclasses.replace(operation, padding="valid"),
        moves=(step,) if max(totals) > 0 else (),
    )


def transposed(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    """Returns a Conv1DTranspose or Conv2DTranspose layer as a pending transposed convolution."""
    strides, padding, dilation = _window(call, name)
    if set(dilation) != {1} or getattr(inner_layer(call.layer), "output_padding", None):
        raise ValueError(f"`model`: {name!r} must have no dilation and no output padding.")
    operation = TransposeConv(name, (sources[0].name,), "", None, strides, padding)
    return _kernel(call, sources[0], operation, (2, 0, 1, 3))


def dense(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    """Returns a Dense layer as a pending fully connected operation."""
    operation = FullyConnected(name, (sources[0].name,), "", None)
    return _kernel(call, sources[0], operation, (1, 0))


def _window(call: LayerCall, name: str) -> tuple[tuple[int, int], str, tuple[int, int]]:
    """Strides, padding and dilation of a convolution."""
    layer = inner_layer(call.layer)
    check_channels_last(layer, name)
    strides, dilation = map(rows_and_columns, (layer.strides, layer.dilation_rate))
    return strides, layer.padding, dilation


def rows_and_columns(values: Sequence[int]) -> tuple[int, int]:
    """A size along each axis of space, where a sequence is an image of one row."""
    rows, columns = (1, *values)[-2:]
    return rows, columns


def image_shapes(source: Tensor, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes that an operation on images reads and writes: a sequence is an image of one row.

    Args:
        source: What a layer reads, [(height,) width, channels].
        shape: Of what it writes.
    """
    return (1, *source.shape)[-3:], (1, *shape)[-3:]


def check_channels_last(layer: Any, name: str) -> None:
    """Raises ValueError unless a layer keeps its channels on the last axis."""
    data_format = getattr(layer, "data_format", "channels_last")
    if data_format != "channels_last":
        raise ValueError(
            f"`model`: {name!r} must have data_format 'channels_last', got {data_format!r}."
        )
