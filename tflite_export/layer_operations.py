"""Which operation of the integer graph each Keras layer is, or becomes a part of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tflite_export.batch_norm_folding import Origin
from tflite_export.integer_model import (
    Add,
    Concatenation,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    MaxPool2D,
    Operation,
    Pad,
    Reshape,
    Softmax,
    Tensor,
    TransposeConv,
)
from wrpn_tf.keras_flavor import LayerCall, keras_class
from wrpn_tf.quantization import inner_layer, weight_quantizers
from wrpn_tf.quantization.quantize_registry import activation_name, fused_relu_limit, relu_limit


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """A model input that is not rounded yet.

    Attributes:
        key: Its tensor key in the model's graph.
    """

    key: int


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """An operation whose result is not rounded yet.

    Attributes:
        operation: The operation; output and kernel are filled in at the end.
        sources: The tensors that it reads.
        shape: Of what it writes, without the batch dimension.
        moves_levels: Its output is on its input's grid and needs no rounding.
        integers: The weights in TFLite's layout; None without any.
        num_bits: Bits of the integers.
        channel_axis: Axis of the output channels in `integers`.
        origin: Where scale and bias come from.
        relu: Whether negative results become 0.
        limit: Where a ReLU saturates.
        members: What a concatenation joins.
        axis: Along which it joins, counted with the batch dimension.
    """

    operation: Operation
    sources: tuple[Tensor, ...]
    shape: tuple[int, ...]
    moves_levels: bool = False
    integers: npt.NDArray[np.int8] | None = None
    num_bits: int = 8
    channel_axis: int = 0
    origin: Any = None
    relu: bool = False
    limit: float = math.inf
    members: tuple[Tensor | Pending, ...] = ()
    axis: int = -1


Value = Tensor | Pending | ModelInput


def read_layer(
    call: LayerCall, name: str, values: Sequence[Value], shape: tuple[int, ...]
) -> Tensor | Pending:
    """Returns what a layer makes of its inputs.

    Args:
        call: The call of the layer.
        name: Of the operation.
        values: What is known of the call's inputs.
        shape: Of the call's output, without the batch dimension.

    Raises:
        ValueError: If the layer has no integer form; names it.
    """
    layer = inner_layer(call.layer)
    kind = keras_class(layer)
    value = values[0]
    if kind in _NO_OPERATION or (kind == "Activation" and activation_name(layer) == "linear"):
        return _tensor(value, name)
    if relu_limit(layer) is not None and isinstance(value, Pending):
        return _with_relu(value, relu_limit(layer))
    if kind in _BATCH_NORMS:
        return _batch_norm(layer, name, value, shape)
    if kind == "Concatenate":
        return _concatenation(layer, name, values, shape)
    if kind == "Softmax" or activation_name(layer) == "softmax":
        source = _tensor(value, name)
        return _softmax(name, source, shape)
    if kind not in _OPERATIONS:
        raise ValueError(
            f"`model`: {name!r} ({kind}) has no integer form in the exporter. It exports "
            f"{', '.join(sorted({*_OPERATIONS, *_BATCH_NORMS, 'Concatenate', 'ReLU', 'Softmax'}))}."
        )
    sources = tuple(_tensor(value, name) for value in values)
    pending = _OPERATIONS[kind](call, name, sources, shape)
    limit = fused_relu_limit(layer) if pending.integers is not None else None
    return pending if limit is None else _with_relu(pending, limit)


def _tensor(value: Value, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    what = "the model's input" if isinstance(value, ModelInput) else value.operation.name
    raise ValueError(
        f"`model`: {name!r} must read rounded values, got those of {what!r}, which are left in "
        "float."
    )


def _with_relu(value: Pending, limit: float | None) -> Pending:
    members = tuple(
        _with_relu(member, limit) if isinstance(member, Pending) else member
        for member in value.members
    )
    limit = min(value.limit, math.inf if limit is None else limit)
    return dataclasses.replace(value, relu=True, limit=limit, members=members)


def _batch_norm(layer: Any, name: str, value: Value, shape: tuple[int, ...]) -> Pending:
    """Batch norm behind a kernel is folded; elsewhere it is a depthwise convolution by 1."""
    if layer.axis not in (len(shape), [len(shape)], -1):
        raise ValueError(f"`model`: {name!r} must normalise the last axis, got axis {layer.axis}.")
    if isinstance(value, Pending):
        if value.integers is None or value.relu or value.origin.batch_norm is not None:
            raise ValueError(f"`model`: {name!r} does not stand behind a kernel or a rounding.")
        return dataclasses.replace(
            value, origin=dataclasses.replace(value.origin, batch_norm=layer)
        )
    source = _tensor(value, name)
    return _by_ones(name, source, (1, 1), 1, shape, Origin(np.ones(shape[-1]), batch_norm=layer))


def rounded_again(name: str, source: Tensor) -> Pending:
    """Levels that go to another grid, as a depthwise convolution by 1."""
    return _by_ones(name, source, (1, 1), 1, source.shape, Origin(np.ones(source.shape[-1])))


def _by_ones(
    name: str,
    source: Tensor,
    window: tuple[int, int],
    strides: int | tuple[int, int],
    shape: tuple[int, ...],
    origin: Origin,
) -> Pending:
    """A depthwise convolution whose integers are all 1."""
    if len(source.shape) != 3:
        raise ValueError(
            f"`model`: {name!r} must read [height, width, channels], got {source.shape}."
        )
    steps = (strides, strides) if isinstance(strides, int) else tuple(strides)
    return Pending(
        operation=DepthwiseConv2D(name, (source.name,), "", None, steps, "valid"),  # type: ignore[arg-type]
        sources=(source,),
        shape=shape,
        integers=np.ones((1, *window, source.shape[-1]), np.int8),
        num_bits=2,
        channel_axis=-1,
        origin=origin,
    )


def _concatenation(
    layer: Any, name: str, values: Sequence[Value], shape: tuple[int, ...]
) -> Pending:
    members = tuple(value for value in values if not isinstance(value, ModelInput))
    axis = layer.axis if layer.axis >= 0 else layer.axis + len(shape) + 1
    sources = tuple(member for member in members if isinstance(member, Tensor))
    operation = Concatenation(name, (), "", axis)
    return Pending(operation, sources, shape, members=members, axis=axis)


def _softmax(name: str, source: Tensor, shape: tuple[int, ...]) -> Pending:
    probabilities = Tensor(name, shape, np.float32(1 / 256), 0, 255)
    return Pending(Softmax(name, (source.name,), ""), (probabilities,), shape, moves_levels=True)


def _kernel(
    call: LayerCall, source: Tensor, operation: Operation, order: tuple[int, ...], axis: int = 0
) -> Pending:
    """A kernel layer; `order` brings Keras' axes into TFLite's, output channels along `axis`."""
    ((_, (variable, quantizer)),) = weight_quantizers(call.layer).items()
    integers = np.asarray(quantizer.to_int(variable), np.int8)
    steps = np.broadcast_to(np.asarray(quantizer.scale(variable), np.float64), integers.shape)
    if isinstance(operation, DepthwiseConv2D):
        flat = (1, *integers.shape[:2], -1)
        integers, steps = integers.reshape(flat), steps.reshape(flat)
    integers, steps = integers.transpose(order), np.moveaxis(steps.transpose(order), axis, 0)
    step = steps.reshape(len(steps), -1)[:, 0].copy()
    layer = inner_layer(call.layer)
    bias = layer.bias if layer.use_bias else None
    return Pending(
        operation=operation,
        sources=(source,),
        shape=call.output_shapes[0][1:],  # type: ignore[arg-type]
        integers=np.ascontiguousarray(integers),
        num_bits=quantizer.num_bits,
        channel_axis=axis,
        origin=Origin(step, (variable, quantizer), bias),
    )


def _conv2d(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    operation = Conv2D(name, (sources[0].name,), "", None, *_window(call, name))  # type: ignore[arg-type]
    return _kernel(call, sources[0], operation, (3, 0, 1, 2))


def _depthwise(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    operation = DepthwiseConv2D(name, (sources[0].name,), "", None, *_window(call, name))  # type: ignore[arg-type]
    return _kernel(call, sources[0], operation, (0, 1, 2, 3), axis=-1)


def _transposed(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    strides, padding, dilation = _window(call, name)
    if dilation != (1, 1) or getattr(inner_layer(call.layer), "output_padding", None):
        raise ValueError(f"`model`: {name!r} must have no dilation and no output padding.")
    operation = TransposeConv(name, (sources[0].name,), "", None, strides, padding)  # type: ignore[arg-type]
    return _kernel(call, sources[0], operation, (2, 0, 1, 3))


def _dense(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    operation = FullyConnected(name, (sources[0].name,), "", None)  # type: ignore[arg-type]
    return _kernel(call, sources[0], operation, (1, 0))


def _window(call: LayerCall, name: str) -> tuple[tuple[int, int], str, tuple[int, int]]:
    """Strides, padding and dilation of a convolution."""
    layer = inner_layer(call.layer)
    _check_channels_last(layer, name)
    return tuple(layer.strides), layer.padding, tuple(layer.dilation_rate)


def _add(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    if len(sources) != 2 or sources[0].shape != sources[1].shape:
        raise ValueError(
            f"`model`: {name!r} must add two tensors of one shape, got "
            f"{', '.join(str(source.shape) for source in sources)}."
        )
    operation = Add(name, tuple(source.name for source in sources), "")
    return Pending(operation, sources, shape)


def _max_pool(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    layer = inner_layer(call.layer)
    _check_channels_last(layer, name)
    operation = MaxPool2D(
        name, (sources[0].name,), "", tuple(layer.pool_size), tuple(layer.strides), layer.padding
    )
    return Pending(operation, sources, shape, moves_levels=True)


def _average_pool(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    layer, (source,) = inner_layer(call.layer), sources
    _check_channels_last(layer, name)
    window, strides = tuple(layer.pool_size), tuple(layer.strides)
    fits = all(size % step == 0 for size, step in zip(source.shape, strides, strict=False))
    if layer.padding == "same" and not (fits and window == strides):
        raise ValueError(
            f"`model`: {name!r} must average whole windows, got padding 'same' with windows "
            f"{window} at strides {strides} over {source.shape[:2]}."
        )
    return _mean(name, source, window, strides, shape)


def _global_average_pool(
    call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any
) -> Pending:
    (source,) = sources
    _check_channels_last(inner_layer(call.layer), name)
    return _mean(name, source, source.shape[:2], 1, (1, 1, source.shape[-1]))


def _mean(name: str, source: Tensor, window: Any, strides: Any, shape: Any) -> Pending:
    share = np.full(source.shape[-1], 1.0 / math.prod(window))
    return _by_ones(name, source, window, strides, shape, Origin(share))


def _pad(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    layer = inner_layer(call.layer)
    _check_channels_last(layer, name)
    amounts = (*(tuple(pair) for pair in layer.padding), (0, 0))
    return Pending(Pad(name, (sources[0].name,), "", amounts), sources, shape, moves_levels=True)


def _reshape(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    return Pending(Reshape(name, (sources[0].name,), ""), sources, shape, moves_levels=True)


def _check_channels_last(layer: Any, name: str) -> None:
    if layer.data_format != "channels_last":
        raise ValueError(
            f"`model`: {name!r} must have data_format 'channels_last', got {layer.data_format!r}."
        )


_BATCH_NORMS = ("BatchNormalization", "SyncBatchNormalization")
_NO_OPERATION = frozenset(
    [
        "ActivityRegularization",
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "SpatialDropout2D",
    ]
)
_OPERATIONS: dict[str, Callable[[LayerCall, str, tuple[Tensor, ...], Any], Pending]] = {
    "Add": _add,
    "AveragePooling2D": _average_pool,
    "Conv2D": _conv2d,
    "Conv2DTranspose": _transposed,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Flatten": _reshape,
    "GlobalAveragePooling2D": _global_average_pool,
    "MaxPooling2D": _max_pool,
    "Reshape": _reshape,
    "ZeroPadding2D": _pad,
}
