"""What each layer without a kernel does to levels and accumulators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from wrpn_tf.model_graph import LayerCall
from wrpn_tf.quantization import inner_layer, is_quantized
from wrpn_tf.quantization.quantize_registry import (
    Kind,
    function_name,
    is_elementwise,
    kind_of,
    probability_function,
    relu_limit,
)
from wrpn_tf.simulation.pooling import mean_over_space, mean_over_windows
from wrpn_tf.simulation.upsampling import interpolated
from wrpn_tf.simulation.values import (
    Integers,
    Joined,
    Levels,
    Pending,
    Reals,
    Value,
    real,
    rectified,
    scaled,
)

Rule: TypeAlias = Callable[[LayerCall, Sequence[Any]], Value]


def only_rounds(layer: Any) -> bool:
    """Returns whether a layer does nothing but round a tensor."""
    return is_quantized(layer) and inner_layer(layer) is layer


def find_rule(call: LayerCall) -> Rule | None:
    """Returns the function that runs a call of a layer without a kernel; None if none can.

    Args:
        call: The call of a layer, wrapped or not.

    Returns:
        `rule(call, values)`: the call's result for the values of its inputs, not yet rounded.
    """
    if only_rounds(call.layer):
        return _keep
    layer = inner_layer(call.layer)
    if len(call.inputs) == 1 and is_elementwise(layer):
        return _apply
    is_zoom = function_name(layer) == "UpSampling2D"
    if is_zoom and layer.interpolation not in ("nearest", "bilinear"):
        return None
    return _BY_KIND.get(kind_of(layer)) or _BY_FUNCTION.get(function_name(layer))


def probabilities(layer: Any, levels: Levels) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """Returns softmax or sigmoid of levels in float32; None for a layer that is neither.

    The exponentials are computed in float64.
    """
    if not ends_in_probabilities(layer, levels.integers.ndim):
        return None
    values = levels.integers * np.float64(levels.scale)
    if probability_function(layer) == "sigmoid":
        return (1 / (1 + np.exp(-values))).astype(np.float32)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def ends_in_probabilities(layer: Any, num_axes: int) -> bool:
    """Returns whether a layer computes a sigmoid, or a softmax over the last of its axes."""
    is_last = getattr(layer, "axis", -1) in (-1, num_axes - 1)
    return probability_function(layer) is not None and is_last


def _keep(call: LayerCall, values: Sequence[Value]) -> Value:
    return values[0]


def _normalize(call: LayerCall, values: Sequence[Levels | Pending]) -> Pending:
    """Batch norm: gamma * (x - mean) / sqrt(variance + epsilon) + beta, folded in float64."""
    layer = inner_layer(call.layer)
    factor = 1 / np.sqrt(_float64(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        factor = factor * _float64(layer.gamma)
    shift = -_float64(layer.moving_mean) * factor
    if layer.center:
        shift = shift + _float64(layer.beta)
    return scaled(values[0], factor, shift)


def _rectify(call: LayerCall, values: Sequence[Value]) -> Value:
    limit = relu_limit(inner_layer(call.layer))
    assert limit is not None, call.name
    return rectified(values[0], limit)


def _move(call: LayerCall, values: Sequence[Levels]) -> Levels:
    """Lets Keras move levels: every result is one of them, or 0, so float32 holds them exactly."""
    (levels,) = values
    tensors = {call.inputs[0]: levels.integers.astype(np.float32)}
    result = call.invoke(inner_layer(call.layer), tensors)
    integers: Integers = np.asarray(result, np.float32).astype(np.int32)
    return Levels(integers, levels.scale, levels.grid, levels.name)


def _concatenate(call: LayerCall, values: Sequence[Value]) -> Joined:
    return Joined(tuple(values), inner_layer(call.layer).axis)


def _add(call: LayerCall, values: Sequence[Levels]) -> Pending:
    return Pending(tuple((levels.integers, levels.scale) for levels in values))


def _subtract(call: LayerCall, values: Sequence[Levels]) -> Pending:
    first, second = values
    return Pending(((first.integers, first.scale), (-second.integers, second.scale)))


def _maximum(call: LayerCall, values: Sequence[Levels]) -> Pending:
    return Pending((), offset=np.maximum(*map(real, values)))


def _minimum(call: LayerCall, values: Sequence[Levels]) -> Pending:
    return Pending((), offset=np.minimum(*map(real, values)))


def _multiply(call: LayerCall, values: Sequence[Levels]) -> Pending:
    first, second = values
    return Pending(((first.integers * second.integers, first.scale * second.scale),))


def _apply(call: LayerCall, values: Sequence[Levels]) -> Pending:
    """Lets Keras apply a function to each level's value, in float32 as in the model."""
    (levels,) = values
    tensors = {call.inputs[0]: real(levels).astype(np.float32)}
    return Pending((), offset=_float64(call.invoke(inner_layer(call.layer), tensors)))


def _average(call: LayerCall, values: Sequence[Levels]) -> Pending:
    layer = inner_layer(call.layer)
    (levels,) = values
    return mean_over_windows(
        levels.integers, levels.scale, layer.pool_size, layer.strides, layer.padding
    )


def _interpolate(call: LayerCall, values: Sequence[Levels]) -> Pending:
    (levels,) = values
    return interpolated(levels.integers, levels.scale, inner_layer(call.layer).size)


def _average_all(call: LayerCall, values: Sequence[Levels]) -> Pending:
    (levels,) = values
    keepdims = inner_layer(call.layer).keepdims
    return mean_over_space(levels.integers, levels.scale, keepdims)


def _float64(variable: Any) -> Reals:
    return np.asarray(variable, np.float64)


_BY_KIND: dict[Kind, Rule] = {
    Kind.BATCH_NORM: _normalize,
    Kind.RELU: _rectify,
    Kind.PASS_THROUGH: _move,
    Kind.CONCATENATE: _concatenate,
}
_BY_FUNCTION: dict[str, Rule] = {
    "Add": _add,
    "AveragePooling1D": _average,
    "AveragePooling2D": _average,
    "GlobalAveragePooling1D": _average_all,
    "GlobalAveragePooling2D": _average_all,
    "GlobalAveragePooling3D": _average_all,
    "Maximum": _maximum,
    "Minimum": _minimum,
    "Multiply": _multiply,
    "PReLU": _apply,
    "Subtract": _subtract,
    "UpSampling2D": _interpolate,
}
SIMULATED_LAYERS = (
    "BatchNormalization",
    "Concatenate",
    "ReLU",
    "softmax and sigmoid at the end",
    "functions of each value by itself (sigmoid, swish, LeakyReLU, x + 3, ...)",
    "Rescaling and Normalization at the start",
    "what moves values (max pooling, padding, reshapes, ...)",
    *_BY_FUNCTION,
)
"""What this module runs, for people."""
