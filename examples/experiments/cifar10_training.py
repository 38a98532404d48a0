"""Trains one network of `cifar10.py`, measures it after each epoch, resumes, and exports it."""

from __future__ import annotations

import json
import pathlib
import time
from typing import Any

import csv_rows
import datasets
import tensorflow as tf
import tf_keras
import tflite_files
from cifar10_config import Schedule

import tflite_export
import wrpn_tf
from wrpn_tf.whole_file import write_whole

_COLUMNS = (
    "epoch",
    "learning_rate",
    "loss",
    "train_accuracy",
    "test_accuracy",
    "reestimated_accuracy",
    "seconds",
)
_TEST_BATCH = 500
_REESTIMATION_BATCHES = 20


class Images:
    """CIFAR-10 minus the mean training image, which is what the teachers read."""

    def __init__(self, train: datasets.Dataset):
        self.train = train
        self.mean = train.x_train.mean(0)
        self.x_test = train.x_test - self.mean
        self.y_test = train.y_test

    def batches(self, batch_size: int, seed: int, epoch: int) -> Any:
        """One epoch's batches, which depend on seed and epoch alone."""
        batches = self.train.training_batches(batch_size, (seed, epoch))
        return batches.map(lambda x, y: (x - self.mean, y))

    def accuracy(self, model: Any) -> float:
        """The share of test images told right, in percent."""
        batches = datasets.fixed_batches(self.x_test, _TEST_BATCH)
        return self.accuracy_of(model.predict(batches, verbose=0))

    def accuracy_of(self, outputs: Any) -> float:
        """The same, given what a network makes of the test images."""
        return 100 * float((outputs.argmax(axis=1) == self.y_test).mean())


class RunFiles:
    """What a run writes."""

    def __init__(self, name: str, seed: int, out_dir: str, work_dir: str):
        stem = f"{name}_seed{seed}"
        self.folder = pathlib.Path(work_dir) / stem
        self.folder.mkdir(parents=True, exist_ok=True)
        pathlib.Path(out_dir).mkdir(parents=True, exist_ok=True)
        self.weights = self.folder / "final.h5"
        self.csv = pathlib.Path(out_dir) / f"{stem}.csv"
        self.json = pathlib.Path(out_dir) / f"{stem}.json"

    def rows(self) -> list[dict[str, str]]:
        """The epochs so far."""
        return csv_rows.read(self.csv)

    def write_rows(self, rows: list[dict[str, str]]) -> None:
        """Replaces the CSV file."""
        lines = [",".join(_COLUMNS), *(",".join(row[c] for c in _COLUMNS) for row in rows)]
        write_whole(("\n".join(lines) + "\n").encode(), self.csv)

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes the JSON file, which says that the run is finished."""
        write_whole((json.dumps(result, indent=1) + "\n").encode(), self.json)


def train(
    schedule: Schedule, seed: int, model: Any, trainer: Any, data: Images, files: RunFiles
) -> None:
    """Trains from the last checkpoint, or from the start, to the end of the schedule.

    A line of the CSV file and a checkpoint are written after each epoch. A killed run that goes on
    ends with the same weights as one that was not killed.

    Args:
        schedule: How it trains.
        seed: Of the order of the images, and of how they are shifted.
        model: The network that is measured.
        trainer: What is fitted: the network, or its Distiller.
        data: The images.
        files: The run's files.
    """
    steps = len(data.train.x_train) // schedule.batch_size
    rate = _learning_rate(schedule, steps * schedule.epochs)
    loss = {"loss": "sparse_categorical_crossentropy"} if trainer is model else {}
    trainer.compile(_optimizer(schedule, rate), **loss, metrics=["accuracy"])
    checkpoint = tf.train.Checkpoint(model=trainer)
    manager = tf.train.CheckpointManager(checkpoint, str(files.folder), max_to_keep=1)
    done = 0
    if manager.latest_checkpoint:
        done = int(manager.latest_checkpoint.rsplit("-", 1)[1])
        checkpoint.restore(manager.latest_checkpoint)
        print(f"goes on after epoch {done}", flush=True)
    rows = files.rows()[:done]
    for epoch in range(done, schedule.epochs):
        start = time.monotonic()
        batches = data.batches(schedule.batch_size, seed, epoch)
        history = trainer.fit(batches, initial_epoch=epoch, epochs=epoch + 1, verbose=0).history
        seconds = time.monotonic() - start
        row = {
            "epoch": str(epoch + 1),
            "learning_rate": f"{float(rate(steps * epoch)):.5f}",
            "loss": f"{history['loss'][0]:.4f}",
            "train_accuracy": f"{100 * history['accuracy'][0]:.2f}",
            "test_accuracy": f"{data.accuracy(model):.2f}",
            "reestimated_accuracy": f"{_reestimated_accuracy(model, batches, data):.2f}",
            "seconds": f"{seconds:.0f}",
        }
        rows.append(row)
        files.write_rows(rows)
        manager.save(epoch + 1)
        print(
            f"epoch {epoch + 1}/{schedule.epochs}: loss {row['loss']}, train "
            f"{row['train_accuracy']} %, test {row['test_accuracy']} %, {row['seconds']} s",
            flush=True,
        )


def _reestimated_accuracy(model: Any, batches: Any, data: Images) -> float:
    """The accuracy with batch norm's statistics measured again; the model stays as it is."""
    kept = model.get_weights()
    wrpn_tf.reestimate_batch_norm(model, batches, max_batches=_REESTIMATION_BATCHES, verbose=False)
    accuracy = data.accuracy(model)
    model.set_weights(kept)
    return accuracy


def _learning_rate(schedule: Schedule, num_steps: int) -> Any:
    if not schedule.steps:
        return tf_keras.optimizers.schedules.CosineDecay(schedule.learning_rate, num_steps)
    boundaries = [round(share * num_steps) for share in schedule.steps]
    rates = [schedule.learning_rate / 10**count for count in range(len(boundaries) + 1)]
    # Keras changes the rate after the step that is named.
    return tf_keras.optimizers.schedules.PiecewiseConstantDecay([b - 1 for b in boundaries], rates)


def _optimizer(schedule: Schedule, rate: Any) -> Any:
    # Decoupled decay is not amplified by momentum, as SGD's customary L2 is.
    decay = schedule.weight_decay / (1 - schedule.momentum)
    optimizer = tf_keras.optimizers.SGD(rate, schedule.momentum, nesterov=True, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "range"])
    return optimizer


def export(model: Any, data: Images, files: RunFiles) -> dict[str, Any]:
    """Writes the integer file (int8 storage), and compares it with Keras on the whole test set."""
    snapped, moves = tflite_export.snap(model, "int8", (data.x_test, data.y_test))
    blob = tflite_export.convert(snapped, "int8", snap_first=False)
    tflite_export.save(blob, files.folder / "int8.tflite")
    snapped.save_weights(files.folder / "snapped.h5")
    before, after = moves.accuracies
    outputs = tflite_files.predict(blob, data.x_test, _TEST_BATCH)
    return {
        "bytes": len(blob),
        "keras_accuracy": round(100 * before, 2),
        "snapped_accuracy": round(100 * after, 2),
        "tflite_accuracy": round(data.accuracy_of(outputs), 2),
    }
