"""Runs `.tflite` files, as an application would."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np


def predict(blob: bytes, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Returns what a file of one input and one output gives for images.

    Args:
        blob: The file's bytes.
        images: What the Keras model reads, float32 (examples, height, width, channels). A file that
            reads int8 gets them in its own scale.
        batch_size: Images that the interpreter takes at once.

    Returns:
        (examples, classes): float32, or the file's int8 levels, of which the largest is the answer.
    """
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It is to be replaced by LiteRT's, which reads the same.
        interpreter = tf.lite.Interpreter(model_content=blob)
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    parts = []
    for start in range(0, len(images), batch_size):
        batch = _as_input(images[start : start + batch_size], source)
        interpreter.resize_tensor_input(source["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], batch)
        interpreter.invoke()
        parts.append(interpreter.get_tensor(target["index"]))
    return np.concatenate(parts)


def _as_input(images: np.ndarray, source: dict[str, Any]) -> np.ndarray:
    if source["dtype"] == np.float32:
        return images
    scale, zero_point = source["quantization"]
    levels = np.iinfo(source["dtype"])
    rounded = np.round(images / np.float32(scale)) + zero_point
    return rounded.clip(levels.min, levels.max).astype(source["dtype"])
