"""Which operation of the integer graph each Keras layer is, or becomes a part of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export.average_pooling import average_pool, mean_of_image
from tflite_export.batch_norm_folding import Origin
from tflite_export.function_table import FoldedTable
from tflite_export.integer_model import (
    Add,
    Lookup,
    Maximum,
    Minimum,
    Multiply,
    Probabilities,
    Sigmoid,
    Softmax,
    Tensor,
    UpSample2D,
)
from tflite_export.kernel_layers import (
    by_ones,
    check_channels_last,
    convolution,
    dense,
    depthwise,
    image_shapes,
    rounded_again,
    rows_and_columns,
    transposed,
)
from tflite_export.moving_layers import MOVING_LAYERS
from tflite_export.pending import ModelInput, Pending, Read, Value, joined
from tflite_export.upsampling import bilinear
from wrpn_tf.model_graph import LayerCall
from wrpn_tf.quantization import inner_layer
from wrpn_tf.quantization.quantize_registry import (
    activation_name,
    function_name,
    fused_relu_limit,
    is_elementwise,
    probability_function,
    relu_limit,
)


def read_layer(
    call: LayerCall,
    name: str,
    values: Sequence[Value],
    shape: tuple[int, ...],
    *,
    is_output: bool,
) -> Tensor | Pending:
    """Returns what a layer makes of its inputs.

    Args:
        call: The call of the layer.
        name: Of the operation.
        values: What is known of the call's inputs.
        shape: Of the call's output, without the batch dimension.
        is_output: Whether the call's output is one of the model's.

    Raises:
        ValueError: If the layer has no integer form; names it.
    """
    layer = inner_layer(call.layer)
    kind = function_name(layer)
    value = values[0]
    if kind in _NO_OPERATION or (kind == "Activation" and activation_name(layer) == "linear"):
        return _tensor(value, name)
    if relu_limit(layer) is not None:
        pending = value if isinstance(value, Pending) else rounded_again(name, _tensor(value, name))
        return _with_relu(pending, relu_limit(layer))
    if kind in _BATCH_NORMS:
        return _batch_norm(layer, name, value, shape)
    if kind == "Concatenate":
        return _concatenation(layer, name, values, shape)
    probabilities = probability_function(layer)
    if probabilities == "softmax":
        return _softmax(layer, name, _tensor(value, name), shape)
    if is_output and probabilities == "sigmoid":
        return _probabilities(Sigmoid, name, _tensor(value, name), shape)
    if len(values) == 1 and is_elementwise(layer):
        return _function(call, name, _tensor(value, name), shape)
    if kind not in _OPERATIONS:
        exported = sorted(
            {*_OPERATIONS, *_BATCH_NORMS, "Activation", "Concatenate", "ReLU", "Softmax"}
        )
        raise ValueError(
            f"`model`: {name!r} ({_described(layer)}) has no integer form in the exporter. It "
            f"exports {', '.join(exported)}, and functions of each value by itself."
        )
    sources = tuple(_tensor(value, name) for value in values)
    pending = _OPERATIONS[kind](call, name, sources, shape)
    limit = fused_relu_limit(layer) if pending.integers is not None else None
    return pending if limit is None else _with_relu(pending, limit)


def _described(layer: Any) -> str:
    """What a layer is that has no integer form."""
    kind = function_name(layer)
    return f"{kind} {activation_name(layer)!r}" if kind == "Activation" else kind


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
    return by_ones(name, source, (1, 1), 1, shape, Origin(np.ones(shape[-1]), batch_norm=layer))


def _concatenation(
    layer: Any, name: str, values: Sequence[Value], shape: tuple[int, ...]
) -> Pending:
    members = tuple(
        value if isinstance(value, Pending) else _tensor(value, name) for value in values
    )
    axis = layer.axis if layer.axis >= 0 else layer.axis + len(shape) + 1
    return joined(name, members, shape, axis)


def _softmax(layer: Any, name: str, source: Tensor, shape: tuple[int, ...]) -> Pending:
    if getattr(layer, "axis", -1) not in (-1, len(shape)):
        raise ValueError(
            f"`model`: {name!r} must be a softmax over the last axis, got axis {layer.axis}."
        )
    return _probabilities(Softmax, name, source, shape)


def _probabilities(
    kind: type[Probabilities], name: str, source: Tensor, shape: tuple[int, ...]
) -> Pending:
    grid = Tensor(name, shape, np.float32(1 / 256), 0, 255)
    return Pending(kind(name, (source.name,), ""), (grid,), shape, moves_levels=True)


def _sum(sign: int) -> Read:
    """Reads a sum, or a difference."""

    def read(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
        _check_equal_shapes(name, sources)
        operation = Add(name, tuple(source.name for source in sources), "", sign=sign)
        return Pending(operation, sources, shape)

    return read


def _extreme(kind: type[Maximum | Minimum]) -> Read:
    """Reads a maximum or minimum: of levels that are rounded to the output's grid before."""

    def read(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
        _check_equal_shapes(name, sources)
        return Pending(kind(name, (), ""), (), shape, members=sources)

    return read


def _check_equal_shapes(name: str, sources: tuple[Tensor, ...]) -> None:
    if len(sources) != 2 or sources[0].shape != sources[1].shape:
        raise ValueError(
            f"`model`: {name!r} must combine two tensors of one shape, got "
            f"{', '.join(str(source.shape) for source in sources)}."
        )


def _parametric_relu(
    call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any
) -> Pending:
    """Reads a PReLU: the larger of x and its slope times x, for slopes of at most 1."""
    (source,), alpha = sources, inner_layer(call.layer).alpha
    if math.prod(alpha.shape[:-1]) > 1:
        raise ValueError(
            f"`model`: {name!r} must share its slopes along all axes but the last, got slopes of "
            f"shape {tuple(alpha.shape)}. Make it with shared_axes={list(range(1, len(shape)))}."
        )
    steepest = float(np.max(alpha.numpy()))
    if steepest > 1:
        raise ValueError(
            f"`model`: {name!r} must have slopes of at most 1, got {steepest:.3g}. An "
            "`alpha_constraint` keeps them there."
        )
    origin = Origin(np.ones(source.shape[-1]), slope=alpha)
    scaled = by_ones(f"{name}/1", source, (1, 1), 1, shape, origin)
    return Pending(Maximum(name, (), ""), (), shape, members=(source, scaled))


def _multiply(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    shapes = [source.shape for source in sources]
    fits = len(shapes) == 2 and len(shapes[0]) == len(shapes[1]) <= _MOST_AXES
    if not fits:
        raise ValueError(
            f"`model`: {name!r} must multiply two tensors of as many axes, at most {_MOST_AXES} "
            f"behind the batch dimension, got {', '.join(map(str, shapes))}."
        )
    return Pending(Multiply(name, tuple(source.name for source in sources), ""), sources, shape)


def _function(call: LayerCall, name: str, source: Tensor, shape: tuple[int, ...]) -> Pending:
    layer, (key,) = inner_layer(call.layer), call.inputs
    table = FoldedTable(
        lambda values: np.asarray(call.invoke(layer, {key: values})), len(shape) + 1
    )
    try:
        table.check(source)
    except ValueError as error:
        raise ValueError(
            f"`model`: {name!r} ({_described(layer)}) has no integer form in the exporter: {error}."
        ) from error
    return Pending(Lookup(name, (source.name,), "", table), (source,), shape)


def _average_pool(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    layer, (source,) = inner_layer(call.layer), sources
    check_channels_last(layer, name)
    window, strides = rows_and_columns(layer.pool_size), rows_and_columns(layer.strides)
    return average_pool(name, source, window, strides, layer.padding, shape)


def _global_average_pool(
    call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any
) -> Pending:
    (source,) = sources
    check_channels_last(inner_layer(call.layer), name)
    return mean_of_image(name, source, shape)


def _up_sample(call: LayerCall, name: str, sources: tuple[Tensor, ...], shape: Any) -> Pending:
    layer = inner_layer(call.layer)
    check_channels_last(layer, name)
    sizes = layer.size if isinstance(layer.size, Sequence) else (layer.size,)
    interpolation = getattr(layer, "interpolation", "nearest")
    if interpolation == "bilinear":
        return bilinear(name, sources[0], rows_and_columns(sizes), shape)
    if interpolation != "nearest":
        raise ValueError(
            f"`model`: {name!r} must have the interpolation 'nearest' or 'bilinear', got "
            f"{interpolation!r}."
        )
    operation = UpSample2D(name, (sources[0].name,), "", rows_and_columns(sizes))
    return Pending(operation, sources, shape, image_shapes(sources[0], shape), moves_levels=True)


# Behind the batch dimension; some kernels broadcast no more.
_MOST_AXES = 3
_BATCH_NORMS = ("BatchNormalization", "SyncBatchNormalization")
_NO_OPERATION = frozenset(
    [
        "ActivityRegularization",
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "SpatialDropout1D",
        "SpatialDropout2D",
    ]
)
_ON_ANY = {
    "Add": _sum(1),
    "Dense": dense,
    "Maximum": _extreme(Maximum),
    "Minimum": _extreme(Minimum),
    "Multiply": _multiply,
    "PReLU": _parametric_relu,
    "Subtract": _sum(-1),
}
_ON_SPACE = {
    "AveragePooling{}D": _average_pool,
    "Conv{}D": convolution,
    "Conv{}DTranspose": transposed,
    "DepthwiseConv{}D": depthwise,
    "GlobalAveragePooling{}D": _global_average_pool,
    "UpSampling{}D": _up_sample,
}
_OPERATIONS: dict[str, Read] = {
    **MOVING_LAYERS,
    **_ON_ANY,
    **{name.format(rank): read for name, read in _ON_SPACE.items() for rank in (1, 2)},
}
