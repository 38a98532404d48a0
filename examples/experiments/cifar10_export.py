"""The integer file of a trained net of `cifar10.py`, and its accuracy beside Keras'."""

from __future__ import annotations

from typing import Any

import tflite_files
from cifar10_training import TEST_BATCH, Images, RunFiles

import tflite_export


def export(model: Any, data: Images, files: RunFiles) -> dict[str, Any]:
    """Writes the file (int8 storage), and compares it with Keras on the whole test set."""
    snapped, moves = tflite_export.snap(model, "int8", (data.x_test, data.y_test))
    blob = tflite_export.convert(snapped, "int8", snap_first=False)
    tflite_export.save(blob, files.folder / "int8.tflite")
    before, after = moves.accuracies
    outputs = tflite_files.predict(blob, data.x_test, TEST_BATCH)
    return {
        "bytes": len(blob),
        "keras_accuracy": round(100 * before, 2),
        "snapped_accuracy": round(100 * after, 2),
        "tflite_accuracy": round(data.accuracy_of(outputs), 2),
    }
