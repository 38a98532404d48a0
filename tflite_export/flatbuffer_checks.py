"""Checks of finished files: no arithmetic in floating point, and equality field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tflite_export.description import Description, OperatorDescription, describe
from tflite_export.flatbuffer_schema import from_bytes, text


def check_integer_only(blob: bytes) -> None:
    """Checks that no activation of a file is computed in floating point.

    Allowed are QUANTIZE of a network's input, DEQUANTIZE into a network's output that nothing else
    reads, and operators that unpack constants (DEQUANTIZE, CAST and tflite-micro's DECODE).

    Raises:
        ValueError: If the bytes are not a TFLite file; or naming the operators that read or write
            floats.
    """
    description = describe(blob)
    constants = description.constants()
    found = []
    for operator in description.operators:
        if constants.keys() >= set(operator.outputs):
            continue
        if _is_float(description, operator) and not _is_at_the_end(description, operator):
            output = description.tensors[operator.outputs[0]].name
            found.append(f"{operator.name} ({output})")
    if found:
        raise ValueError(f"the file computes in floating point: {', '.join(found)}.")


def _is_float(description: Description, operator: OperatorDescription) -> bool:
    indices = [index for index in (*operator.inputs, *operator.outputs) if index != -1]
    return any("FLOAT" in description.tensors[index].type_name for index in indices)


def _is_at_the_end(description: Description, operator: OperatorDescription) -> bool:
    """Returns whether an operator converts a network's input or output."""
    if operator.name == "QUANTIZE":
        return set(operator.inputs) <= set(description.inputs)
    readers = {index for other in description.operators for index in other.inputs}
    return (
        operator.name == "DEQUANTIZE"
        and set(operator.outputs) <= set(description.outputs)
        and readers.isdisjoint(operator.outputs)
    )


@dataclasses.dataclass(frozen=True)
class Difference:
    """A field in which two files differ.

    Attributes:
        where: The tensor's name, or the operator's number and output.
        field: Path of the field in the schema.
        found: Its value in the file.
        expected: Its value in the other.
        is_value: A weight, a bias or a scale differs, and nothing that tells a runtime what to read
            where: it can run the file.
    """

    where: str
    field: str
    found: str
    expected: str
    is_value: bool

    def __str__(self) -> str:
        return f"{self.where}: {self.field} is {self.found}, expected {self.expected}"


def compare(blob: bytes, expected: bytes) -> tuple[Difference, ...]:
    """Returns all fields in which a file differs from another; empty if none does.

    Everything that the schema holds is compared exactly: contents of constants bit by bit, scales,
    zero points, types, shapes, names, options, versions, connections and signatures. Only the
    arrangement in the file may differ.

    Args:
        blob: The file to check.
        expected: The file that it should be.

    Raises:
        ValueError: If either is not a TFLite file or is truncated.
    """
    model, reference = from_bytes(blob), from_bytes(expected)
    names, values = _names(reference), _values(reference)
    differences = []
    for path, found, wanted in _compare(model, reference, ()):
        depth = next((i for i in range(len(path), 0, -1) if path[:i] in names), 0)
        where = names.get(path[:depth], "file")
        field = ".".join(str(part) for part in path[depth:])
        is_value = path[:-1] in values and path[-1] != "length"
        differences.append(Difference(where, field, found, wanted, is_value))
    return tuple(differences)


def _values(model: Any) -> set[tuple[Any, ...]]:
    """Returns the paths of the arrays that hold scales, or the contents of tensors with scales."""
    paths: set[tuple[Any, ...]] = set()
    for number, subgraph in enumerate(model.subgraphs):
        for index, tensor in enumerate(subgraph.tensors):
            if tensor.quantization is not None and tensor.quantization.scale is not None:
                own = ("subgraphs", number, "tensors", index, "quantization", "scale")
                paths |= {own, ("buffers", tensor.buffer, "data")}
    return paths


def _names(model: Any) -> dict[tuple[Any, ...], str]:
    """Returns names for the paths of tensors, operators, and the buffers that tensors use."""
    names: dict[tuple[Any, ...], str] = {}
    for number, subgraph in enumerate(model.subgraphs):
        root = ("subgraphs", number)
        tensors = [text(t.name) or f"tensor {i}" for i, t in enumerate(subgraph.tensors)]
        for index, tensor in enumerate(subgraph.tensors):
            names[(*root, "tensors", index)] = tensors[index]
            names.setdefault(("buffers", tensor.buffer), tensors[index])
        for index, operator in enumerate(subgraph.operators):
            output = tensors[operator.outputs[0]]
            names[(*root, "operators", index)] = f"operator {index} ({output})"
    return names


def _compare(found: Any, expected: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, str, str]]:
    """Yields path, found and expected value of all leaves that differ."""
    if hasattr(expected, "__dict__") and type(found) is type(expected):
        for field in vars(expected):
            yield from _compare(getattr(found, field), getattr(expected, field), (*path, field))
    elif _is_list_of_objects(found) and _is_list_of_objects(expected):
        if len(found) != len(expected):
            yield (*path, "length"), str(len(found)), str(len(expected))
        for index, pair in enumerate(zip(found, expected, strict=False)):
            yield from _compare(*pair, (*path, index))
    elif isinstance(found, np.ndarray) and isinstance(expected, np.ndarray):
        yield from _compare_arrays(found, expected, path)
    elif found != expected or type(found) is not type(expected):
        yield path, repr(found), repr(expected)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(hasattr(item, "__dict__") for item in value)


def _compare_arrays(
    found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], path: tuple[Any, ...]
) -> Iterator[tuple[Any, str, str]]:
    if found.shape != expected.shape:
        yield (*path, "length"), str(found.size), str(expected.size)
        return
    # Bit by bit: -0.0 is not 0.0, and one NaN is itself.
    differs = np.frombuffer(found.tobytes(), np.uint8) != np.frombuffer(
        expected.tobytes(), np.uint8
    )
    if differs.any():
        places = np.flatnonzero(differs.reshape(found.size, -1).any(axis=1))
        first = int(places[0])
        count = "" if len(places) == 1 else f" (and {len(places) - 1} others)"
        yield (*path, first), f"{found[first]}{count}", str(expected[first])
