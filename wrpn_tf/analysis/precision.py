"""The bits of a model's weights and tensors, asked from its quantizers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from wrpn_tf.model_graph import LayerCall, ModelGraph
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
    """Returns the bits of every tensor of a graph, by its key; see `propagate_bits`."""
    rounded: dict[int, int] = {}
    for call in graph.calls:
        quantizer = _output_quantizer(call.layer)
        if quantizer is not None:
            rounded.update(dict.fromkeys(call.outputs, quantizer.num_bits))
    return propagate_bits(graph, rounded)


def propagate_bits(graph: ModelGraph, rounded: Mapping[int, int]) -> dict[int, int]:
    """Returns the bits of every tensor of a graph, from those that are rounded.

    Layers that only move or drop values (padding, max pooling, reshaping, concatenation, dropout)
    pass on the most bits of their inputs; every other layer computes float values, 32 bits.

    Args:
        graph: The model's graph.
        rounded: Tensor key -> bits, where a quantizer stands.
    """
    bits = {key: rounded.get(key, FLOAT_BITS) for key in graph.inputs}
    for call in graph.calls:
        kept = _kept_bits(call, bits)
        bits.update({key: rounded.get(key, kept) for key in call.outputs})
    return bits


def _config(layer: Any) -> Any:
    """The quantize config of a quantize wrapper; None for any other layer."""
    return getattr(layer, "quantize_config", None) if is_quantized(layer) else None


def _kept_bits(call: LayerCall, bits: Mapping[int, int]) -> int:
    """The bits of what a call makes if nothing rounds it."""
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
