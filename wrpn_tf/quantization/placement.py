"""Where quantizers stand: wherever the integer graph rounds, training rounds.

In integer arithmetic a kernel, the batch norm behind it and the ReLU behind that are one operation,
which rounds once, at its end. So a chain of such layers gets one output quantizer, on its last
layer; each other layer whose results leave the grid (a sum, a mean, an activation) gets its own;
what only moves values (max pooling, padding, reshapes) gets none. A concatenation ends the chains
that it joins, but for those whose ReLU saturates where another's does not: on one grid with that
one, no integer operation could tell where.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from wrpn_tf.model_graph import LayerCall, ModelGraph
from wrpn_tf.quantization.quantize_registry import (
    Kind,
    function_name,
    fused_relu_limit,
    has_unit_range,
    is_elementwise,
    kind_of,
    probability_function,
    relu_limit,
)

_FOLLOWERS = {  # what continues the integer operation that a kind of layer begins
    Kind.KERNEL: (Kind.BATCH_NORM, Kind.RELU, Kind.CONCATENATE),
    Kind.BATCH_NORM: (Kind.RELU, Kind.CONCATENATE),
    Kind.ROUNDING: (Kind.RELU, Kind.CONCATENATE),
    Kind.FLOAT: (Kind.BATCH_NORM, Kind.RELU, Kind.CONCATENATE),
    Kind.RELU: (Kind.CONCATENATE,),
    Kind.PREPROCESSING: (Kind.RELU, Kind.CONCATENATE),  # as any rounding, behind a network's start
    Kind.CONCATENATE: (Kind.RELU,),
}
_WEIGHTLESS = (Kind.ROUNDING, Kind.PASS_THROUGH, Kind.RELU, Kind.PREPROCESSING)


@dataclasses.dataclass(frozen=True)
class Rounding:
    """What is known of a tensor that is rounded.

    Attributes:
        unsigned: No value is negative.
        limit: Upper bound of the values by construction (6 after ReLU6, 1 after a sigmoid), or
            infinity.
        variance: What batch norm makes of it: 1 behind a batch norm, sums add up; None where the
            scale of the values is unknown. A ReLU keeps it, as the variance of what it clips.
        is_input: The tensor is a model input, perhaps preprocessed.
        is_output: Only activations stand between the tensor and a model output, and no layer
            multiplies the tensor by weights.
        feeds: Paths of the kernel layers that multiply the tensor by their weights.
    """

    unsigned: bool = False
    limit: float = float("inf")
    variance: float | None = None
    is_input: bool = False
    is_output: bool = False
    feeds: frozenset[str] = frozenset()


def rounded_tensors(graph: ModelGraph) -> dict[int, Rounding]:
    """Returns the tensors of a float model that are rounded: tensor key -> what is known of it.

    Whole numbers, as the tokens that an embedding reads, are none of them.
    """
    chains = [_preprocessing_of(key, graph) for key in graph.inputs]
    inputs = {chain[-1] for chain in chains}
    raw = {key for chain in chains for key in chain[:-1]}
    known: dict[int, Rounding] = {key: Rounding() for key in graph.inputs}
    for call in graph.calls:
        for key in call.outputs:
            known[key] = _describe(call, graph, known)
    rounded = {}
    for key, dtype in graph.dtypes.items():
        if "float" not in dtype or key in raw:
            continue
        if key in inputs or (key in graph.producers and _rounds(key, graph, known)):
            feeds = frozenset(_fed_kernels(key, graph))
            rounded[key] = dataclasses.replace(
                known[key],
                is_input=key in inputs,
                is_output=not feeds and _leads_out(key, graph),
                feeds=feeds,
            )
    return rounded


def end_layers(graph: ModelGraph) -> tuple[set[str], set[str]]:
    """Returns the paths of the first and of the last kernel layers.

    No other kernel layer stands between the first ones and an input, nor any behind the last ones.
    """
    before, read = set(graph.inputs), set()
    first, last = set(), set()
    for call in graph.calls:
        if before.intersection(call.inputs):
            if kind_of(call.layer) is Kind.KERNEL:
                first.add(call.path)
            else:
                before.update(call.outputs)
    for call in reversed(graph.calls):
        is_kernel = kind_of(call.layer) is Kind.KERNEL
        is_read = not read.isdisjoint(call.outputs)
        if is_kernel and not is_read:
            last.add(call.path)
        if is_kernel or is_read:
            read.update(call.inputs)
    return first, last


def kernels_before(key: int, graph: ModelGraph) -> set[str]:
    """Returns the paths of the kernel layers that a tensor comes from, none other between."""
    kernels, wanted = set(), {key}
    for call in reversed(graph.calls):
        if not wanted.isdisjoint(call.outputs):
            if kind_of(call.layer) is Kind.KERNEL:
                kernels.add(call.path)
            else:
                wanted.update(call.inputs)
    return kernels


def _preprocessing_of(key: int, graph: ModelGraph) -> list[int]:
    """An input, and what its preprocessing makes of it alone, step by step; the last is rounded."""
    chain = [key]
    while (follower := _only_consumer(chain[-1], graph)) is not None:
        if kind_of(follower.layer) is not Kind.PREPROCESSING:
            break
        chain.append(follower.outputs[0])
    return chain


def _rounds(key: int, graph: ModelGraph, known: Mapping[int, Rounding]) -> bool:
    """Whether the integer graph rounds this layer's output."""
    call = graph.producers[key]
    kind = kind_of(call.layer)
    if kind is Kind.PASS_THROUGH or len(call.outputs) > 1:
        return False
    if probability_function(call.layer) is not None and key in graph.outputs:
        return False  # probabilities, computed from rounded logits
    if kind is Kind.KERNEL and fused_relu_limit(call.layer) is not None:
        kind = Kind.RELU  # so ends its operation, and a batch norm behind it is one of its own
    follower = _only_consumer(key, graph)
    if follower is None or kind_of(follower.layer) not in _FOLLOWERS[kind]:
        return True
    joins = kind is Kind.RELU and kind_of(follower.layer) is Kind.CONCATENATE
    return joins and any(known[other].limit > known[key].limit for other in follower.inputs)


