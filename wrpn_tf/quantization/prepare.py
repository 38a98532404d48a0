"""Brings a float model into the form that quantizers are placed in: flat, one rounding per layer.

Nested models are flattened; a separable convolution becomes a depthwise and a pointwise one, since
the integer graph rounds between them; a kernel layer's activation other than a ReLU becomes a layer
of its own, since the values before it are rounded; a sum, product or maximum of many becomes a
chain of those of two, as integer kernels take no more; an average becomes a sum that is divided, a
scaled sum (InceptionResNetV2's) a product and a sum; a split becomes slices; an operation that
layers compute, such as a mean over height and width, becomes these.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

from wrpn_tf.keras_flavor import KERAS, clone_layer, keras_class
from wrpn_tf.model_graph import LayerCall, ModelGraph, OnTensors, rebuild
from wrpn_tf.quantization.operation_layers import layers_for
from wrpn_tf.quantization.quantize_registry import (
    SEPARABLE_LAYERS,
    activation_name,
    function_name,
    has_separate_activation,
)

_PAIRED_LAYERS = ("Add", "Maximum", "Minimum", "Multiply")


def prepare(graph: ModelGraph) -> tuple[Any, dict[str, str]]:
    """Returns the prepared float model, with copies of the weights, and its layers' original paths.

    Args:
        graph: The graph of the user's model, which stays as it is.

    Returns:
        The model, and a dictionary: name of a layer of the prepared model -> path of the layer it
        comes from.
    """
    origin: dict[str, str] = {}

    def make_layer(call: LayerCall) -> Any:
        rewrite = _rewrite(call)
        if rewrite is not None:
            return (OnTensors(rewrite(call, graph, origin)),)
        operation = layers_for(call, graph)
        parts = operation or split_call(call, graph)
        origin.update({part.name: call.path for part in parts})
        first, *rest = parts
        return (OnTensors(first), *rest) if operation else parts

    model, layers = rebuild(graph, make_layer)
    for path, source in graph.layers().items():
        _copy_weights(source, layers[path])
    return model, origin


def _rewrite(call: LayerCall) -> _Rewrite | None:
    """What makes the function that does what a call does, of a layer for which others stand."""
    if _cut_axes(call):
        return _cut
    name = keras_class(call.layer)
    if name in _PAIRED_LAYERS and len(call.inputs) > 2:
        return _in_pairs
    is_own = name == type(call.layer).__name__  # no user's class derived of it
    return _REWRITES.get(name) if is_own else None


def _cut_axes(call: LayerCall) -> list[int]:
    """The axis along which a call of `split` cuts; none if it is no such call, or cuts nothing."""
    if function_name(call.layer) != "Split":
        return []
    sizes = zip(call.input_shapes[0], call.output_shapes[0], strict=True)
    return [axis for axis, (whole, part) in enumerate(sizes) if whole != part]


def _cut(call: LayerCall, graph: ModelGraph, origin: dict[str, str]) -> Callable[[Any], Any]:
    """Does by slices what a call of `split` does; its output shapes tell where it cuts."""
    (axis,) = _cut_axes(call)
    ends = [0, *itertools.accumulate(shape[axis] or 0 for shape in call.output_shapes)]
    before = (slice(None),) * axis

    def cut(value: Any) -> list[Any]:
        pieces = [value[(*before, slice(*pair))] for pair in itertools.pairwise(ends)]
        for index, piece in enumerate(pieces):
            _name_operation(piece, f"{call.name}_part{index}", call, graph, origin)
        return pieces

    return cut


def _in_pairs(call: LayerCall, graph: ModelGraph, origin: dict[str, str]) -> Callable[[Any], Any]:
    """Combines tensors two by two, from the first on, as Keras does in one layer."""
    names = [f"{call.name}_first{n}" for n in range(2, len(call.inputs))]
    layers = [clone_layer(call.layer, name=name) for name in (*names, call.name)]
    origin.update({layer.name: call.path for layer in layers})
    return functools.partial(_combine, layers)


def _average(call: LayerCall, graph: ModelGraph, origin: dict[str, str]) -> Callable[[Any], Any]:
    """Divides the sum of tensors."""
    count, make = len(call.inputs), graph.flavor.layers.Add
    dtype = call.layer.get_config()["dtype"]
    layers = [make(name=f"{call.name}_sum{n}", dtype=dtype) for n in range(2, count + 1)]
    origin.update({layer.name: call.path for layer in layers})

    def average(values: Sequence[Any]) -> Any:
        result = _combine(layers, values) * (1 / count)
        _name_operation(result, call.name, call, graph, origin)
        return result

    return average


def _scaled_sum(call: LayerCall, graph: ModelGraph, origin: dict[str, str]) -> Callable[[Any], Any]:
    """Adds a tensor and a multiple of another one, as InceptionResNetV2's blocks do."""
    add = graph.flavor.layers.Add(name=call.name, dtype=call.layer.get_config()["dtype"])
    origin[call.name] = call.path

    def scaled_sum(values: Sequence[Any]) -> Any:
        first, second = values
        scaled = second * call.layer.scale
        _name_operation(scaled, f"{call.name}_scaled", call, graph, origin)
        return add([first, scaled])

    return scaled_sum


