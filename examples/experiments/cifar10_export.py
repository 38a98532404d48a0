"""The integer file of a trained net of `cifar10.py`, and its accuracy beside Keras'."""

from __future__ import annotations

from typing import Any

import numpy as np
import tflite_files
from cifar10_training import TEST_BATCH, Images, RunFiles

import tflite_export

# Larger ranges of activations by this share are as good, but round otherwise here and there.
_NUDGE = 1e-3


def export(model: Any, data: Images, files: RunFiles) -> dict[str, Any]:
    """Writes the file (int8 storage), and compares it with Keras on the whole test set.

    Beside the right answers that the file loses and wins stand those of a control: the same Keras
    model with ranges of activations that differ by what no training could tell.
    """
    snapped, _ = tflite_export.snap(model)
    blob = tflite_export.convert(snapped, snap_first=False)
    tflite_export.save(blob, files.folder / "int8.tflite")
    keras = data.outputs(model)
    file = tflite_files.predict(blob, data.x_test, TEST_BATCH)
    return {
        "bytes": len(blob),
        "keras_accuracy": round(data.accuracy_of(keras), 2),
        "snapped_accuracy": round(data.accuracy(snapped), 2),
        "tflite_accuracy": round(data.accuracy_of(file), 2),
        "changed": _changed(data, keras, file),
        "changed_by_nudge": _changed(data, keras, _nudged_outputs(model, data)),
    }


def _changed(data: Images, before: np.ndarray, after: np.ndarray) -> dict[str, int]:
    """The right answers lost and won between two networks' outputs."""
    was_right, is_right = data.are_right(before), data.are_right(after)
    return {
        "lost": int((was_right & ~is_right).sum()),
        "won": int((is_right & ~was_right).sum()),
    }


def _nudged_outputs(model: Any, data: Images) -> np.ndarray:
    """What the model says with slightly larger ranges; it stays as it is."""
    kept = model.get_weights()
    ranges = [v for v in model.weights if v.name.partition(":")[0].endswith("range")]
    for variable in ranges:
        variable.assign(variable * (1 + _NUDGE))
    outputs = data.outputs(model)
    model.set_weights(kept)
    return outputs
