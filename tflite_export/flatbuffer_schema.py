"""TFLite's schema, as LiteRT or TensorFlow ships it, and the bytes of its objects."""

from __future__ import annotations

import functools
import importlib
import struct
from types import ModuleType
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np

FILE_IDENTIFIER = b"TFL3"
# The schema's `force_align` of buffers, which the Python code that is made from it leaves out.
_BUFFER_ALIGNMENT = 16
# What the schema's code raises when an offset or a length leads out of the bytes.
_LEFT_THE_BYTES = (struct.error, ValueError, TypeError, LookupError, AttributeError, OverflowError)


@functools.cache
def schema() -> ModuleType:
    """Returns the module of schema classes.

    Raises:
        ImportError: If neither LiteRT nor TensorFlow is installed.
    """
    for name in (
        "ai_edge_litert.schema_py_generated",
        "tensorflow.lite.python.schema_py_generated",
    ):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
    raise ImportError(
        "writing and reading TFLite files needs the package `ai-edge-litert` or `tensorflow`, "
        "found neither."
    )


def make(class_name: str, **fields: Any) -> Any:
    """Returns a schema object with some fields set; older schemas' constructors take none."""
    instance = getattr(schema(), class_name)()
    for field, value in fields.items():
        if not hasattr(instance, field):
            raise AttributeError(f"`{class_name}` has no field {field!r}.")
        setattr(instance, field, value)
    return instance


def tensor_type(name: str) -> int:
    """Returns the schema's number of a type such as "INT8".

    Raises:
        ValueError: If the installed schema is older than the type.
    """
    try:
        number: int = getattr(schema().TensorType, name)
    except AttributeError as error:
        raise ValueError(
            f"tensors of type {name} need a newer schema than {schema().__name__!r} has; "
            "install ai-edge-litert 2.1 or TensorFlow 2.21, or use another storage."
        ) from error
    return number


def to_bytes(model: Any) -> bytes:
    """Returns the file of a `ModelT`."""
    builder = _SharingBuilder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def check_blob(blob: Any) -> None:
    """Checks that an argument is a file's bytes, not its path nor the model.

    Raises:
        TypeError: If it is no bytes.
        ValueError: If they do not begin as a TFLite file.
    """
    if not isinstance(blob, bytes | bytearray | memoryview):
        raise TypeError(
            "`blob` must be the bytes of a TFLite file, from `tflite_export.convert(model)` or "
            f"`pathlib.Path(path).read_bytes()`, got {type(blob).__name__}: {blob!r:.80}."
        )
    if len(blob) < 8 or blob[4:8] != FILE_IDENTIFIER:
        raise ValueError(
            f"`blob` must be a TFLite file ({FILE_IDENTIFIER!r} at bytes 4..7), got {len(blob)} "
            f"bytes that begin with {bytes(blob[:8])!r}."
        )


def from_bytes(blob: bytes) -> Any:
    """Returns the `ModelT` of a file.

    Raises:
        TypeError, ValueError: As `check_blob`; ValueError if the bytes end before what they
            announce.
    """
    check_blob(blob)
    try:
        model = schema().ModelT.InitFromObj(schema().Model.GetRootAs(bytes(blob), 0))
        _check_indices(model)
    except _LEFT_THE_BYTES as error:
        raise ValueError(f"`blob` is truncated or damaged ({len(blob)} bytes): {error}") from error
    return model


def text(value: str | bytes | None) -> str:
    """Returns a string of the schema's, which it may leave out or give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _check_indices(model: Any) -> None:
    """Raises IndexError unless all numbers of tensors, buffers and operators' codes exist."""
    for subgraph in model.subgraphs:
        tensors = range(len(subgraph.tensors))
        used = [*subgraph.inputs, *subgraph.outputs]
        for operator in subgraph.operators:
            model.operatorCodes[operator.opcodeIndex]
            used += [index for index in operator.inputs if index != -1]
            used += list(operator.outputs)
        missing = sorted({int(index) for index in used if index not in tensors})
        if missing:
            raise IndexError(f"tensors {missing} do not exist")
        for tensor in subgraph.tensors:
            model.buffers[tensor.buffer]


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """A builder that writes equal vectors once, and aligns vectors of bytes (buffers' contents).

    Readers follow offsets, so that many tables may name one vector: the zero points of all
    weights with as many channels, above all, which take eight bytes each.
    """

    def __init__(self, initial_size: int) -> None:
        super().__init__(initial_size)
        self._vectors: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Any) -> int:  # noqa: N802
        key = (x.dtype.str, x.tobytes())
        if key not in self._vectors:
            if x.dtype == np.uint8:
                self.Prep(_BUFFER_ALIGNMENT, x.size)
            self._vectors[key] = int(super().CreateNumpyVector(x))
        return self._vectors[key]