def _combine(layers: Sequence[Any], values: Sequence[Any]) -> Any:
    """Applies each layer to what those before it made, and the next tensor."""
    result, *others = values
    for layer, value in zip(layers, others, strict=True):
        result = layer([result, value])
    return result


def _name_operation(
    result: Any, name: str, call: LayerCall, graph: ModelGraph, origin: dict[str, str]
) -> None:
    """Names the operation that made a tensor after the call of the model that it is a part of."""
    operation = result._keras_history[0]
    if graph.flavor is KERAS:  # Its own name may be one of a loaded model's.
        others = itertools.count(1)  # of a layer that is called again
        stem = name
        while name in origin:
            name = f"{stem}_{next(others)}"
        operation.name = name
    origin[operation.name] = call.path


_Rewrite = Callable[[LayerCall, ModelGraph, dict[str, str]], Callable[[Any], Any]]
_REWRITES: dict[str, _Rewrite] = {"Average": _average, "CustomScaleLayer": _scaled_sum}


def split_call(call: LayerCall, graph: ModelGraph) -> tuple[Any, ...]:
    """Returns the unbuilt layers that stand for one layer of a model, in the order they apply."""
    layer = call.layer
    if keras_class(layer) in SEPARABLE_LAYERS:
        return _split_separable(call, graph)
    if not has_separate_activation(layer):
        return (clone_layer(layer, name=call.name),)
    # Of the values behind the activation; layers without one may have no entry for it.
    regularizer = {} if layer.activity_regularizer is None else {"activity_regularizer": None}
    return (
        clone_layer(layer, name=call.name, activation="linear", **regularizer),
        _activation_layer(call, graph),
    )


def _activation_layer(call: LayerCall, graph: ModelGraph) -> Any:
    layer = call.layer
    return graph.flavor.layers.Activation(
        layer.activation,
        name=_part_name(call, activation_name(layer), graph),
        dtype=layer.get_config()["dtype"],
        activity_regularizer=layer.activity_regularizer,
    )


def _part_name(call: LayerCall, suffix: str, graph: ModelGraph) -> str:
    """A name for a part of a layer, which no other layer has; a function's may be `<lambda>`."""
    stem = name = f"{call.name}_{re.sub('[^A-Za-z0-9_]', '', suffix)}"
    taken, others = {each.name for each in graph.calls}, itertools.count(1)
    while name in taken:
        name = f"{stem}_{next(others)}"
    return name


def _split_separable(call: LayerCall, graph: ModelGraph) -> tuple[Any, ...]:
    config = call.layer.get_config()
    rank = int(keras_class(call.layer)[-2])
    layers = graph.flavor.layers
    shared = {"data_format": config["data_format"], "dtype": config["dtype"]}
    depthwise = getattr(layers, f"DepthwiseConv{rank}D")(
        kernel_size=config["kernel_size"],
        strides=config["strides"],
        padding=config["padding"],
        depth_multiplier=config["depth_multiplier"],
        dilation_rate=config["dilation_rate"],
        use_bias=False,
        depthwise_regularizer=config["depthwise_regularizer"],
        depthwise_constraint=config["depthwise_constraint"],
        name=_part_name(call, "depthwise", graph),
        **shared,
    )
    fused = activation_name(call.layer) in ("linear", "relu", "relu6")
    pointwise = getattr(layers, f"Conv{rank}D")(
        filters=config["filters"],
        kernel_size=1,
        use_bias=config["use_bias"],
        activation=config["activation"] if fused else None,
        kernel_regularizer=config["pointwise_regularizer"],
        kernel_constraint=config["pointwise_constraint"],
        bias_regularizer=config["bias_regularizer"],
        bias_constraint=config["bias_constraint"],
        activity_regularizer=config["activity_regularizer"] if fused else None,
        name=call.name,
        **shared,
    )
    tail = () if fused else (_activation_layer(call, graph),)
    for part in (depthwise, pointwise, *tail):
        part.trainable = call.layer.trainable
    return (depthwise, pointwise, *tail)


def _copy_weights(source: Any, parts: tuple[Any, ...]) -> None:
    values = source.get_weights() if getattr(source, "weights", None) else []
    for part in parts:
        count = len(getattr(part, "weights", ()))
        if count:
            part.set_weights(values[:count])
            values = values[count:]
