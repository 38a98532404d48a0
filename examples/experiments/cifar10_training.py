"""Trains one network of `cifar10.py`, of either Keras, measures it after each epoch, resumes."""

from __future__ import annotations

import io
import json
import pathlib
import time
from typing import Any

import cifar10_networks
import csv_rows
import datasets
import numpy as np
from cifar10_config import Run, Schedule

import wrpn_tf
from wrpn_tf.keras_flavor import flavor_of
from wrpn_tf.whole_file import write_whole

TEST_BATCH = 500

_COLUMNS = (
    "epoch",
    "learning_rate",
    "loss",
    "train_accuracy",
    "test_accuracy",
    "reestimated_accuracy",
    "seconds",
)
_REESTIMATION_BATCHES = 20
_CALIBRATION_IMAGES = 1024


class Images:
    """CIFAR-10 minus the mean training image, which is what the teachers read."""

    def __init__(self, train: datasets.Dataset):
        self.train = train
        self.mean = train.x_train.mean(0)
        self.x_test = train.x_test - self.mean
        self.y_test = train.y_test

    def batches(self, keras: Any, batch_size: int, seed: int, epoch: int) -> Any:
        """One epoch's batches as a Keras' `fit` takes them; they depend on seed and epoch alone."""
        if keras.backend.backend() == "tensorflow":
            batches = self.train.training_batches(batch_size, (seed, epoch))
            return batches.map(lambda x, y: (x - self.mean, y))
        rng = np.random.default_rng((seed, epoch))
        return ((x - self.mean, y) for x, y in self.train.epoch(batch_size, rng))

    def accuracy(self, model: Any) -> float:
        """The share of test images that a network tells right, in percent."""
        return self.accuracy_of(self.outputs(model))

    def outputs(self, model: Any) -> np.ndarray:
        """What a network makes of the test images, [images, classes]."""
        batches = np.split(self.x_test, range(TEST_BATCH, len(self.x_test), TEST_BATCH))
        return np.concatenate([model.predict_on_batch(x) for x in batches])

    def accuracy_of(self, outputs: np.ndarray) -> float:
        """The share of test images that outputs tell right, in percent."""
        return 100 * float(self.are_right(outputs).mean())

    def are_right(self, outputs: np.ndarray) -> np.ndarray:
        """Which test images outputs tell right, bool [images]."""
        return outputs.argmax(axis=1) == self.y_test


