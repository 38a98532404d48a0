"""Quantizes a prepared Keras 3 model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wrpn_tf.keras_flavor import clone_layer
from wrpn_tf.model_graph import LayerCall, ModelGraph, copy_weights, rebuild
from wrpn_tf.quantization.layer_settings import QuantizationRules
from wrpn_tf.quantization.quantize_wrapper import QuantizeLayer, QuantizeWrapper
from wrpn_tf.quantization.quantized_layers import inner_layer
from wrpn_tf.quantization.quantizer_plan import plan_quantizers


def apply_rules(graph: ModelGraph, rules: QuantizationRules, origin: Mapping[str, str]) -> Any:
    """Returns the quantized copy of a prepared Keras 3 model, with copies of its weights.

    Args:
        graph: The prepared model's graph.
        rules: What is asked for.
        origin: Path in the prepared model -> path in the user's model.
    """
    plan = plan_quantizers(graph, rules.settings(graph, origin))

    def make_layer(call: LayerCall) -> Any:
        layer = clone_layer(call.layer)
        config = plan.configs.get(call.path)
        return layer if config is None else QuantizeWrapper(layer, config)

    def insert(key: int, tensor: Any) -> Any:
        if key not in plan.inserted:
            return tensor
        return QuantizeLayer(plan.inserted[key], name=plan.names[key])(tensor)

    model, layers = rebuild(graph, make_layer, insert)
    copy_weights(graph, {path: inner_layer(layer) for path, layer in layers.items()})
    return model
