"""Reads a quantized Keras model as an integer graph, in float64 where a file will hold integers.

What lies between two roundings is one operation: a kernel, the batch norm and the ReLU behind it,
up to the layer that has an output quantizer. Until that layer is reached the operation is pending.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export import kernel_layers, layer_operations
from tflite_export.batch_norm_folding import FoldedKernel, fold
from tflite_export.graph_checks import check_graph
from tflite_export.integer_model import (
    Operation,
    Probabilities,
    Reshape,
    Shift,
    Tensor,
    lowest_level,
    reachable_sums,
    rooms,
)
from tflite_export.pending import ModelInput, Pending, Step
from tflite_export.storage import spread
from wrpn_tf.model_graph import LayerCall, ModelGraph, model_graph
from wrpn_tf.quantization import inner_layer, output_quantizer
from wrpn_tf.quantization.quantize_registry import Kind, augments, kind_of

# Integers of 8 bits leave no room for a multiplier: with accumulators in whole stored units,
# no scale makes all kernels round negative values alike.
_BITS_OF_SINGLE_UNITS = 8
# Of a product of two float32 numbers.
_FLOAT32_ERROR = 2e-7


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedModel:
    """An integer graph whose kernels are folded, and not yet rounded to what a file holds.

    Attributes:
        tensors: Name -> tensor.
        operations: Operations; `kernel` is a `FoldedKernel`, `table` a `FoldedTable`.
        inputs: Names of the input tensors.
        outputs: Names of the output tensors.
        quantizers: Tensor name -> (quantizer, its variables), where a Keras quantizer rounds.
        largest_scales: Tensor name -> the largest scale that it may have, or infinity. Files hold
            no limit of a ReLU: the range ends there, or below; and where its quantizer says.
        preprocessing: Names of the layers in front of the inputs, which the file leaves out, but
            for those that do nothing in inference.
    """

    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    quantizers: Mapping[str, tuple[Any, Any]]
    largest_scales: Mapping[str, float]
    preprocessing: tuple[str, ...]


def fold_model(model: Any, *, always_rounds: bool = False) -> FoldedModel:
    """Returns the integer graph of a quantized model of either Keras.

    Args:
        model: The model.
        always_rounds: Whether a concatenation rounds again what is on its own grid already.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If it is a float model or has regions, a layer was left in float, a range saw no
            data, a shape is unknown, or a layer has no integer form; names the layers.
    """
    graph = model_graph(model)
    check_graph(graph)
    return _Reader(graph, always_rounds).read()


class _Reader:
    """Walks a model's calls and collects tensors and operations."""

    def __init__(self, graph: ModelGraph, always_rounds: bool):
        self._graph = graph
        self._always_rounds = always_rounds
        self._values: dict[int, Tensor | Pending | ModelInput] = {}
        self._tensors: dict[str, Tensor] = {}
        self._operations: list[Operation] = []
        self._quantizers: dict[str, tuple[Any, Any]] = {}
        self._largest_scales: dict[str, float] = {}
        self._inputs: dict[int, str] = {}
        self._preprocessing: list[str] = []
        self._calls: collections.Counter[str] = collections.Counter()

    def read(self) -> FoldedModel:
        for key in self._graph.inputs:
            self._values[key] = ModelInput(key)
        for call in self._graph.calls:
            self._read_call(call)
        _check_probabilities_are_last(self._operations)
        keys = zip(self._graph.inputs, self._graph.input_names, strict=True)
        unread = [name for key, name in keys if key not in self._inputs]
        if unread:
            raise ValueError(
                f"`model` must read all of its inputs, got {', '.join(unread)}, which nothing "
                "reads. Make a model without it."
            )
        outputs = [self._values[key] for key in self._graph.outputs]
        for value in outputs:
            if not isinstance(value, Tensor):
                raise ValueError(
                    "`model` must have rounded outputs, got one that no quantizer rounds. Leave "
                    "`last_layer` and `num_bits_activation` quantized to export it."
                )
        return FoldedModel(
            tensors=self._tensors,
            operations=tuple(self._operations),
            inputs=tuple(self._inputs[key] for key in self._graph.inputs),
            outputs=tuple(value.name for value in outputs if isinstance(value, Tensor)),
            quantizers=self._quantizers,
            largest_scales=self._largest_scales,
            preprocessing=tuple(self._preprocessing),
        )

    def _read_call(self, call: LayerCall) -> None:
        name = self._name(call)
        values = [self._values[key] for key in call.inputs]
        layer = inner_layer(call.layer)
        if isinstance(values[0], ModelInput) and kind_of(layer) is Kind.PREPROCESSING:
            if not augments(layer):
                self._preprocessing.append(call.name)
            value: Tensor | Pending | ModelInput = values[0]
        elif type(layer).__name__ == "QuantizeLayer":
            value = values[0]
        else:
            is_output = call.outputs[0] in self._graph.outputs
            value = layer_operations.read_layer(
                call, name, values, self._shape(call), is_output=is_output
            )
        quantizer = output_quantizer(call.layer)
        if quantizer is not None:
            value = self._round(value, name, quantizer, self._shape(call))
        elif isinstance(value, Pending) and value.moves_levels:
            value = self._add(value, _like(value.sources[0], name, self._shape(call)))
        self._values[call.outputs[0]] = value

    def _round(
        self,
        value: Tensor | Pending | ModelInput,
        name: str,
        quantizer: tuple[Any, Any],
        shape: tuple[int, ...],
    ) -> Tensor:
        """The tensor into which a layer's quantizer rounds what is pending."""
        tensor = _quantized_tensor(name, shape, quantizer)
        self._quantizers[name] = quantizer
        if isinstance(value, ModelInput):
            self._inputs[value.key] = name
            self._tensors[name] = tensor
            return tensor
        if isinstance(value, Tensor):
            raise ValueError(
                f"`model`: {name!r} rounds levels once more that {value.name!r} rounded; the "
                "exporter has no operation for that."
            )
        limit = min(
            [value.limit, *(getattr(member, "limit", math.inf) for member in value.members)]
        )
        if limit < (tensor.high - 0.5) * tensor.scale:
            raise ValueError(
                f"`model`: the range of {name!r} must not exceed its ReLU's {limit}, got "
                f"{tensor.high * tensor.scale}."
            )
        self._largest_scales[name] = _largest_scale(tensor, limit, quantizer[0])
        return self._add(value, tensor)

    def _add(self, value: Pending, output: Tensor) -> Tensor:
        """Adds a pending operation that writes a tensor, reshaped if it writes another shape."""
        _, written = value.inner_shapes or ((), output.shape)
        if written == output.shape:
            operation = self._writing(value, output, output.name)
        else:
            flat = dataclasses.replace(output, name=f"{output.name}/flat", shape=written)
            self._tensors[flat.name] = flat
            self._operations.append(self._writing(value, flat, output.name))
            operation = Reshape(f"{output.name}/reshape", (flat.name,), output.name)
        self._tensors[output.name] = output
        self._operations.append(operation)
        return output

    def _add_member(self, member: Tensor | Pending, index: int, joined: Tensor) -> str:
        """One of the tensors that a concatenation joins, on the grid of the result."""
        if isinstance(member, Tensor):
            if member.grid == joined.grid and not self._always_rounds:
                return member.name
            member = kernel_layers.rounded_again(f"{joined.name}/{index}", member)
        part = dataclasses.replace(joined, name=f"{joined.name}/{index}", shape=member.shape)
        return self._add(member, part).name

    def _writing(self, value: Pending, output: Tensor, prefix: str) -> Operation:
        """The operation that writes a tensor; what moves its input's levels is added before it."""
        if value.members:
            names = [
                self._add_member(member, index, output)
                for index, member in enumerate(value.members)
            ]
            return dataclasses.replace(
                value.operation, name=output.name, inputs=tuple(names), output=output.name
            )
        steps, (source, *_) = value.moves, value.sources
        read, _ = value.inner_shapes or (source.shape, ())
        if read != source.shape:
            steps = (Step("image", Reshape("", (), ""), read), *steps)
        for step in steps:
            value = self._behind(step, value, f"{prefix}/{step.suffix}")
        return self._completed(value, output)

    def _behind(self, step: Step, value: Pending, name: str) -> Pending:
        """A pending operation that reads what a move makes of its input."""
        (source,) = value.sources
        moved = _like(source, name, step.shape)
        self._tensors[name] = moved
        inputs = (source.name,)
        self._operations.append(
            dataclasses.replace(step.move, name=name, inputs=inputs, output=name)
        )
        operation = dataclasses.replace(value.operation, inputs=(name,))
        return dataclasses.replace(value, operation=operation, sources=(moved,))

    def _completed(self, value: Pending, output: Tensor) -> Operation:
        """A pending operation with its output, its folded kernel and its clamp at 0."""
        changes: dict[str, Any] = {"output": output.name}
        if hasattr(value.operation, "relu"):
            changes["relu"] = value.relu or output.low == 0
        if value.integers is None:
            return dataclasses.replace(value.operation, **changes)
        kernel = fold(value.integers, value.num_bits, value.channel_axis, value.origin)
        operation = dataclasses.replace(value.operation, **changes, kernel=kernel)
        kernel = _spread(operation, value.sources[0], output)
        operation = dataclasses.replace(operation, kernel=kernel)
        if kernel.num_bits < _BITS_OF_SINGLE_UNITS or kernel.spread > 1 or operation.relu:
            return operation
        positive = dataclasses.replace(
            output, name=f"{output.name}/positive", low=0, high=output.high - output.low
        )
        self._tensors[positive.name] = positive
        self._operations.append(
            dataclasses.replace(
                operation,
                output=positive.name,
                relu=True,
                kernel=dataclasses.replace(kernel, shift=-output.low),
            )
        )
        return Shift(f"{output.name}/shift", (positive.name,), output.name, output.low)

    def _name(self, call: LayerCall) -> str:
        count = self._calls[call.name]
        self._calls[call.name] += 1
        return f"{call.name}:{count}" if count else call.name

    def _shape(self, call: LayerCall) -> tuple[int, ...]:
        if len(call.outputs) > 1:
            raise ValueError(f"`model`: {call.name!r} must have one output, got several.")
        shape = call.output_shapes[0][1:]
        if None in shape:
            raise ValueError(
                f"`model` must have fixed shapes behind the batch dimension, got {shape} at "
                f"{call.name!r}. Build it with a fixed input size."
            )
        return tuple(int(size) for size in shape if size is not None)


