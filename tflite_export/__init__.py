"""Exports quantized Keras models as TFLite files of integers, and proves what they compute.

Importing the package loads neither TensorFlow nor Keras; a name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # What editors and type checkers read; `__getattr__` does the same at run time.
    from tflite_export.arena import measure_arena
    from tflite_export.converter import convert, save
    from tflite_export.description import describe
    from tflite_export.snap_model import snap
    from tflite_export.verification import verify

__all__ = ["convert", "describe", "measure_arena", "save", "snap", "verify"]

_DEFINED_IN = {
    "convert": "converter",
    "describe": "description",
    "measure_arena": "arena",
    "save": "converter",
    "snap": "snap_model",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