def _only_consumer(key: int, graph: ModelGraph) -> LayerCall | None:
    """The one call that reads a tensor; None if there are several, or if it is an output."""
    consumers = graph.consumers[key]
    return consumers[0] if len(consumers) == 1 and key not in graph.outputs else None


def _describe(call: LayerCall, graph: ModelGraph, known: Mapping[int, Rounding]) -> Rounding:
    """What is known of a call's outputs, from what is known of its inputs."""
    kind = kind_of(call.layer)
    sources = [known[key] for key in call.inputs] or [Rounding()]
    if has_unit_range(call.layer):
        return Rounding(unsigned=True, limit=1.0)
    if kind is Kind.KERNEL:
        limit = fused_relu_limit(call.layer)
        return Rounding() if limit is None else Rounding(unsigned=True, limit=limit)
    if kind is Kind.BATCH_NORM:
        return Rounding(variance=1.0)
    if kind is Kind.RELU:
        limit = min(relu_limit(call.layer), sources[0].limit)
        return Rounding(unsigned=True, limit=limit, variance=sources[0].variance)
    if kind in (Kind.PASS_THROUGH, Kind.CONCATENATE):
        return Rounding(
            unsigned=all(s.unsigned for s in sources),
            limit=max(s.limit for s in sources),
            variance=_combined(max, sources),
        )
    if kind is Kind.ROUNDING and _keeps_range(call):
        return sources[0]
    return Rounding(
        unsigned=kind is Kind.ROUNDING and _keeps_sign(call, sources),
        variance=_combined(sum, sources) if _is_sum(call) else None,
    )


def _combined(combine: Callable[..., float], sources: list[Rounding]) -> float | None:
    """The combined variance of tensors, if that of each is known."""
    variances = [source.variance for source in sources]
    return None if None in variances else combine(variances)


def _is_sum(call: LayerCall) -> bool:
    """Whether a call adds tensors to each other (and not a constant to one)."""
    return len(call.inputs) > 1 and function_name(call.layer) in ("Add", "Subtract")


def _keeps_range(call: LayerCall) -> bool:
    """Average pooling over windows: no value outside the range of its input's, and of like size."""
    return type(call.layer).__name__.startswith("AveragePooling")


def _keeps_sign(call: LayerCall, sources: list[Rounding]) -> bool:
    """Whether a rounding layer maps values >= 0 to values >= 0."""
    if not all(source.unsigned for source in sources):
        return False
    if len(call.inputs) == 1 and is_elementwise(call.layer):
        values = np.linspace(0, 64, 1025, dtype=np.float32)
        column = values.reshape(-1, *(1 for _ in call.input_shapes[0][1:]))
        return bool(np.min(call.invoke(call.layer, {call.inputs[0]: column})) >= 0)
    keeps = ("Add", "Multiply", "Average", "Maximum", "Minimum", "GlobalAveragePooling")
    name = function_name(call.layer)
    is_merge = len(call.inputs) > 1 or "Pooling" in name
    return is_merge and name.startswith(keeps)


def _fed_kernels(key: int, graph: ModelGraph) -> set[str]:
    """Paths of the kernel layers that read a tensor, if need be behind layers that move values."""
    fed = set()
    for call in graph.consumers[key]:
        if kind_of(call.layer) is Kind.KERNEL:
            fed.add(call.path)
        elif kind_of(call.layer) is Kind.PASS_THROUGH:
            for output in call.outputs:
                fed |= _fed_kernels(output, graph)
    return fed


def _leads_out(key: int, graph: ModelGraph) -> bool:
    """Whether only weightless layers of one input stand between a tensor and a model output."""
    while key not in graph.outputs:
        follower = _only_consumer(key, graph)
        if follower is None or len(follower.inputs) > 1 or len(follower.outputs) > 1:
            return False
        if kind_of(follower.layer) not in _WEIGHTLESS:
            return False
        key = follower.outputs[0]
    return True
