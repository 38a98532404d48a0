"""The bits of a model's weights and tensors, asked from its quantizers."""

from __future__ import annotations

import math
from typing import Any

from wrpn_tf.keras_flavor import LayerCall, ModelGraph
from wrpn_tf.quantization import inner_layer, is_quantized, weight_quantizers
from wrpn_tf.quantization.quantize_registry import Kind, kind_of, relu_limit, weight_name

FLOAT_BITS = 32


def is_quantize_layer(layer: Any) -> bool:
    """Returns whether a layer does nothing but round a tensor."""
    return is_quantized(layer) and _config(layer) is None


def weights_and_bits(layer: Any) -> list[tuple[str, tuple[int, ...], int]]:
    """Returns name, shape and bits of a layer's weights, without those of its quantizers.

    Args:
        layer: A layer or quantize wrapper of either Keras, or an operation.
    """
    if is_quantize_layer(layer):
        return []
    inner = inner_layer(layer)
    pairs = weight_quantizers(layer).values()
    quantized = {id(variable): quantizer.num_bits for variable, quantizer in pairs}
    variables = {id(variable): variable for variable, _ in pairs}
    variables.update({id(v): v for v in getattr(inner, "weights", ())})
    return [
        (weight_name(variable), tuple(variable.shape), quantized.get(key, FLOAT_BITS))
        for key, variable in variables.items()
    ]


def tensor_bits(graph: ModelGraph) -> dict[int, int]:
    """Returns the bits of every tensor of a graph, by its key.

    A tensor has the bits of the quantizer that made it. Layers that only move or drop values
    (padding, max pooling, reshaping, concatenation, dropout) pass on the most bits of their inputs;
    every other layer computes float values, 32 bits.
    """
    bits = dict.fromkeys(graph.inputs, FLOAT_BITS)
    for call in graph.calls:
        bits.update(dict.fromkeys(call.outputs, _output_bits(call, bits)))
    return bits


def _config(layer: Any) -> Any:
    """The quantize config of a quantize wrapper; None for any other layer."""
    return getattr(layer, "quantize_config", None) if is_quantized(layer) else None


def _output_bits(call: LayerCall, bits: dict[int, int]) -> int:
    quantizer = _output_quantizer(call.layer)
    if quantizer is not None:
        return quantizer.num_bits
    layer = inner_layer(call.layer)
    keeps = kind_of(layer) in (Kind.PASS_THROUGH, Kind.CONCATENATE)
    if (keeps or relu_limit(layer) == math.inf) and call.inputs:
        return max(bits[key] for key in call.inputs)
    return FLOAT_BITS


def _output_quantizer(layer: Any) -> Any:
    """The quantizer of a layer's output, or of the activation in it; None without one."""
    config = _config(layer)
    if config is None:
        return layer.quantizer if is_quantize_layer(layer) else None
    outputs = config.get_output_quantizers(layer.layer)
    fused = [quantizer for _, quantizer in config.get_activations_and_quantizers(layer.layer)]
    return (outputs + fused + [None])[0]
