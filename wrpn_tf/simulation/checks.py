"""Which models can be simulated, and on which images; every refusal names its layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import LayerCall, ModelGraph, Shape
from wrpn_tf.quantization import (
    ObservedQuantizer,
    check_finite_weights,
    inner_layer,
    is_quantized,
    output_quantizer,
    weight_quantizers,
)
from wrpn_tf.quantization.quantize_registry import Kind, function_name, kind_of
from wrpn_tf.simulation.kernels import KERNEL_LAYERS, can_multiply
from wrpn_tf.simulation.layers import (
    SIMULATED_LAYERS,
    ends_in_probabilities,
    find_rule,
    only_rounds,
)

_COMBINING = ("Add", "Maximum", "Minimum", "Multiply", "Subtract")
_LISTED = 8  # layers that a message names
_FOLDED = (Kind.BATCH_NORM, Kind.RELU, Kind.CONCATENATE)  # read what is not rounded yet


def check_quantized(graph: ModelGraph) -> None:
    """Checks that a model computes in integers throughout, with layers that can be simulated.

    Raises:
        ValueError: Otherwise; the message names the layers.
    """
    name = graph.model.name
    if not any(is_quantized(layer) for layer in graph.layers().values()):
        raise ValueError(
            f"`model` must be quantized, got the float model {name!r}. "
            "Call `wrpn_tf.quantize_model(model)` first."
        )
    check_finite_weights(graph)
    _refuse(
        (call for call in graph.calls if _has_float_weights(call.layer)),
        "`model` must have integer weights in all its layers, got layers in float: {}.",
    )
    raw = _raw_tensors(graph)
    _refuse(
        (call for call in graph.calls if not _is_simulated(call, graph, raw)),
        "`model` has layers that cannot be simulated: {}. Those that can, over channels that are "
        f"the last axis: {', '.join(sorted({*KERNEL_LAYERS, *SIMULATED_LAYERS}))}.",
    )
    _refuse(
        _unrounded(graph, raw),
        "`model` must round all its tensors, got layers whose output stays float: {}.",
    )
    _refuse(
        (call for call in graph.calls if not _has_range(call.layer)),
        "`model` must have observed ranges that saw data, got empty ones at: {}. "
        "Train it, or call `wrpn_tf.calibrate(model, images)`.",
    )


def check_images(graph: ModelGraph, images: Any) -> list[npt.NDArray[Any]]:
    """Returns a model's inputs as arrays of the types that the model takes.

    Raises:
        TypeError: If they are no numbers.
        ValueError: If their number, shapes or values do not fit.
    """
    arrays = [np.asarray(value) for value in graph.flatten_inputs(images)]
    if len(arrays) != len(graph.inputs):
        raise ValueError(
            f"`images` must be {len(graph.inputs)} arrays, one per model input, got {len(arrays)}."
        )
    for array, key in zip(arrays, graph.inputs, strict=True):
        if array.dtype.kind not in "fiu":
            raise TypeError(f"`images` must hold numbers, got the type {array.dtype}.")
        _check_shape(array.shape, graph.shapes[key])
        if not np.isfinite(array).all():
            raise ValueError("`images` must be finite, got NaN or infinity.")
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(
            "`images` must have equally many examples per model input, got "
            f"{[len(array) for array in arrays]}."
        )
    return [
        array.astype(graph.dtypes[key]) for array, key in zip(arrays, graph.inputs, strict=True)
    ]


def _raw_tensors(graph: ModelGraph) -> set[int]:
    """Returns the tensors before the rounding of the inputs: these and their preprocessing."""
    raw = set(graph.inputs)
    for call in graph.calls:
        preprocesses = kind_of(inner_layer(call.layer)) is Kind.PREPROCESSING
        rounds = output_quantizer(call.layer) is not None
        if preprocesses and not rounds and raw.issuperset(call.inputs):
            raw.update(call.outputs)
    return raw


def _check_shape(shape: tuple[int, ...], wanted: Shape) -> None:
    fits = len(shape) == len(wanted) and all(
        size == w or w is None for size, w in zip(shape[1:], wanted[1:], strict=True)
    )
    if not fits or 0 in shape:
        raise ValueError(
            f"`images` must have the shape {wanted}, one example or more, got {shape}."
        )


def _refuse(calls: Iterable[LayerCall], message: str) -> None:
    """Raises an error that names calls, if there are any."""
    named = dict.fromkeys(f"{c.path} ({function_name(inner_layer(c.layer))})" for c in calls)
    if named:
        more = [f"and {len(named) - _LISTED} more"] if len(named) > _LISTED else []
        raise ValueError(message.format(", ".join([*list(named)[:_LISTED], *more])))


def _has_float_weights(layer: Any) -> bool:
    inner = inner_layer(layer)
    if only_rounds(layer):
        return False
    kind = kind_of(inner)
    return kind is Kind.FLOAT or (kind is Kind.KERNEL and not weight_quantizers(layer))


def _is_simulated(call: LayerCall, graph: ModelGraph, raw: set[int]) -> bool:
    layer = inner_layer(call.layer)
    if len(call.outputs) > 1 or not _has_channels_last(layer, call):
        return False
    if kind_of(layer) is Kind.PREPROCESSING:
        return raw.issuperset(call.inputs)
    if kind_of(layer) is Kind.KERNEL:
        return can_multiply(layer)
    if _is_probability(call, graph):
        return True
    return find_rule(call) is not None and _has_equal_ranks(call)


def _is_probability(call: LayerCall, graph: ModelGraph) -> bool:
    """Whether a call makes probabilities that are an output of the model."""
    is_output = set(call.outputs) <= set(graph.outputs)
    return is_output and ends_in_probabilities(inner_layer(call.layer), len(call.output_shapes[0]))


def _has_channels_last(layer: Any, call: LayerCall) -> bool:
    if kind_of(layer) is Kind.BATCH_NORM:
        axes = np.atleast_1d(layer.axis) % len(call.input_shapes[0])
        return axes.tolist() == [len(call.input_shapes[0]) - 1]
    if keras_class(layer).startswith("ZeroPadding"):  # Of the axes that it names; any will do.
        return True
    return getattr(layer, "data_format", None) != "channels_first"


def _has_equal_ranks(call: LayerCall) -> bool:
    """Whether the tensors that a sum or a product combines have as many axes as each other."""
    is_combined = function_name(inner_layer(call.layer)) in _COMBINING
    return not is_combined or len({len(shape) for shape in call.input_shapes}) == 1


def _unrounded(graph: ModelGraph, raw: set[int]) -> Iterator[LayerCall]:
    """Yields the calls whose float output is needed as levels, and those that read float inputs."""
    rounded: set[int] = set()
    for call in graph.calls:
        kind = kind_of(inner_layer(call.layer))
        reads_raw = raw.intersection(call.inputs) and not only_rounds(call.layer)
        if reads_raw and kind is not Kind.PREPROCESSING:
            yield call
        elif kind not in _FOLDED and not only_rounds(call.layer):
            yield from (graph.producers[key] for key in call.inputs if key not in rounded | raw)
        ends = _is_probability(call, graph)
        if output_quantizer(call.layer) is not None or kind is Kind.PASS_THROUGH or ends:
            rounded.update(call.outputs)
    yield from (graph.producers[key] for key in graph.outputs if key not in rounded | raw)


def _has_range(layer: Any) -> bool:
    """Whether a layer's observed range, if it has one, holds more than one value."""
    found = output_quantizer(layer)
    if found is None or not isinstance(found[0], ObservedQuantizer):
        return True
    variables = found[1]
    return float(np.asarray(variables["largest"])) > float(np.asarray(variables["smallest"]))
