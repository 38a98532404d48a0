"""Follows the channels through a model's graph: which widths must agree, and which are fixed."""

from __future__ import annotations

from typing import Any

from wrpn_tf import keras_flavor
from wrpn_tf.model_graph import LayerCall, ModelGraph
from wrpn_tf.widening import channel_trace, layer_rules, tensor_rules

ChannelTrace = channel_trace.ChannelTrace

# Activations that look at all channels at once.
_MIXING_ACTIVATIONS = frozenset({"glu", "logsoftmax", "softmax", "sparsemax"})


def trace_channels(graph: ModelGraph) -> ChannelTrace:
    """Returns the channel groups of a model.

    The inputs' channels and the groups that reach an output are fixed. So is everything that meets
    a layer whose weights this package does not know, or one that mixes channels (softmax, sorting
    them into other shapes).
    """
    trace = ChannelTrace(graph)
    for call in graph.calls:
        _follow(trace, call)
    for key in graph.outputs:
        trace.freeze(trace.layouts[key], "it reaches the model's output")
    return trace


def _follow(trace: ChannelTrace, call: LayerCall) -> None:
    trace.layouts.update(dict.fromkeys(call.outputs))
    if not isinstance(call.layer, trace.graph.flavor.layers.Layer):
        rule = tensor_rules.OPERATION_RULES.get(_operation_name(type(call.layer).__name__))
        (rule or tensor_rules.blocking)(trace, call)
    elif type(call.layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
        symbol = call.layer.symbol.split(".")[-1]
        rule = tensor_rules.OPERATION_RULES.get(_operation_name(symbol))
        (rule or tensor_rules.blocking)(trace, call)
    else:
        _follow_layer(trace, call)


def _operation_name(name: str) -> str:
    return name.lower().replace("_", "")


def _follow_layer(trace: ChannelTrace, call: LayerCall) -> None:
    layer = call.layer
    name, is_own = _keras_name(layer, trace.graph.flavor)
    is_known = is_own and _has_known_activation(layer)
    if layer.weights:
        rule = layer_rules.WEIGHTED_RULES.get(name)
        if rule is None:
            reason = f"layer {call.path!r} ({type(layer).__name__}) has weights unknown to wrpn_tf"
            trace.freeze_inputs(call, reason)
            return
    else:
        rule = tensor_rules.WEIGHTLESS_RULES.get(name, tensor_rules.elementwise)
        is_known = is_known and (
            name in tensor_rules.CHANNELWISE_LAYERS or name in tensor_rules.WEIGHTLESS_RULES
        )
    rule(trace, call)
    if _activation_name(layer) in _MIXING_ACTIVATIONS:
        for key in call.outputs:
            trace.freeze(trace.layouts[key], f"layer {call.path!r} takes a softmax over it")
    if not is_known:
        trace.guessed.append(call)


def _keras_name(layer: Any, flavor: keras_flavor.KerasFlavor) -> tuple[str, bool]:
    """The nearest class of Keras that is known, by name, and whether it is the layer's own."""
    known = {*layer_rules.WEIGHTED_RULES, *tensor_rules.WEIGHTLESS_RULES}
    known |= tensor_rules.CHANNELWISE_LAYERS
    for base in type(layer).__mro__:
        if base.__module__.partition(".")[0] == flavor.name and base.__name__ in known:
            return base.__name__, base is type(layer)
    return type(layer).__name__, False


def _has_known_activation(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    home = getattr(activation, "__module__", None) or type(activation).__module__
    return activation is None or home.partition(".")[0] in ("keras", "tf_keras", "tensorflow")


def _activation_name(layer: Any) -> str:
    """The name of a layer's activation; empty if it has none."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return ""
    return _operation_name(getattr(activation, "__name__", type(activation).__name__))
