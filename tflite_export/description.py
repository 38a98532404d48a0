"""What a TFLite file holds: operators, tensors, bits and bytes."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from tflite_export.flatbuffer_kernels import DECODE
from tflite_export.flatbuffer_schema import from_bytes, schema, text
from tflite_export.storage import STORAGES

_TABLE_WIDTH = 100
_UNPACKING = ("DEQUANTIZE", "CAST", DECODE)


@dataclasses.dataclass(frozen=True)
class TensorDescription:
    """One tensor of a file.

    Attributes:
        name: Empty where the file gives none.
        type_name: As in the schema: "INT8", "FLOAT32".
        shape: With the batch dimension.
        num_bytes: Of its contents in the file; 0 unless it is a constant.
        scales: Real values of one unit, one or one per channel; empty if it is not quantized.
        zero_points: As many as scales.
    """

    name: str
    type_name: str
    shape: tuple[int, ...]
    num_bytes: int
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class OperatorDescription:
    """One operator of a file.

    Attributes:
        name: As in the schema, "CONV_2D", or a custom operator's own.
        version: Of the operator.
        inputs: Indices of tensors, -1 where one is left out.
        outputs: Indices of tensors.
    """

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Description:
    """What a TFLite file holds; `str()` gives a table.

    Attributes:
        storage: One of `tflite_export.storage.STORAGES`, or None in a file of another writer's.
        text: The description that the file gives of itself.
        num_bytes: Of the whole file.
        operators: In the order in which they run.
        tensors: By index.
        inputs: Indices of the network's inputs.
        outputs: Indices of the network's outputs.
    """

    storage: str | None
    text: str
    num_bytes: int
    operators: tuple[OperatorDescription, ...]
    tensors: tuple[TensorDescription, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants: weights, biases and shapes."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    def constants(self) -> dict[int, tuple[TensorDescription, ...]]:
        """Returns the constants, and tensors that operators unpack from constants.

        Returns:
            Index of each -> the tensors in the file that it is made of.
        """
        found: dict[int, tuple[TensorDescription, ...]] = {
            index: (tensor,) for index, tensor in enumerate(self.tensors) if tensor.num_bytes
        }
        for operator in self.operators:
            if operator.name in _UNPACKING and found.keys() >= set(operator.inputs):
                sources = [tensor for index in operator.inputs for tensor in found[index]]
                found.update((index, tuple(sources)) for index in operator.outputs)
        return found

    def __str__(self) -> str:
        return "\n".join([_header(self), *_rows(self)])


def describe(blob: bytes) -> Description:
    """Lists the operators and tensors of a TFLite file.

    Args:
        blob: The file's bytes.

    Raises:
        TypeError: If `blob` is no bytes.
        ValueError: If they are not a TFLite file, are truncated, or hold several graphs.
    """
    model = from_bytes(blob)
    if len(model.subgraphs) != 1:
        raise ValueError(f"`blob` must hold one graph, got {len(model.subgraphs)}.")
    (subgraph,) = model.subgraphs
    found = re.search(r"storage (\w+)", text(model.description))
    storage = found[1] if found and found[1] in STORAGES else None
    return Description(
        storage=storage,
        text=text(model.description),
        num_bytes=len(blob),
        operators=tuple(_operator(model, operator) for operator in subgraph.operators),
        tensors=tuple(_tensor(model, tensor) for tensor in subgraph.tensors),
        inputs=tuple(int(index) for index in subgraph.inputs),
        outputs=tuple(int(index) for index in subgraph.outputs),
    )


def _operator(model: Any, operator: Any) -> OperatorDescription:
    code = model.operatorCodes[operator.opcodeIndex]
    # Old writers fill only the field of eight bits.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return OperatorDescription(
        name=text(code.customCode) or _name_of(schema().BuiltinOperator, number),
        version=code.version,
        inputs=tuple(int(index) for index in operator.inputs),
        outputs=tuple(int(index) for index in operator.outputs),
    )


def _tensor(model: Any, tensor: Any) -> TensorDescription:
    contents = model.buffers[tensor.buffer].data
    quantization = tensor.quantization
    return TensorDescription(
        name=text(tensor.name),
        type_name=_name_of(schema().TensorType, tensor.type),
        shape=_numbers(tensor.shape, int),
        num_bytes=0 if contents is None else len(contents),
        scales=() if quantization is None else _numbers(quantization.scale, float),
        zero_points=() if quantization is None else _numbers(quantization.zeroPoint, int),
    )


def _numbers(values: Any, kind: type) -> tuple[Any, ...]:
    return () if values is None else tuple(kind(value) for value in values)


def _name_of(enumeration: type, number: int) -> str:
    """Returns the name of a number in a class of the schema's."""
    for name, value in vars(enumeration).items():
        if value == number and not name.startswith("_"):
            return name
    raise ValueError(f"unknown {enumeration.__name__} {number}.")


def _header(description: Description) -> str:
    storage = description.storage or "of another writer"
    return (
        f"TFLite file, storage {storage}: {description.num_bytes:,} bytes, "
        f"{len(description.operators)} operators, constants {description.weight_bytes:,} bytes"
    )


def _rows(description: Description) -> list[str]:
    """Returns a line for each operator but those that unpack what the next one reads."""
    constants = description.constants()
    cells = [("operator", "output", "shape", "type", "constants", "bytes")]
    for operator in description.operators:
        if constants.keys() >= set(operator.outputs):
            continue
        output = description.tensors[operator.outputs[0]]
        read = [index for index in operator.inputs if index in constants]
        cells.append(
            (
                operator.name,
                output.name,
                "x".join(map(str, output.shape)),
                output.type_name.lower(),
                " ".join(_constant(description.tensors[i], constants[i]) for i in read),
                f"{sum(source.num_bytes for index in read for source in constants[index]):,}",
            )
        )
    widths = np.array([[len(cell) for cell in row] for row in cells]).max(axis=0)
    # Names may be of any length; what is left of the line is theirs.
    others = int(widths.sum()) - int(widths[1]) + 2 * (len(widths) - 1)
    widths[1] = max(6, min(widths[1], _TABLE_WIDTH - others))
    return [_row(row, widths) for row in cells]


def _constant(tensor: TensorDescription, sources: tuple[TensorDescription, ...]) -> str:
    """Returns the stored type and count, as "int2*432", or "lut2*432" for indices into tables."""
    count = int(np.prod(tensor.shape, dtype=np.int64))
    if len(sources) == 1:
        return f"{sources[0].type_name.lower()}*{count}"
    return f"lut{8 * sources[0].num_bytes // count}*{count}"


def _row(cells: tuple[str, ...], widths: Any) -> str:
    texts = [
        cell if len(cell) <= width else f"..{cell[len(cell) - width + 2 :]}"
        for cell, width in zip(cells, widths, strict=True)
    ]
    left = [cell.ljust(width) for cell, width in zip(texts[:-1], widths[:-1], strict=True)]
    return "  ".join([*left, texts[-1].rjust(widths[-1])])
