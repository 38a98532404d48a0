"""The bits that `quantize_model` would give a model, without building the quantized one."""

from __future__ import annotations

import dataclasses
from typing import Any

from wrpn_tf.analysis.precision import FLOAT_BITS, propagate_bits
from wrpn_tf.analysis.profile import LayerProfile, ModelProfile
from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import LayerCall, ModelGraph, model_graph
from wrpn_tf.quantization.layer_settings import QuantizationRules
from wrpn_tf.quantization.operation_layers import layers_for
from wrpn_tf.quantization.prepare import split_call
from wrpn_tf.quantization.quantize_model import check_quantizable
from wrpn_tf.quantization.quantize_registry import (
    SEPARABLE_LAYERS,
    has_separate_activation,
    kernel_axes,
)
from wrpn_tf.quantization.quantizer_plan import plan_quantizers


@dataclasses.dataclass(frozen=True)
class PlannedBits:
    """The bits of a quantized model, in terms of the float model's graph.

    Attributes:
        tensors: Tensor key -> bits.
        kernels: For each call, in order: weight -> (bits of the activations it meets, its bits).
    """

    tensors: dict[int, int]
    kernels: tuple[dict[str, tuple[int, int]], ...]


class BitPlanner:
    """Says which bits `quantize_model` would give a float model; reads its graph once.

    Raises:
        TypeError, ValueError: As `quantize_model`, for the model.
    """

    def __init__(self, model: Any) -> None:
        source = model_graph(model)
        check_quantizable(source)
        self._calls = source.calls
        self._graph, self._parts = _prepare(source)
        self._origin = {
            part.path: call.path
            for call, parts in zip(source.calls, self._parts, strict=True)
            for part in parts
        }

    def bits(self, rules: QuantizationRules) -> PlannedBits:
        """Returns the bits that the arguments of `quantize_model` lead to.

        Raises:
            TypeError, ValueError: As `quantize_model`, for its arguments.
        """
        plan = plan_quantizers(self._graph, rules.settings(self._graph, self._origin))
        rounded = {key: quantizer.num_bits for key, quantizer in plan.inserted.items()}
        for call in self._graph.calls:
            config = plan.configs.get(call.path)
            if config is not None and config.output_quantizer is not None:
                rounded.update(dict.fromkeys(call.outputs, config.output_quantizer.num_bits))
        tensors = propagate_bits(self._graph, rounded)
        kernels: list[dict[str, tuple[int, int]]] = []
        for call, parts in zip(self._calls, self._parts, strict=True):
            kernels.append({})
            for part in parts:
                config = plan.configs.get(part.path)
                quantizers = config.weight_quantizers if config is not None else {}
                for name in kernel_axes(part.layer):
                    bits = quantizers[name].num_bits if name in quantizers else FLOAT_BITS
                    kernels[-1][_own_name(name, call, part)] = (tensors[part.inputs[0]], bits)
        return PlannedBits(tensors, tuple(kernels))


def apply_bits(profile: ModelProfile, planned: PlannedBits) -> ModelProfile:
    """Returns a float model's profile (or a widened one's) with the bits planned for that model."""
    weight_bits = {
        (layer.path, name): bits
        for layer, kernels in zip(profile.layers, planned.kernels, strict=True)
        for name, (_, bits) in kernels.items()
    }

    def change(layer: LayerProfile, kernels: dict[str, tuple[int, int]]) -> LayerProfile:
        weights = tuple(
            dataclasses.replace(w, num_bits=weight_bits.get((layer.path, w.name), w.num_bits))
            for w in layer.weights
        )
        inputs = tuple(planned.tensors[key] for key in layer.inputs)
        macs = []
        for mac in layer.macs:
            float_bits = (inputs[0], mac.num_bits_weight)
            activation, weight = kernels.get(mac.weight, float_bits)
            macs.append(
                dataclasses.replace(mac, num_bits_activation=activation, num_bits_weight=weight)
            )
        return dataclasses.replace(
            layer,
            weights=weights,
            macs=tuple(macs),
            num_bits_input=inputs,
            num_bits_output=tuple(planned.tensors[key] for key in layer.outputs),
        )

    pairs = zip(profile.layers, planned.kernels, strict=True)
    return profile.with_layers(change(layer, kernels) for layer, kernels in pairs)


def _prepare(source: ModelGraph) -> tuple[ModelGraph, list[list[LayerCall]]]:
    """Returns the graph of the model as `quantize_model` prepares it, and what each call becomes.

    Tensors of the source keep their keys; those between the parts of a layer get new ones.
    """
    shapes, dtypes = dict(source.shapes), dict(source.dtypes)
    layers: dict[str, tuple[Any, ...]] = {}
    parts_of_calls: list[list[LayerCall]] = []
    for call in source.calls:
        if call.path not in layers:
            layers[call.path] = _split(call, source)
        *inner, last = layers[call.path]
        inputs, parts = call.inputs, []
        for layer in inner:
            key = len(shapes)
            shapes[key] = tuple(layer.compute_output_shape(shapes[inputs[0]]))
            dtypes[key] = dtypes[call.outputs[0]]
            parts.append(_part(call, layer, inputs, (key,), shapes))
            inputs = (key,)
        parts_of_calls.append([*parts, _part(call, last, inputs, call.outputs, shapes)])
    calls = tuple(part for parts in parts_of_calls for part in parts)
    graph = dataclasses.replace(source, calls=calls, shapes=shapes, dtypes=dtypes)
    return graph, parts_of_calls


def _split(call: LayerCall, graph: ModelGraph) -> tuple[Any, ...]:
    """The layers that `quantize_model` puts in a layer's place, built: only then have they weights.

    A layer that stays one is the model's own.
    """
    operation = layers_for(call, graph)
    if operation:
        return operation
    is_separable = keras_class(call.layer) in SEPARABLE_LAYERS
    if not is_separable and not has_separate_activation(call.layer):
        return (call.layer,)
    parts = split_call(call, graph)
    shape = call.input_shapes[0]
    for part in parts:
        part.build(shape)
        shape = tuple(part.compute_output_shape(shape))
    return parts


def _part(
    call: LayerCall,
    layer: Any,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    shapes: dict[int, tuple[int | None, ...]],
) -> LayerCall:
    name = call.name if layer is call.layer else layer.name
    return dataclasses.replace(
        call,
        layer=layer,
        path=name,
        name=name,
        inputs=inputs,
        outputs=outputs,
        input_shapes=tuple(shapes[key] for key in inputs),
        output_shapes=tuple(shapes[key] for key in outputs),
    )


def _own_name(name: str, call: LayerCall, part: LayerCall) -> str:
    """The name in the float model of a kernel of a part of one of its layers."""
    if keras_class(call.layer) not in SEPARABLE_LAYERS:
        return name
    return "pointwise_kernel" if part.path == call.name else "depthwise_kernel"
