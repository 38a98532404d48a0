"""`simulate`: a quantized network on the accelerator, in integers from the image to the logits."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.grid import Grid
from wrpn_tf.model_graph import LayerCall, ModelGraph, model_graph
from wrpn_tf.quantization import (
    ObservedQuantizer,
    has_regions,
    inner_layer,
    is_region_map,
    output_quantizer,
)
from wrpn_tf.quantization.quantize_registry import Kind, kind_of
from wrpn_tf.quantization.region_graph import network_graph, plain_call
from wrpn_tf.simulation.checks import check_images, check_quantized
from wrpn_tf.simulation.kernels import multiply
from wrpn_tf.simulation.layers import find_rule, probabilities
from wrpn_tf.simulation.regions import Regions
from wrpn_tf.simulation.report import LayerRecord, Simulation
from wrpn_tf.simulation.values import Integers, Levels, Value, rounded

_QUIET_SECONDS = 5.0  # before a progress line appears


def simulate(model: Any, images: Any, array: SystolicArray | None = None) -> Simulation:
    """Runs a quantized model on the 2-bit x 8-bit systolic accelerator, layer by layer.

    Kernels multiply on the array, into 32-bit accumulators. Bias, batch norm and ReLU are folded
    into one scale, offset and clamp per channel, in float64; at each of the model's quantizers the
    result becomes levels by the exact rule,
    level = clamp(floor(real / scale + 1/2), low, high).

    In a model with regions, maps of the images come from the model's own layers, in Keras; what
    convolutions read is then rounded by position to the nested levels of `wrpn_tf.grid`, and the
    result has each image's costs.

    Preprocessing layers (`Rescaling`) are applied to the images in float32, as Keras does; a
    softmax or sigmoid at the end is computed from the logits' levels.

    Args:
        model: A model of either Keras from `wrpn_tf.quantize_model` or `widen_and_quantize`,
            whose observed ranges saw data (training, or `wrpn_tf.calibrate`).
        images: [batch, height, width, channels], or whatever the model reads; several inputs in a
            structure as the model takes.
        array: The accelerator; by default 8 x 8 engines, output stationary, as it must be for a
            model with regions.

    Returns:
        The levels of every rounded tensor, the outputs, and what each kernel layer costs.

    Raises:
        TypeError: If `model` is no Keras model, or `images` hold no numbers.
        ValueError: If a layer is left in float, cannot be simulated or has an observed range that
            saw no data (each named), or if `images` or `array` do not fit the model.
        OverflowError: If an accumulator does not fit 32 bits; the message names the layer.

    Source: Mishra et al., WRPN, arXiv 1709.01134, section 6.
    """
    graph = model_graph(model)
    check_quantized(network_graph(graph))
    inputs = check_images(graph, images)
    run = _Run(graph, inputs, SystolicArray() if array is None else array)
    for call in _with_progress(graph.calls):
        run.add(call)
    return run.result()


class _Run:
    """The values of a simulation while it walks the graph."""

    def __init__(self, graph: ModelGraph, inputs: list[npt.NDArray[Any]], array: SystolicArray):
        self._graph = graph
        self._array = array
        self._num_images = len(inputs[0])
        self._raw = dict(zip(graph.inputs, inputs, strict=True))  # before the inputs' rounding
        self._values: dict[int, Value] = {}
        self._levels: dict[str, Levels] = {}
        self._probabilities: dict[int, npt.NDArray[np.float32]] = {}
        self._layers: list[LayerRecord] = []
        has_maps = any(is_region_map(call.layer) for call in graph.calls)
        self._regions = Regions(graph, array) if has_maps else None
        self._num_calls: collections.Counter[str] = collections.Counter()
        self._last_use = {key: call for call in graph.calls for key in call.inputs}

    def add(self, call: LayerCall) -> None:
        """Runs one call on the values of those before it."""
        if self._regions is not None and is_region_map(call.layer):
            self._regions.make_maps(call, self._raw)
        elif self._regions is not None and has_regions(call.layer):
            self._add(plain_call(call))
            fine, coarse = call.outputs
            self._values[coarse] = self._regions.read(call, self._values[fine])
        else:
            self._add(call)
        for key in set(call.inputs) & self._values.keys() - set(self._graph.outputs):
            if self._last_use[key] is call:
                del self._values[key]

    def _add(self, call: LayerCall) -> None:
        """Runs a call of the network itself."""
        name = self._name(call)
        (key,) = call.outputs
        quantized = output_quantizer(call.layer)
        if self._raw.keys() >= set(call.inputs):
            reals = self._preprocessed(call)
            if quantized is None:
                self._raw[key] = reals
            else:
                quantizer, variables = quantized
                self._values[key] = self._keep(
                    name,
                    quantizer.to_int(reals, variables),
                    float(quantizer.scale(variables)),
                    _grid(quantizer, variables),
                )
            return
        value = self._compute(call, name)
        if quantized is not None:
            quantizer, variables = quantized
            scale, grid = float(quantizer.scale(variables)), _grid(quantizer, variables)
            value = self._keep(name, rounded(value, scale, grid), scale, grid)
        self._values[key] = value

    def result(self) -> Simulation:
        """Returns what was collected."""
        outputs = [self._values[key] for key in self._graph.outputs]
        return Simulation(
            name=self._graph.model.name,
            num_images=self._num_images,
            array=self._array,
            levels={name: levels.integers for name, levels in self._levels.items()},
            scales={name: levels.scale for name, levels in self._levels.items()},
            grids={name: levels.grid for name, levels in self._levels.items()},
            outputs=tuple(levels.integers for levels in outputs),
            output_names=tuple(levels.name for levels in outputs),
            probabilities=tuple(self._probabilities.get(key) for key in self._graph.outputs),
            layers=tuple(self._layers),
            read_levels=self._regions.read_levels if self._regions else {},
            image_costs=self._regions.costs() if self._regions else None,
        )

    def _name(self, call: LayerCall) -> str:
        """The layer's name; with `:1`, `:2`, ... for its second, third call."""
        count = self._num_calls[call.name]
        self._num_calls[call.name] += 1
        return f"{call.name}:{count}" if count else call.name

    def _preprocessed(self, call: LayerCall) -> npt.NDArray[Any]:
        layer = inner_layer(call.layer)
        if kind_of(layer) is not Kind.PREPROCESSING:
            return self._raw[call.inputs[0]]
        return np.asarray(call.invoke(layer, self._raw), np.float32)

    def _compute(self, call: LayerCall, name: str) -> Value:
        """A call's result before its rounding."""
        values = [self._values[key] for key in call.inputs]
        layer = inner_layer(call.layer)
        if kind_of(layer) is Kind.KERNEL:
            value, record = multiply(call, values[0], self._array, name)
            self._layers.append(record)
            return value
        (key,) = call.outputs
        ends = probabilities(layer, values[0]) if key in self._graph.outputs else None
        if ends is not None:
            self._probabilities[key] = ends
            return values[0]
        rule = find_rule(call)
        return rule(call, values)

    def _keep(self, name: str, integers: Integers, scale: float, grid: Grid) -> Levels:
        self._levels[name] = Levels(integers, scale, grid, name)
        return self._levels[name]


def _grid(quantizer: Any, variables: Any) -> Grid:
    return quantizer.grid(variables) if isinstance(quantizer, ObservedQuantizer) else quantizer.grid


def _with_progress(calls: tuple[LayerCall, ...]) -> Iterator[LayerCall]:
    """Yields the calls; shows a line of progress on a terminal once they take long."""
    start = time.monotonic()
    shown = False
    for index, call in enumerate(calls, start=1):
        if sys.stderr.isatty() and time.monotonic() - start > _QUIET_SECONDS:
            shown = True
            sys.stderr.write(f"\rsimulate: layer {index} of {len(calls)}, {call.name:.50}\033[K")
            sys.stderr.flush()
        yield call
    if shown:
        sys.stderr.write("\n")
