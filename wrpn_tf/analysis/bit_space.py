"""What can have other bits in a model: the kernels, and the activations that kernels multiply."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from wrpn_tf.analysis.precision import FLOAT_BITS, propagate_bits
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization.layer_settings import QuantizationRules
from wrpn_tf.quantization.placement import end_layers
from wrpn_tf.quantization.prepare import prepare
from wrpn_tf.quantization.quantize_model import check_quantizable
from wrpn_tf.quantization.quantize_registry import kernel_axes, weight_name
from wrpn_tf.quantization.quantizer_plan import QuantizerPlan, plan_quantizers
from wrpn_tf.quantization.quantizers import Quantizer, WRPNWeightQuantizer

_END_BITS = 8
# A tensor is a knob if what is asked for reaches it: these two lead to different quantizers.
_APART = (2, 8)

Assignment = Mapping["Knob", int]


@dataclasses.dataclass(frozen=True)
class Knob:
    """One thing that has bits of its own.

    Attributes:
        kind: "weight": the kernel of a layer; "activation": what a layer's output is rounded to.
        path: The layer, as `quantize_model` prepares the model.
        bits: The bits to choose from.
    """

    kind: Literal["weight", "activation"]
    path: str
    bits: tuple[int, ...]


class BitSpace:
    """The knobs of a float model, in the form in which `quantize_model` rounds it.

    Attributes:
        model: The prepared float model: a copy.
        graph: Its graph.
        knobs: Those of weights, then those of activations, each in the order of computation.
        weight_scale: The rule of weights.

    Args:
        model: A float model of either Keras; it stays as it is.
        num_bits_weight: Bits to choose from, for kernels.
        num_bits_activation: Bits to choose from, for activations.
        search_ends: Whether the first and last kernels' bits are chosen, too; else they have 8.
        weight_scale: As in `quantize_model`.

    Raises:
        TypeError, ValueError: As `quantize_model`.
    """

    def __init__(
        self,
        model: Any,
        *,
        num_bits_weight: Sequence[int],
        num_bits_activation: Sequence[int],
        search_ends: bool = False,
        weight_scale: str | float = "mean",
    ) -> None:
        source = model_graph(model)
        check_quantizable(source)
        self.model, self._origin = prepare(source)
        self.graph = model_graph(self.model)
        self.weight_scale = weight_scale
        self._plans: dict[int, QuantizerPlan] = {}
        low, high = (self._quantizers(bits) for bits in _APART)
        self._keys: dict[str, list[int]] = {}  # layer -> the tensors that its bits decide
        for key, quantizer in high.items():
            if quantizer.num_bits != low[key].num_bits:
                path = self.graph.producers[key].path
                self._keys.setdefault(path, []).append(key)
        ends = set() if search_ends else set.union(*end_layers(self.graph))
        weights = [
            Knob("weight", path, (_END_BITS,) if path in ends else tuple(num_bits_weight))
            for path, layer in self.graph.layers().items()
            if kernel_axes(layer)
        ]
        activations = [Knob("activation", p, tuple(num_bits_activation)) for p in self._keys]
        self.knobs: tuple[Knob, ...] = (*weights, *activations)

    def kernel(self, knob: Knob) -> Any:
        """Returns the variable of a weight knob."""
        layer = self.graph.layers()[knob.path]
        (name,) = kernel_axes(layer)
        return next(weight for weight in layer.weights if weight_name(weight) == name)

    def kernel_quantizer(self, knob: Knob, num_bits: int) -> Quantizer:
        """Returns what rounds the kernel of a weight knob."""
        ((_, axes),) = kernel_axes(self.graph.layers()[knob.path]).items()
        return WRPNWeightQuantizer(num_bits, self.weight_scale, axes)

    def tensors(self, knob: Knob) -> tuple[int, ...]:
        """Returns the keys of the tensors that an activation knob rounds."""
        return tuple(self._keys[knob.path])

    def tensor_quantizer(self, key: int, num_bits: int) -> Quantizer:
        """Returns what rounds a tensor of an activation knob."""
        return self._quantizers(num_bits)[key]

    def sources(self) -> dict[int, Knob | int]:
        """Returns tensor key -> the knob that has its bits, or its bits where there is no choice.

        Layers that only move values pass on what their input has.
        """
        quantizers = self._quantizers(_APART[1])
        # Any numbers will do where bits are propagated: these tell the rounded tensors apart.
        names = {key: FLOAT_BITS + 1 + key for key in quantizers}
        knobs = {key: x for x in self.knobs if x.kind == "activation" for key in self.tensors(x)}
        found: dict[int, Knob | int] = {}
        for key, name in propagate_bits(self.graph, names).items():
            origin = name - FLOAT_BITS - 1
            if name <= FLOAT_BITS:
                found[key] = FLOAT_BITS
            else:
                found[key] = knobs.get(origin, quantizers[origin].num_bits)
        return found

    def overrides(self, assignment: Assignment) -> dict[str, dict[str, Any]]:
        """Returns the `overrides` with which `quantize_model` gives the model these bits."""
        settings: dict[str, dict[str, Any]] = {}
        for knob, num_bits in assignment.items():
            own = settings.setdefault(knob.path, {})
            own[f"num_bits_{knob.kind}"] = num_bits
            if knob.kind == "weight" and self.weight_scale != "mean":
                own["weight_scale"] = self.weight_scale
        # The name of a layer that is split matches all its parts, whose own rules come later.
        split = {origin for path, origin in self._origin.items() if path != origin}
        order = sorted(settings, key=lambda path: path not in split)
        return {re.escape(path): settings[path] for path in order}

    def _quantizers(self, num_bits: int) -> dict[int, Quantizer]:
        """Tensor key -> quantizer, where activations have these bits."""
        if num_bits not in self._plans:
            rules = QuantizationRules(num_bits_activation=num_bits, weight_scale=self.weight_scale)
            settings = rules.settings(self.graph, self._origin)
            self._plans[num_bits] = plan_quantizers(self.graph, settings)
        plan = self._plans[num_bits]
        found = dict(plan.inserted)
        for call in self.graph.calls:
            config = plan.configs.get(call.path)
            if config is not None and config.output_quantizer is not None:
                found.update(dict.fromkeys(call.outputs, config.output_quantizer))
        return found
