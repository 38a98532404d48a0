"""`apply_regions` and `drop_regions`: region precision into a quantized network, and out of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from wrpn_tf import keras_flavor
from wrpn_tf.model_graph import LayerCall, ModelGraph, model_graph, rebuild
from wrpn_tf.quantization.quantize_registry import Kind, kind_of
from wrpn_tf.quantization.quantized_layers import has_regions, inner_layer
from wrpn_tf.quantization.region_graph import network_graph
from wrpn_tf.quantization.region_planner import Regions, plan_regions, reads_regions, source_of
from wrpn_tf.regions import RegionPrecision
from wrpn_tf.regions.region_precision import check_region_precision


def apply_regions(model: Any, region_precision: RegionPrecision) -> Any:
    """Returns a quantized model that computes unimportant parts of its images at fewer bits.

    What convolutions read is rounded once more where it is unimportant, to a coarser grid nested in
    the layer's own; sums of branches keep the layer's bits, and so do dense layers. The result
    shares layers and weights with `model`, trained or not: training one trains both. Where all is
    important it computes exactly what `model` does. Where the model begins with image augmentation
    (`RandomFlip`, ...), the parts are those of the augmented images.

    Args:
        model: A model of either Keras from `quantize_model` or `widen_and_quantize`, with one input
            [batch, height, width, 1 or 3].
        region_precision: What is important, and the bits of the rest.

    Returns:
        A Functional model of the same Keras. It trains, saves and loads as any other.

    Raises:
        TypeError: If `model` is no Keras model, or `region_precision` no `RegionPrecision`.
        ValueError: If the model has regions already, is not quantized, has no image as input or
            cannot reach the target, or if the metric returns no map of finite values.

    Source: "A Case for Dynamic Activation Quantization in CNNs", EMC2 2018; the rounding and the
    way of the maps through the network are this project's.
    """
    if region_precision is None:
        raise TypeError("`region_precision` must be a wrpn_tf.RegionPrecision, got None.")
    check_region_precision(region_precision)
    graph = model_graph(model)
    if model_has_regions(graph):
        raise ValueError(
            f"`model` must have no regions yet, got {graph.model.name!r}, which has: drop them "
            "first with `wrpn_tf.drop_regions`."
        )
    return _Insertion(graph, plan_regions(graph, region_precision), region_precision).model()


def drop_regions(model: Any) -> Any:
    """Returns the quantized model without regions: full precision everywhere, the same weights.

    Args:
        model: A model from `apply_regions`, or with `region_precision`.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If it has no regions.
    """
    graph = model_graph(model)
    if not model_has_regions(graph):
        raise ValueError(f"`model` must have regions, got {graph.model.name!r} without.")

    plain, _ = rebuild(network_graph(graph), lambda call: call.layer)
    return plain


def model_has_regions(graph: ModelGraph) -> bool:
    """Returns whether a network has region precision."""
    return any(has_regions(call.layer) for call in graph.calls)


class _Insertion:
    """Rebuilds a quantized model with region layers among its own."""

    def __init__(self, graph: ModelGraph, regions: Regions, precision: RegionPrecision):
        if graph.flavor is keras_flavor.KERAS:
            from wrpn_tf.quantization import keras_region_layers as layers
        else:
            from wrpn_tf.quantization import tf_keras_region_layers as layers
        self._layers = layers
        self._graph = graph
        self._regions = regions
        self._precision = precision
        self._ranks: list[Any] = []
        self._coarse: dict[int, Any] = {}  # tensor key -> what convolutions read instead of it
        self._makers = {tensor.call: key for key, tensor in regions.tensors.items()}

    def model(self) -> Any:
        """Returns the model."""
        model, _ = rebuild(self._graph, self._make_layer, self._after, self._apply)
        return model

    def _after(self, key: int, tensor: Any) -> Any:
        if key == self._regions.image:
            precision = self._precision
            importance = self._layers.Importance(
                precision.metric, precision.value_range, name="region_importance"
            )
            rule = precision.rule
            maps = self._layers.RegionMap(
                (rule.kind, rule.values), self._regions.plan, name="region_map"
            )
            *self._ranks, _ = maps(importance(tensor))
        return tensor

    def _make_layer(self, call: LayerCall) -> Any:
        key = next((k for k in call.outputs if k in self._regions.tensors), None)
        if key is None:
            return call.layer
        return self._layers.RegionWrapper(call.layer, self._regions.tensors[key].bits)

    def _apply(self, call: LayerCall, layer: Any, tensors: Mapping[int, Any]) -> Any:
        (*_, key) = call.outputs
        read = {**tensors, **self._coarse} if reads_regions(call) else tensors
        if call in self._makers:
            ranks = self._ranks[self._regions.tensors[key].map_index]
            fine, self._coarse[key] = call.invoke(functools.partial(layer, ranks=ranks), read)
            return fine
        if reads_regions(call):
            return call.invoke(layer, read)
        if source_of(key, self._graph) not in self._coarse:
            return call.invoke(layer, tensors)
        self._coarse[key] = call.invoke(layer, {**tensors, **self._coarse})
        return call.invoke(layer, tensors) if self._reads_fine(key) else self._coarse[key]

    def _reads_fine(self, key: int) -> bool:
        """Whether anything but a convolution reads a tensor, if need be behind what moves it."""
        if key in self._graph.outputs:
            return True
        return any(
            any(self._reads_fine(output) for output in call.outputs)
            if kind_of(inner_layer(call.layer)) is Kind.PASS_THROUGH
            else not reads_regions(call)
            for call in self._graph.consumers[key]
        )
