"""Layers with kernels, as matrix products on the systolic array."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wrpn_tf import accelerator
from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import LayerCall
from wrpn_tf.quantization import inner_layer, weight_quantizers
from wrpn_tf.quantization.quantize_registry import activation_name, fused_relu_limit
from wrpn_tf.simulation.report import LayerRecord
from wrpn_tf.simulation.values import Integers, Levels, Pending, Value, rectified


def _on_sequences(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of images as one of sequences, which are images of one row."""

    def run(q: Integers, n: Any, **settings: Any) -> tuple[Integers, accelerator.Trace]:
        accumulators, trace = function(q[:, np.newaxis], np.asarray(n)[np.newaxis], **settings)
        return accumulators[:, 0], trace

    return run


_FUNCTIONS = {
    "Conv1D": _on_sequences(accelerator.conv2d),
    "Conv1DTranspose": _on_sequences(accelerator.conv2d_transpose),
    "Conv2D": accelerator.conv2d,
    "Conv2DTranspose": accelerator.conv2d_transpose,
    "Dense": accelerator.dense,
    "DepthwiseConv1D": _on_sequences(accelerator.depthwise_conv2d),
    "DepthwiseConv2D": accelerator.depthwise_conv2d,
}
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose")
_VALUES_AT_ONCE = 2**22  # in windows that are written out: fits a processor's caches
KERNEL_LAYERS = tuple(_FUNCTIONS)
"""Classes of the layers that `multiply` runs."""


def multiply(
    call: LayerCall, levels: Levels, array: accelerator.SystolicArray, name: str
) -> tuple[Value, LayerRecord]:
    """Runs a layer with a kernel on levels.

    Args:
        call: Of a quantized layer for which `can_multiply` holds.
        levels: The layer's input.
        array: The accelerator.
        name: Of the call.

    Returns:
        The layer's output before its rounding, real = levels.scale * step * accumulator + bias and
        the layer's ReLU; and what it cost.

    Raises:
        OverflowError: If an accumulator does not fit 32 bits; the message begins with the name.
    """
    layer = inner_layer(call.layer)
    ((variable, quantizer),) = weight_quantizers(call.layer).values()
    accumulators, trace = _FUNCTIONS[keras_class(layer)](
        levels.integers,
        quantizer.to_int(variable),
        num_bits=quantizer.num_bits,
        array=array,
        low=levels.grid.low,
        name=f"layer {name!r}",
        **_settings(layer, levels.integers.shape[-1]),
    )
    steps = np.asarray(quantizer.scale(variable), np.float64).reshape(-1)
    bias = np.asarray(layer.bias, np.float64) if layer.use_bias else 0.0
    value: Value = Pending(((accumulators, levels.scale * steps),), offset=bias)
    limit = fused_relu_limit(layer)
    if limit is not None:
        value = rectified(value, limit)
    return value, LayerRecord(name, quantizer.num_bits, trace)


def can_multiply(layer: Any) -> bool:
    """Returns whether a layer, without its wrapper, is one that `multiply` runs."""
    if keras_class(layer) in _TRANSPOSED and not _is_plain(layer):
        return False
    is_linear = activation_name(layer) == "linear" or fused_relu_limit(layer) is not None
    return keras_class(layer) in KERNEL_LAYERS and is_linear


def _is_plain(layer: Any) -> bool:
    """Whether a transposed convolution is neither dilated nor padded by hand."""
    return layer.output_padding is None and set(layer.dilation_rate) == {1}


def _settings(layer: Any, channels: int) -> dict[str, Any]:
    """A convolution's own arguments for the accelerator."""
    if keras_class(layer) == "Dense":
        return {}
    settings = {
        "strides": _rows_and_columns(layer.strides),
        "padding": layer.padding,
    }
    if keras_class(layer) in _TRANSPOSED:
        return settings
    settings["dilation"] = _rows_and_columns(layer.dilation_rate)
    settings["max_rows"] = max(1, _VALUES_AT_ONCE // (math.prod(layer.kernel_size) * channels))
    if keras_class(layer) in ("Conv1D", "Conv2D"):
        settings["groups"] = layer.groups
    return settings


def _rows_and_columns(values: Sequence[int]) -> tuple[int, ...]:
    """A size along each axis of space, where a sequence is an image of one row."""
    return (1, *values)[-2:]
