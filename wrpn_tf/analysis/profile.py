"""What a model's layers cost: multiply-accumulates, parameters and bytes, each at its bits.

`ModelProfile` is the one source of these counts; the summary, and any model of cost, memory or
energy, only adds them up.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from wrpn_tf.analysis.macs import UncountableError, count_macs
from wrpn_tf.analysis.precision import (
    FLOAT_BITS,
    is_quantize_layer,
    tensor_bits,
    weights_and_bits,
)
from wrpn_tf.model_graph import LayerCall, ModelGraph, Shape, model_graph
from wrpn_tf.quantization import inner_layer
from wrpn_tf.quantization.region_graph import kernel_reads, network_graph
from wrpn_tf.quantization.region_reading import region_rule
from wrpn_tf.regions import FixedRead, RegionRead


@dataclasses.dataclass(frozen=True)
class WeightProfile:
    """One weight of a layer.

    Attributes:
        name: The layer's attribute: "kernel", "bias", "gamma".
        shape: The weight's shape.
        num_bits: Bits of one parameter as deployed; 32 for float.
    """

    name: str
    shape: tuple[int, ...]
    num_bits: int

    @property
    def num_parameters(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes with the values packed densely, rounded up to whole bytes."""
        return -(-self.num_parameters * self.num_bits // 8)


@dataclasses.dataclass(frozen=True)
class MACProfile:
    """The multiply-accumulates of one weight in one layer call, for one example.

    Attributes:
        weight: The weight's attribute: "kernel".
        count: One multiply-add counts 1.
        num_bits_activation: Bits of the values that meet the weight; 32 for float.
        num_bits_weight: Bits of the weight; 32 for float.
        is_first: No other weight is multiplied between a model input and this one.
        is_last: No other weight is multiplied between this one and a model output.
        groups: Groups of channels that a grouped convolution keeps apart; 1 for any other.
    """

    weight: str
    count: int
    num_bits_activation: int
    num_bits_weight: int
    is_first: bool = False
    is_last: bool = False
    groups: int = 1

    @property
    def cost(self) -> int:
        """FMA-bits: count * (activation bits + weight bits)."""
        return self.count * (self.num_bits_activation + self.num_bits_weight)


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """One call of one layer.

    Attributes:
        path: The layer's name, "outer/inner" in a nested model. A quantized layer goes by its own
            name and class, not by its wrapper's.
        class_name: The layer's class.
        inputs: Keys of the tensors it reads: a number for each tensor of the model.
        outputs: Keys of the tensors it makes.
        input_shapes: With the batch dimension.
        output_shapes: With the batch dimension.
        weights: The layer's weights; empty in the second and later calls of a shared layer, so that
            sums over calls count them once.
        macs: Multiply-accumulates by weight; empty if there are none, or if they are unknown.
        num_bits_input: Bits of each input.
        num_bits_output: Bits of each output.
        uncounted: Why the multiply-accumulates are unknown; None if they are known.
        bits_by_region: Bits of the first input where it is most important, then of its less
            important parts; None where they are the same everywhere. Counts, costs and
            `num_bits_input` are of the most.
    """

    path: str
    class_name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    weights: tuple[WeightProfile, ...]
    macs: tuple[MACProfile, ...]
    num_bits_input: tuple[int, ...]
    num_bits_output: tuple[int, ...]
    uncounted: str | None = None
    bits_by_region: tuple[int, ...] | None = None

    @property
    def num_parameters(self) -> int:
        """Parameters, quantized or not."""
        return sum(weight.num_parameters for weight in self.weights)

    @property
    def num_bytes(self) -> int:
        """Bytes of the parameters at their bits."""
        return sum(weight.num_bytes for weight in self.weights)

    @property
    def num_macs(self) -> int | None:
        """Multiply-accumulates for one example; None if unknown."""
        return None if self.uncounted else sum(mac.count for mac in self.macs)

    @property
    def is_float(self) -> bool:
        """Whether weights are multiplied in float: a factor has 32 bits, or nothing is known."""
        pairs = [(mac.num_bits_activation, mac.num_bits_weight) for mac in self.macs]
        return self.uncounted is not None or FLOAT_BITS in {bits for pair in pairs for bits in pair}


class ModelProfile:
    """The layer calls of a model in the order of computation, with their counts and bits.

    Counts are for one example. A layer whose multiply-accumulates cannot be told (`macs.count_macs`
    says which) is in `uncounted`, and in no sum of them.

    Attributes:
        name: The model's name.
        layers: One `LayerProfile` per call; nested models are flattened.
        inputs: Key of each model input -> its shape with the batch dimension.
        outputs: Keys of the model outputs.
        regions: What makes parts of an image important, in words; None for a model whose
            activations have the same bits everywhere. The layers that find it out are no part of
            the network, and in no count.

    Args:
        model: A Functional or Sequential model of either Keras, float or quantized.

    Raises:
        TypeError, ValueError: If the graph of `model` cannot be read (`model_graph.check_model`).
    """

    def __init__(self, model: Any) -> None:
        full_graph = model_graph(model)
        graph, reads = network_graph(full_graph), kernel_reads(full_graph)
        bits = tensor_bits(graph)
        seen: set[str] = set()
        layers = []
        for call in graph.calls:
            layer = _profile_call(call, bits, first=call.path not in seen)
            layers.append(_with_regions(layer, reads.get(call.outputs[0])))
            seen.add(call.path)
        self.name: str = model.name
        self.regions: str | None = region_rule(model) if reads else None
        self.inputs: dict[int, Shape] = {key: graph.shapes[key] for key in graph.inputs}
        self.outputs: tuple[int, ...] = graph.outputs
        self.layers: tuple[LayerProfile, ...] = _with_ends(layers, graph)

    def with_layers(self, layers: Iterable[LayerProfile]) -> ModelProfile:
        """Returns the profile of the same graph with other sizes or bits."""
        changed = copy.copy(self)
        changed.layers = tuple(layers)
        return changed

    @property
    def num_parameters(self) -> int:
        """Parameters of all layers, each layer once."""
        return sum(layer.num_parameters for layer in self.layers)

    @property
    def num_bytes(self) -> int:
        """Bytes of the parameters at their bits."""
        return sum(layer.num_bytes for layer in self.layers)

    @property
    def macs_by_bits(self) -> dict[tuple[int, int], int]:
        """(activation bits, weight bits) -> multiply-accumulates, most bits first."""
        counts: collections.Counter[tuple[int, int]] = collections.Counter()
        for layer in self.layers:
            for mac in layer.macs:
                counts[mac.num_bits_activation, mac.num_bits_weight] += mac.count
        return dict(sorted(counts.items(), reverse=True))

    @property
    def num_macs(self) -> int:
        """Multiply-accumulates of all layers whose count is known."""
        return sum(self.macs_by_bits.values())

    @property
    def cost(self) -> int:
        """Compute cost in FMA-bits: sum of count * (activation bits + weight bits).

        Source: Mishra & Marr, "WRPN & Apprentice" (arXiv 1803.00227), section 2, footnote 2.
        """
        return sum(mac.cost for layer in self.layers for mac in layer.macs)

    @property
    def uncounted(self) -> dict[str, str]:
        """Path -> reason, of the layers whose multiply-accumulates are unknown."""
        return {layer.path: layer.uncounted for layer in self.layers if layer.uncounted}


def _profile_call(call: LayerCall, bits: dict[int, int], first: bool) -> LayerProfile:
    layer = inner_layer(call.layer)
    macs, uncounted = _count(call, bits)
    return LayerProfile(
        path="/".join([*call.path.split("/")[:-1], layer.name]),
        class_name=type(layer).__name__,
        inputs=call.inputs,
        outputs=call.outputs,
        input_shapes=call.input_shapes,
        output_shapes=call.output_shapes,
        weights=tuple(WeightProfile(*w) for w in weights_and_bits(call.layer)) if first else (),
        macs=macs,
        num_bits_input=tuple(bits[key] for key in call.inputs),
        num_bits_output=tuple(bits[key] for key in call.outputs),
        uncounted=uncounted,
    )


def _count(call: LayerCall, bits: dict[int, int]) -> tuple[tuple[MACProfile, ...], str | None]:
    """Returns the multiply-accumulates of a call, or why they are unknown."""
    if is_quantize_layer(call.layer):
        return (), None
    layer = inner_layer(call.layer)
    try:
        counts = count_macs(layer, call.input_shapes[0], call.output_shapes[0])
    except UncountableError as error:
        return (), str(error)
    quantized = {name: num_bits for name, _, num_bits in weights_and_bits(call.layer)}
    activation = bits[call.inputs[0]]
    groups = getattr(layer, "groups", 1)
    macs = []
    for weight, count in counts.items():
        macs.append(MACProfile(weight, count, activation, quantized[weight], groups=groups))
        # Between the two kernels of a separable convolution stands no quantizer.
        activation = FLOAT_BITS
    return tuple(macs), None


def _with_regions(layer: LayerProfile, read: RegionRead | FixedRead | None) -> LayerProfile:
    """Notes the bits of what a layer reads by region."""
    if not isinstance(read, RegionRead):
        return layer
    return dataclasses.replace(layer, bits_by_region=tuple(reversed(read.bits)))


def _with_ends(layers: list[LayerProfile], graph: ModelGraph) -> tuple[LayerProfile, ...]:
    """Marks the first and the last multiplications; a layer's kernels apply in their order."""
    before, after = set(graph.inputs), set(graph.outputs)
    first, last = set(), set()
    for layer in layers:
        if before.intersection(layer.inputs):
            if layer.macs:
                first.add(layer.path)
            else:
                before.update(layer.outputs)
    for layer in reversed(layers):
        if after.intersection(layer.outputs):
            if layer.macs:
                last.add(layer.path)
            else:
                after.update(layer.inputs)
    return tuple(_mark_ends(x, x.path in first, x.path in last) for x in layers)


def _mark_ends(layer: LayerProfile, is_first: bool, is_last: bool) -> LayerProfile:
    macs = list(layer.macs)
    if macs and is_first:
        macs[0] = dataclasses.replace(macs[0], is_first=True)
    if macs and is_last:
        macs[-1] = dataclasses.replace(macs[-1], is_last=True)
    return dataclasses.replace(layer, macs=tuple(macs))