def _quantized_tensor(name: str, shape: tuple[int, ...], quantizer: tuple[Any, Any]) -> Tensor:
    rule, variables = quantizer
    try:
        scale = np.float32(rule.scale(variables))
        grid = rule.grid(variables) if callable(rule.grid) else rule.grid
    except ValueError as error:
        raise ValueError(
            f"`model`: the range of {name!r} saw no data yet, or zeros alone. Train the model, or "
            "set its ranges with `wrpn_tf.calibrate(model, dataset)`."
        ) from error
    return Tensor(name, shape, scale, grid.low, grid.high)


def _largest_scale(tensor: Tensor, limit: float, rule: Any) -> float:
    """The largest scale at which a tensor has no level beyond a ReLU's limit or its quantizer's."""
    max_range = getattr(rule, "max_range", None)
    of_quantizer = math.inf if max_range is None else max_range / tensor.high
    return min(limit / ((tensor.high - 0.5) * (1 + _FLOAT32_ERROR)), of_quantizer)


def _spread(operation: Any, source: Tensor, output: Tensor) -> FoldedKernel:
    """An operation's kernel, with the spread of its input's levels that it needs."""
    factor = spread(
        operation.kernel.num_bits,
        source.high - source.low,
        room=float(np.median(rooms(*reachable_sums(operation, source), output))),
        signed=lowest_level(operation, output) < 0,
    )
    return dataclasses.replace(operation.kernel, spread=factor)


def _like(source: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    return dataclasses.replace(source, name=name, shape=shape)


def _check_probabilities_are_last(operations: Sequence[Operation]) -> None:
    written = {op.output: op for op in operations if isinstance(op, Probabilities)}
    for operation in operations:
        for name in written.keys() & set(operation.inputs):
            kind = type(written[name]).__name__.lower()
            raise ValueError(
                f"`model`: the {kind} {written[name].name!r} must be an output that no layer "
                f"reads, got {operation.name!r} behind it."
            )
