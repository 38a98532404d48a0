"""The network of `region_curve.py`: its float teacher, its low-bit student, its fine-tuning."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import datasets
import numpy as np
import tf_keras

import wrpn_tf

_BATCH = 128
_CALIBRATION_IMAGES = 1024


def load_teacher(path: str) -> Any:
    """Returns a trained float network that reads images minus the mean training image."""
    return tf_keras.models.load_model(path, compile=False)


def trained_base(
    teacher: Any, data: datasets.Dataset, mean: np.ndarray, epochs: int, seed: int, folder: str
) -> Any:
    """Returns the low-bit student: from the folder, or newly distilled and saved there.

    2-bit weights, 8-bit activations; ranges from the first 1,024 training images; distilled under
    scheme C with Adam, 1e-3 falling to 0 as a cosine; batches of 128 shifted and mirrored images.

    Args:
        teacher: The float network, whose weights the student starts from.
        data: CIFAR-10.
        mean: The mean training image, which is subtracted.
        epochs: How long it trains.
        seed: Of the order of the images, and of how they are shifted.
        folder: Where weights are kept.
    """
    path = pathlib.Path(folder) / f"base_{epochs}epochs_seed{seed}.h5"
    student = wrpn_tf.quantize_model(teacher)
    if path.exists():
        student.load_weights(path)
        return student
    tf_keras.utils.set_random_seed(seed)
    wrpn_tf.calibrate(student, data.x_train[:_CALIBRATION_IMAGES] - mean, verbose=False)
    trainer = wrpn_tf.Distiller(student, teacher, scheme="C")
    steps = epochs * (len(data.x_train) // _BATCH)
    _fit(trainer, data, mean, steps, 1e-3, seed, epochs)
    student.save_weights(path)
    return student


def fine_tuned(
    base_weights: list[np.ndarray],
    teacher: Any,
    region_precision: wrpn_tf.RegionPrecision | None,
    data: datasets.Dataset,
    mean: np.ndarray,
    steps: int,
    learning_rate: float,
    seed: int,
) -> Any:
    """Returns a copy of the base net that was distilled further, with regions in each step.

    Args:
        base_weights: The base net's.
        teacher: The float network.
        region_precision: The regions while it trains; None: full precision.
        data: CIFAR-10.
        mean: The mean training image.
        steps: Batches of 128 images.
        learning_rate: Adam's at first; falls to 0 as a cosine.
        seed: Of the order of the images.

    Returns:
        The student, without regions.
    """
    tf_keras.utils.set_random_seed(seed)
    student = wrpn_tf.quantize_model(teacher)
    student.set_weights(base_weights)
    trainer = wrpn_tf.Distiller(student, teacher, scheme="C", region_precision=region_precision)
    _fit(trainer, data, mean, steps, learning_rate, seed, 1)
    return student


def _fit(
    trainer: Any,
    data: datasets.Dataset,
    mean: np.ndarray,
    steps: int,
    learning_rate: float,
    seed: int,
    epochs: int,
) -> None:
    start = time.monotonic()
    schedule = tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    trainer.compile(tf_keras.optimizers.Adam(schedule), metrics=["accuracy"])
    batches = data.training_batches(_BATCH, seed).map(lambda x, y: (x - mean, y))
    steps_per_epoch = steps // epochs
    trainer.fit(batches.take(steps_per_epoch), epochs=epochs, verbose=2)
    print(f"trained {steps} steps in {time.monotonic() - start:.0f} s", flush=True)
