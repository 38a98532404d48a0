"""A network with regions without them: the calls of the quantized layers alone."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from wrpn_tf.model_graph import LayerCall, ModelGraph
from wrpn_tf.quantization.quantize_registry import Kind, kind_of
from wrpn_tf.quantization.quantized_layers import has_regions, inner_layer, is_region_map
from wrpn_tf.quantization.region_reading import region_layers
from wrpn_tf.regions import FixedRead, RegionRead


def network_graph(graph: ModelGraph) -> ModelGraph:
    """Returns the graph of the same network at full precision everywhere.

    The layers that make maps are left out, region wrappers are their layers, and what convolutions
    read by region is the tensor that it is rounded from. Any other graph stays as it is.
    """
    if not any(has_regions(call.layer) for call in graph.calls):
        return graph
    full: dict[int, int] = {}  # key of a tensor -> of the same at full precision
    seen: dict[tuple[Any, ...], int] = {}
    calls: list[LayerCall] = []
    for call in graph.calls:
        if is_region_map(call.layer):
            continue
        plain = _on_full_precision(plain_call(call) if has_regions(call.layer) else call, full)
        # What moves values was applied to both precisions.
        first = seen.setdefault((plain.layer, *plain.inputs), plain.outputs[0])
        full.update(dict.fromkeys(call.outputs, first) if call.outputs[0] != first else {})
        if has_regions(call.layer):
            full[call.outputs[1]] = first
        if first == plain.outputs[0]:
            calls.append(plain)
    outputs = tuple(full.get(key, key) for key in graph.outputs)
    return dataclasses.replace(graph, calls=tuple(calls), outputs=outputs)


def kernel_reads(graph: ModelGraph) -> dict[int, RegionRead | FixedRead]:
    """Returns what each layer with a kernel reads in a network with regions.

    Args:
        graph: Of a model of either Keras.

    Returns:
        Key of the layer's output, as in `network_graph(graph)` -> what it reads, in the order of
        computation; empty for a model without regions.
    """
    if not any(has_regions(call.layer) for call in graph.calls):
        return {}
    plan = region_layers(graph.model)[1].plan
    # A layer that is called again reads again, perhaps not by region.
    by_region, fixed = _by_name(plan.reads), _by_name(plan.fixed)
    coarse: set[int] = set()
    found = {}
    for call in graph.calls:
        plain = plain_call(call) if has_regions(call.layer) else call
        kind = kind_of(inner_layer(call.layer))
        reads_coarse = bool(coarse.intersection(call.inputs))
        if kind is Kind.KERNEL:
            found[call.outputs[0]] = (by_region if reads_coarse else fixed)[plain.name].popleft()
        elif kind is Kind.PASS_THROUGH and reads_coarse:
            coarse.update(call.outputs)
        coarse.update(call.outputs[1:] if has_regions(call.layer) else ())
    return found


def _by_name(reads: Sequence[Any]) -> dict[str, collections.deque[Any]]:
    result: dict[str, collections.deque[Any]] = collections.defaultdict(collections.deque)
    for read in reads:
        result[read.name].append(read)
    return result


def plain_call(call: LayerCall) -> LayerCall:
    """Returns the call of the quantized layer that a region wrapper calls, without ranks."""
    layer = call.layer.layer
    ranks = ranks_key(call)
    inputs = tuple(key for key in call.inputs if key != ranks)
    shapes = dict(zip(call.inputs, call.input_shapes, strict=True))

    def invoke(other: Any, tensors: Mapping[int, Any]) -> Any:
        def without_ranks(*args: Any, ranks: Any = None, **kwargs: Any) -> Any:
            return other(*args, **kwargs)

        return call.invoke(without_ranks, {ranks: None, **tensors})

    return dataclasses.replace(
        call,
        layer=layer,
        path=call.path.replace(call.layer.name, layer.name),
        name=call.name.replace(call.layer.name, layer.name),
        inputs=inputs,
        outputs=call.outputs[:1],
        input_shapes=tuple(shapes[key] for key in inputs),
        output_shapes=call.output_shapes[:1],
        invoke=invoke,
    )


def ranks_key(call: LayerCall) -> int:
    """Returns the key of the ranks that a region wrapper is called with."""

    def ranks_of(*args: Any, ranks: int, **kwargs: Any) -> int:
        return ranks

    return int(call.invoke(ranks_of, {key: key for key in call.inputs}))


def _on_full_precision(call: LayerCall, full: Mapping[int, int]) -> LayerCall:
    """The call on the tensors at full precision."""
    if not full.keys() & set(call.inputs):
        return call

    def invoke(layer: Any, tensors: Mapping[int, Any]) -> Any:
        return call.invoke(layer, {key: tensors[full.get(key, key)] for key in call.inputs})

    return dataclasses.replace(
        call, inputs=tuple(full.get(key, key) for key in call.inputs), invoke=invoke
    )