class RunFiles:
    """What a run writes."""

    def __init__(self, name: str, seed: int, out_dir: str, work_dir: str):
        stem = f"{name}_seed{seed}"
        self.folder = pathlib.Path(work_dir) / stem
        self.folder.mkdir(parents=True, exist_ok=True)
        pathlib.Path(out_dir).mkdir(parents=True, exist_ok=True)
        self.csv = pathlib.Path(out_dir) / f"{stem}.csv"
        self.json = pathlib.Path(out_dir) / f"{stem}.json"
        self._checkpoint = self.folder / "checkpoint.npz"
        self._parts = self.folder / "parts.json"

    def weights(self, keras_flavor: str) -> pathlib.Path:
        """The trained net's, in the form that a Keras has for quantized models."""
        return self.folder / ("final.h5" if keras_flavor == "tf_keras" else "final.weights.h5")

    def save_checkpoint(self, trainer: Any, epoch: int) -> None:
        """Writes all that the training after an epoch depends on."""
        values = [*trainer.get_weights(), *map(np.asarray, trainer.optimizer.variables)]
        file = io.BytesIO()
        np.savez(file, epoch, *values)
        write_whole(file.getvalue(), self._checkpoint)

    def finished_epochs(self) -> int:
        """The epoch after which the checkpoint was written, 0 if there is none."""
        if not self._checkpoint.exists():
            return 0
        with np.load(self._checkpoint) as file:
            return int(file[file.files[0]])

    def restore_checkpoint(self, trainer: Any) -> None:
        """Reads it into a trainer that is compiled."""
        with np.load(self._checkpoint) as file:
            _, *values = file.values()
        trainer.optimizer.build(trainer.trainable_variables)
        count = len(trainer.weights)
        trainer.set_weights(values[:count])
        for variable, value in zip(trainer.optimizer.variables, values[count:], strict=True):
            variable.assign(value)

    def begin_part(self, provenance: dict[str, str], num_epochs: int) -> list[dict[str, Any]]:
        """Notes how the epochs from here on are trained; returns that of each part of the run.

        Args:
            provenance: What is noted.
            num_epochs: Of the whole run. After the last one, nothing is left to note.
        """
        first = self.finished_epochs() + 1
        parts = json.loads(self._parts.read_text()) if self._parts.exists() else []
        # A part that did not finish an epoch has trained nothing that is left.
        parts = [part for part in parts if part["first_epoch"] < first]
        if first <= num_epochs:
            parts.append({"first_epoch": first, **provenance})
        write_whole((json.dumps(parts, indent=1) + "\n").encode(), self._parts)
        return parts

    def rows(self) -> list[dict[str, str]]:
        """The epochs so far."""
        return csv_rows.read(self.csv)

    def write_rows(self, rows: list[dict[str, str]]) -> None:
        """Replaces the CSV file."""
        lines = [",".join(_COLUMNS), *(",".join(row[c] for c in _COLUMNS) for row in rows)]
        write_whole(("\n".join(lines) + "\n").encode(), self.csv)

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes the JSON file, which says that the run is trained."""
        write_whole((json.dumps(result, indent=1) + "\n").encode(), self.json)


def quantized(run: Run, seed: int, network: Any, data: Images, files: RunFiles) -> Any:
    """Returns what a run measures, calibrated where its weights are trained.

    The epochs in float are trained here, before that, and a killed run goes on in them.

    Args:
        run: The run.
        seed: As for `train`.
        network: The float network.
        data: The images.
        files: The run's files.
    """
    is_quantized = files.finished_epochs() > run.float_epochs  # In the checkpoint, as calibrated.
    if run.float_epochs and not is_quantized:
        train(run.schedule, range(run.float_epochs), seed, network, network, data, files)
    model = cifar10_networks.quantize(run, network)
    if not is_quantized and (run.start is not None or run.float_epochs):
        images = data.train.x_train[:_CALIBRATION_IMAGES] - data.mean
        wrpn_tf.calibrate(model, images, verbose=False)
    return model


def train(
    schedule: Schedule,
    epochs: range,
    seed: int,
    model: Any,
    trainer: Any,
    data: Images,
    files: RunFiles,
) -> None:
    """Trains from the last checkpoint, or from the first of some epochs, to the last of them.

    A line of the CSV file and a checkpoint are written after each epoch. A killed run that goes on
    ends with the same weights as one that was not killed.

    Args:
        schedule: How the run trains.
        epochs: Those of the schedule in which this trainer trains.
        seed: Of the order of the images, and of how they are shifted.
        model: The network that is measured.
        trainer: What is fitted: the network, or its Distiller.
        data: The images.
        files: The run's files.
    """
    keras = flavor_of(model).keras
    steps = len(data.train.x_train) // schedule.batch_size
    rate = _learning_rate(keras, schedule, steps * schedule.epochs)
    loss = {"loss": "sparse_categorical_crossentropy"} if trainer is model else {}
    trainer.compile(
        _optimizer(keras, schedule, rate),
        **loss,
        metrics=["accuracy"],
        # TensorFlow's XLA makes such networks slower on a CPU.
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    done = files.finished_epochs()
    if done > epochs.start:
        print(f"goes on after epoch {done}", flush=True)
        files.restore_checkpoint(trainer)
    else:
        trainer.optimizer.iterations.assign(steps * done)
    rows = files.rows()[:done]
    for epoch in range(done, epochs.stop):
        start = time.monotonic()
        batches = data.batches(keras, schedule.batch_size, seed, epoch)
        history = trainer.fit(
            batches, shuffle=False, initial_epoch=epoch, epochs=epoch + 1, verbose=0
        ).history
        seconds = time.monotonic() - start
        again = data.batches(keras, schedule.batch_size, seed, epoch)
        row = {
            "epoch": str(epoch + 1),
            "learning_rate": f"{float(rate(steps * epoch)):.5f}",
            "loss": f"{history['loss'][0]:.4f}",
            "train_accuracy": f"{100 * history['accuracy'][0]:.2f}",
            "test_accuracy": f"{data.accuracy(model):.2f}",
            "reestimated_accuracy": f"{_reestimated_accuracy(model, again, data):.2f}",
            "seconds": f"{seconds:.0f}",
        }
        rows.append(row)
        files.write_rows(rows)
        files.save_checkpoint(trainer, epoch + 1)
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


def _learning_rate(keras: Any, schedule: Schedule, num_steps: int) -> Any:
    schedules = keras.optimizers.schedules
    if schedule.power:
        return schedules.PolynomialDecay(schedule.learning_rate, num_steps, 0.0, schedule.power)
    if not schedule.steps:
        return schedules.CosineDecay(schedule.learning_rate, num_steps)
    boundaries = [round(share * num_steps) for share in schedule.steps]
    rates = [schedule.learning_rate / 10**count for count in range(len(boundaries) + 1)]
    # Keras changes the rate after the step that is named.
    return schedules.PiecewiseConstantDecay([b - 1 for b in boundaries], rates)


def _optimizer(keras: Any, schedule: Schedule, rate: Any) -> Any:
    # Decoupled decay is not amplified by momentum, as SGD's customary L2 is.
    decay = schedule.weight_decay / (1 - schedule.momentum)
    optimizer = keras.optimizers.SGD(rate, schedule.momentum, nesterov=True, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "range"])
    return optimizer
