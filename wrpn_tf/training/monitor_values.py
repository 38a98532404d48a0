"""What a quantized network's values look like: zeros, saturation, and the distance to float.

The network is run layer by layer, outside of any compiled step, so that a callback can ask at any
time. Weights are counted on what the layers compute with, the integers of `to_int`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.model_graph import LayerCall, ModelGraph, model_graph
from wrpn_tf.quantization import (
    ObservedQuantizer,
    Quantizer,
    WRPNWeightQuantizer,
    inner_layer,
    is_quantized,
    output_quantizer,
    weight_quantizers,
)
from wrpn_tf.quantization.quantized_layers import quantized_layer, unrounded
from wrpn_tf.quantization.region_graph import network_graph
from wrpn_tf.training.distiller import trained_network


@dataclasses.dataclass(frozen=True)
class WeightValues:
    """One quantized weight.

    Attributes:
        name: The layer's own, without its wrapper's; "layer/weight" where it has several.
        quantizer: How it is quantized.
        zero_share: The share of its integers that are 0.
    """

    name: str
    quantizer: WRPNWeightQuantizer
    zero_share: float


@dataclasses.dataclass(frozen=True)
class OutputValues:
    """The rounded output of one layer, over all its calls.

    Attributes:
        layer: The layer's own name, without its wrapper's.
        quantizer: How it is rounded.
        saturation: The share of values at the highest level; where values are signed, at the
            highest or the lowest.
    """

    layer: str
    quantizer: Quantizer
    saturation: float


def check_quantized_model(model: Any) -> ModelGraph:
    """Returns the graph of a quantized model, or of a Distiller's student.

    Raises:
        TypeError: If it is no Keras model.
        ValueError: If nothing in it is quantized, or it cannot be read.
    """
    graph = model_graph(trained_network(model))
    if not any(is_quantized(layer) for layer in graph.layers().values()):
        raise ValueError(
            f"`model` must be quantized, got the float model {graph.model.name!r}. "
            "Call `wrpn_tf.quantize_model(model)` first."
        )
    return graph


def weight_values(graph: ModelGraph) -> Iterator[WeightValues]:
    """Yields the quantized weights of a model, in the order of computation."""
    for layer in graph.layers().values():
        pairs = weight_quantizers(layer)
        own = inner_layer(layer).name
        for weight, (variable, quantizer) in pairs.items():
            share = float(np.mean(quantizer.to_int(variable) == 0))
            yield WeightValues(own if len(pairs) == 1 else f"{own}/{weight}", quantizer, share)


class Probe:
    """Runs a quantized model on a few examples.

    Args:
        graph: Of the model.
        examples: The model's inputs, as it takes them: arrays [examples, ...].

    Raises:
        ValueError: If the examples do not fit the model, or are none.
    """

    def __init__(self, graph: ModelGraph, examples: Any):
        self._graph = graph
        self._float_graph = network_graph(graph)
        self._examples = _checked_examples(graph, examples)

    def outputs(self) -> tuple[tuple[OutputValues, ...], float]:
        """Returns the rounded outputs, and the gap between the model and itself in float.

        The gap is the mean absolute difference between the model's outputs and those that it makes
        with its latent float weights and with no tensor rounded. Outputs whose range was not
        observed yet are left out.
        """
        counts: dict[str, _Count] = {}

        def count(call: LayerCall, result: Any) -> None:
            found = output_quantizer(call.layer)
            if found is not None and _has_range(*found):
                name = inner_layer(call.layer).name
                counts.setdefault(name, _Count(*found)).add(np.asarray(result, np.float32))

        rounded = _run(self._graph, self._examples, None, count)
        real = _run(self._float_graph, self._examples, float_call, lambda call, result: None)
        differences = [np.abs(a - b).ravel() for a, b in zip(rounded, real, strict=True)]
        values = (
            OutputValues(name, count.quantizer, count.saturated / count.total)
            for name, count in counts.items()
        )
        return tuple(values), float(np.mean(np.concatenate(differences)))


class _Count:
    """Counts the values of one rounded output that are at the ends of its levels."""

    def __init__(self, quantizer: Quantizer, variables: dict[str, Any]):
        self.quantizer = quantizer
        self.saturated = 0
        self.total = 0
        self._variables = variables

    def add(self, values: npt.NDArray[np.float32]) -> None:
        grid = self.quantizer.grid
        grid = grid(self._variables) if callable(grid) else grid
        levels = self.quantizer.to_int(values, self._variables)
        # The lowest level of what is never negative is 0, and no clipping.
        ends = levels >= grid.high
        if grid.low < 0:
            ends |= levels <= grid.low
        self.saturated += int(ends.sum())
        self.total += levels.size


def float_call(call: LayerCall, tensors: Mapping[int, Any]) -> Any:
    """Returns what a call of a quantized model computes with float weights, unrounded.

    Args:
        call: Of a model without regions.
        tensors: What it reads, by key.
    """
    layer, own = quantized_layer(call.layer), inner_layer(call.layer)
    if own is layer:
        with unrounded(layer):
            return call.invoke(layer, tensors)
    if hasattr(layer, "_weight_vars"):
        # tfmot's wrapper leaves the last quantized tensors in its layer's attributes. It puts the
        # next ones there when it is called again.
        latent = [np.asarray(variable) for variable, _, _ in layer._weight_vars]
        layer.quantize_config.set_quantize_weights(own, latent)
    return call.invoke(own, tensors)


def _run(
    graph: ModelGraph,
    examples: list[Any],
    apply: Callable[[LayerCall, Mapping[int, Any]], Any] | None,
    visit: Callable[[LayerCall, Any], None],
) -> list[npt.NDArray[np.float32]]:
    """Returns a model's outputs; `visit` sees the first result of each call."""
    outputs = dict(zip(graph.inputs, examples, strict=True))
    for call, results in graph.walk(examples, apply):
        visit(call, results[0])
        found = zip(call.outputs, results, strict=True)
        outputs.update({key: result for key, result in found if key in graph.outputs})
    return [np.asarray(outputs[key], np.float32) for key in graph.outputs]


def _has_range(quantizer: Quantizer, variables: dict[str, Any]) -> bool:
    """Whether a quantizer rounds: an observed range is empty until something was observed."""
    if not isinstance(quantizer, ObservedQuantizer):
        return True
    return float(np.asarray(variables["largest"])) > float(np.asarray(variables["smallest"]))


def _checked_examples(graph: ModelGraph, examples: Any) -> list[Any]:
    arrays = [np.asarray(value) for value in graph.flatten_inputs(examples)]
    wanted = [graph.shapes[key] for key in graph.inputs]
    fits = len(arrays) == len(wanted) and all(
        len(array.shape) == len(shape)
        and len(array) > 0
        and all(w in (None, n) for n, w in zip(array.shape[1:], shape[1:], strict=True))
        for array, shape in zip(arrays, wanted, strict=True)
    )
    if not fits:
        found = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(
            f"`images` must have the shape {', '.join(map(str, wanted))}, one example or more, got "
            f"{found}."
        )
    return [
        array.astype(graph.dtypes[key]) for array, key in zip(arrays, graph.inputs, strict=True)
    ]
