"""Writes integer models as TFLite files."""

from __future__ import annotations

from tflite_export.flatbuffer_graph import GraphBuilder, levels
from tflite_export.flatbuffer_operators import OperatorWriter
from tflite_export.flatbuffer_schema import make, to_bytes
from tflite_export.flatbuffer_validation import check_model
from tflite_export.integer_model import IntegerModel, Tensor
from tflite_export.storage import check_storage

TYPES = ("int8", "uint8", "float32")
# uint8 levels are int8 levels and this.
_UINT8_OFFSET = 128


def write(
    model: IntegerModel,
    *,
    storage: str = "int8",
    input_type: str = "int8",
    output_type: str = "int8",
) -> bytes:
    """Returns the TFLite file of a model; its batch size is 1.

    Interpreters can resize the batch, unless there is a transposed convolution: the shape of its
    result is a constant, and builtin kernels refuse another batch.

    Args:
        model: The network.
        storage: How weights are stored, see `tflite_export.storage`.
        input_type: "int8" (level + zero point; nothing clamps it to a grid of fewer bits),
            "uint8" (int8 + 128) or "float32" (real values, which the kernels round to levels; they
            differ in ties, so that a value half way between two levels may become either).
        output_type: "int8", "uint8" or "float32" (scale * level).

    Raises:
        ValueError: If the storage or a type is unknown, weights do not fit the storage, or the
            model contradicts itself.
    """
    check_storage(storage)
    check_type("input_type", input_type)
    check_type("output_type", output_type)
    check_model(model)
    graph = GraphBuilder()
    writer = OperatorWriter(graph, model, storage)
    inputs = []
    for name in model.inputs:
        inputs.append((name, _write_input(writer, model.tensors[name], input_type)))
    for operation in model.operations:
        writer.write(operation)
    outputs = []
    for name in model.outputs:
        outputs.append((name, _write_output(writer, model.tensors[name], output_type)))
    return to_bytes(graph.model(inputs, outputs, description=f"wrpn_tf, storage {storage}"))


def check_type(argument: str, value: str) -> None:
    """Raises ValueError unless `value` is one of `TYPES`."""
    if value not in TYPES:
        raise ValueError(f"`{argument}` must be one of {', '.join(TYPES)}, got {value!r}.")


def _write_input(writer: OperatorWriter, tensor: Tensor, type_name: str) -> int:
    """Adds an input of the network; returns the index of what the user fills."""
    graph = writer.graph
    if type_name == "int8":
        writer.indices[tensor.name] = graph.activation(tensor)
        return writer.indices[tensor.name]
    index = _add_outer(graph, tensor, type_name)
    # Values of a user's may lie outside of the grid, and int8 may be wider than it.
    if tensor.high - tensor.low < 255:
        first = writer.write_unclamped(tensor)
        graph.operator("QUANTIZE", 2, [index], first, make("QuantizeOptionsT"))
        writer.write_saturating(first, tensor)
    else:
        writer.write_saturating(index, tensor)
    return index


def _write_output(writer: OperatorWriter, tensor: Tensor, type_name: str) -> int:
    """Adds an output of the network; returns the index of what the user reads."""
    source = writer.indices[tensor.name]
    if type_name == "int8":
        return source
    graph = writer.graph
    index = _add_outer(graph, tensor, type_name)
    if type_name == "uint8":
        graph.operator("QUANTIZE", 2, [source], index, make("QuantizeOptionsT"))
    else:
        graph.operator("DEQUANTIZE", 2, [source], index, make("DequantizeOptionsT"))
    return index


def _add_outer(graph: GraphBuilder, tensor: Tensor, type_name: str) -> int:
    """Adds the uint8 or float32 tensor that stands for a tensor outside."""
    quantization = (
        levels(tensor, tensor.zero_point + _UINT8_OFFSET) if type_name == "uint8" else None
    )
    name = f"{tensor.name}/{type_name}"
    return graph.add(name, type_name.upper(), (1, *tensor.shape), quantization=quantization)
