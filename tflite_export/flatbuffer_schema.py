"""TFLite's schema, as LiteRT or TensorFlow ships it, and the bytes of its objects."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np

FILE_IDENTIFIER = b"TFL3"
# The schema's `force_align` of buffers, which the Python code that is made from it leaves out.
_BUFFER_ALIGNMENT = 16


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
