"""From settings to quantizers: which one each weight and each rounded tensor gets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from wrpn_tf.grid import activation_grid
from wrpn_tf.model_graph import ModelGraph
from wrpn_tf.quantization.layer_settings import LayerSettings
from wrpn_tf.quantization.placement import Rounding, kernels_before, rounded_tensors
from wrpn_tf.quantization.quantize_config import WRPNQuantizeConfig
from wrpn_tf.quantization.quantize_registry import can_be_wrapped, kernel_axes
from wrpn_tf.quantization.quantizers import (
    ObservedQuantizer,
    Quantizer,
    WRPNActivationQuantizer,
    WRPNWeightQuantizer,
)

# Sums, means, pre-add branches, and what first and last layers multiply keep the bits of TFLite's
# int8 tensors.
_OTHER_BITS = 8
# Share of the way per step that an observed range shrinks towards a batch's: it settles while the
# net trains.
_DECAY = 0.01


@dataclasses.dataclass(frozen=True)
class QuantizerPlan:
    """What is quantized in a model, and how.

    Attributes:
        configs: Layer path -> config, for each layer that is wrapped.
        inserted: Tensor key -> quantizer, for inputs and what cannot be wrapped.
        names: Tensor key -> name of the layer that is inserted there.
    """

    configs: Mapping[str, WRPNQuantizeConfig]
    inserted: Mapping[int, Quantizer]
    names: Mapping[int, str]


def plan_quantizers(graph: ModelGraph, settings: Mapping[str, LayerSettings]) -> QuantizerPlan:
    """Returns the quantizers of a prepared model.

    Args:
        graph: The prepared model's graph.
        settings: Settings of each layer, by path.
    """
    weights = {
        path: _weight_quantizers(layer, settings[path]) for path, layer in graph.layers().items()
    }
    outputs: dict[str, Quantizer] = {}
    inserted: dict[int, Quantizer] = {}
    for key, rounding in rounded_tensors(graph).items():
        quantizer = _tensor_quantizer(key, rounding, graph, settings)
        call = graph.producers.get(key)
        if quantizer is None:
            continue
        if call is not None and can_be_wrapped(call.layer):
            outputs[call.path] = quantizer
        else:
            inserted[key] = quantizer
    configs = {
        path: WRPNQuantizeConfig(quantizers, outputs.get(path))
        for path, quantizers in weights.items()
        if quantizers or path in outputs
    }
    return QuantizerPlan(configs, inserted, _insertion_names(graph, inserted))


def _insertion_names(graph: ModelGraph, keys: Iterable[int]) -> dict[int, str]:
    """Names after the input or operation; one that is called again gets a number."""
    stems = dict(zip(graph.inputs, graph.input_names, strict=True))
    names: dict[int, str] = {}
    for key in keys:
        own = stems[key] if key in stems else graph.producers[key].name
        stem = name = f"quant_{own.replace('.', '_')}"  # A SavedModel's names have no dots.
        count = 0
        while name in names.values():
            count += 1
            name = f"{stem}_{count}"
        names[key] = name
    return names


def _weight_quantizers(layer: object, settings: LayerSettings) -> dict[str, WRPNWeightQuantizer]:
    if settings.num_bits_weight == "float":
        return {}
    return {
        name: WRPNWeightQuantizer(settings.num_bits_weight, settings.weight_scale, axes)
        for name, axes in kernel_axes(layer).items()
    }


def _tensor_quantizer(
    key: int, rounding: Rounding, graph: ModelGraph, settings: Mapping[str, LayerSettings]
) -> Quantizer | None:
    if rounding.is_input:
        all_float = rounding.feeds and all(
            settings[path].num_bits_weight == "float" for path in rounding.feeds
        )
        return None if all_float else ObservedQuantizer(_OTHER_BITS)
    own = settings[graph.producers[key].path]
    if own.num_bits_activation == "float":
        return None
    if rounding.is_output:
        sources = kernels_before(key, graph)
        is_float = any(settings[path].num_bits_weight == "float" for path in sources)
        return None if is_float else ObservedQuantizer(_OTHER_BITS, _DECAY)
    is_multiplied = any(not settings[path].is_end for path in rounding.feeds)
    num_bits = own.num_bits_activation if is_multiplied else _OTHER_BITS
    return _hidden_quantizer(num_bits, rounding, own.activation_range)


def _hidden_quantizer(
    num_bits: int, rounding: Rounding, activation_range: str | float
) -> Quantizer:
    signed = not rounding.unsigned
    num_bits = max(num_bits, 2) if signed else num_bits
    limit = rounding.limit if math.isfinite(rounding.limit) else None
    if limit == 1.0:
        return WRPNActivationQuantizer(num_bits, 1.0, max_range=1.0)
    if not isinstance(activation_range, str) and rounding.unsigned:
        return WRPNActivationQuantizer(num_bits, activation_range, max_range=limit)
    if activation_range == "observed" or rounding.variance is None:
        return ObservedQuantizer(max(num_bits, 2), _DECAY)
    deviation = math.sqrt(rounding.variance)
    start = round(deviation * activation_grid(num_bits, signed).optimal_largest_level, 3)
    learned = activation_range == "learned"
    return WRPNActivationQuantizer(num_bits, start, learned, signed, limit)
