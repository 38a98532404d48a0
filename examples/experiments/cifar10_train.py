"""One run of `cifar10.py`, in a process of its own: trains, measures each epoch, exports.

    python examples/experiments/cifar10_train.py --config=examples/experiments/cifar10.yaml \
        --run=w2a8 --seed=0 --data_dir=.../cifar-10-batches-py

After each epoch a line is added to RUN_seedS.csv in --out_dir and a checkpoint is written to
--work_dir, from which a run that was killed goes on as if it had not been. RUN_seedS.json, written
at the end, has the result and how it was obtained.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # QKeras and Larq read it.

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import cifar10_config
import cifar10_networks
import datasets
import tensorflow as tf
import tf_keras
import tflite_files
from cifar10_config import Run

import wrpn_tf
from wrpn_tf.whole_file import write_whole

_CONFIG = flags.DEFINE_string("config", None, "YAML file of runs.", required=True)
_RUN = flags.DEFINE_string("run", None, "Name of the run.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Of weights, order and augmentation.", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py.", required=True)
_TEACHER = flags.DEFINE_string("teacher", None, "Of distilled runs: a float tf_keras .h5 file.")
_OUT_DIR = flags.DEFINE_string("out_dir", "cifar10", "Where CSV and JSON files are written.")
_WORK_DIR = flags.DEFINE_string("work_dir", "cifar10_checkpoints", "Checkpoints, trained nets.")
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of TensorFlow.", lower_bound=1)

COLUMNS = ("epoch", "learning_rate", "loss", "train_accuracy", "test_accuracy", "seconds")
_PACKAGES = ("wrpn_tf", "tensorflow", "tf_keras", "tensorflow-model-optimization", "qkeras", "larq")
_TEST_BATCH = 500
_CALIBRATION_IMAGES = 1024


def main(argv: list[str]) -> None:
    """Trains what is not trained yet."""
    del argv
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    run = cifar10_config.read(_CONFIG.value)[_RUN.value]
    if run.distill is not None and _TEACHER.value is None:
        raise app.UsageError(f"--teacher must be given for {run.name}, which is distilled.")
    data = Images(datasets.load("cifar10", _DATA_DIR.value))
    files = RunFiles(run.name, _SEED.value, _OUT_DIR.value, _WORK_DIR.value)
    tf_keras.utils.set_random_seed(_SEED.value)
    if run.start is None:
        model = cifar10_networks.build(run)
    else:
        start = RunFiles(run.start, _SEED.value, _OUT_DIR.value, _WORK_DIR.value)
        model = cifar10_networks.build(run, start.weights)
        images = data.train.x_train[:_CALIBRATION_IMAGES] - data.mean
        wrpn_tf.calibrate(model, images, verbose=False)
    trainer = model
    if run.distill is not None:
        teacher = tf_keras.models.load_model(_TEACHER.value, compile=False)
        trainer = wrpn_tf.Distiller(model, teacher, **run.distill)
    train(run, model, trainer, data, files)
    model.save_weights(files.weights)
    rows = files.rows()
    result = {
        "run": dataclasses.asdict(run),
        "seed": _SEED.value,
        "parameters": model.count_params(),
        "test_accuracy": float(rows[-1]["test_accuracy"]),
        "seconds": round(sum(float(row["seconds"]) for row in rows)),
        **provenance(),
    }
    if run.distill is not None:
        name = pathlib.Path(_TEACHER.value).name
        result["teacher"] = {"file": name, "test_accuracy": round(data.accuracy(teacher), 2)}
    if run.export:
        result["export"] = export(model, data, files)
    files.write_result(result)
    print(f"done: {result['test_accuracy']:.2f} %", flush=True)


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
        outputs = model.predict(self.x_test, _TEST_BATCH, verbose=0)
        return 100 * float((outputs.argmax(1) == self.y_test).mean())


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
        if not self.csv.exists():
            return []
        with self.csv.open(newline="") as file:
            return list(csv.DictReader(file))

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Replaces the CSV file."""
        lines = [",".join(COLUMNS)]
        lines += [",".join(str(row[column]) for column in COLUMNS) for row in rows]
        write_whole(("\n".join(lines) + "\n").encode(), self.csv)

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes the JSON file, which says that the run is finished."""
        write_whole((json.dumps(result, indent=1) + "\n").encode(), self.json)


def train(run: Run, model: Any, trainer: Any, data: Images, files: RunFiles) -> None:
    """Trains from the last checkpoint, or from the start, to the end of the schedule.

    Args:
        run: The run.
        model: The network that is measured.
        trainer: What is fitted: the network, or its Distiller.
        data: The images.
        files: The run's files.
    """
    plan = run.schedule
    steps = len(data.train.x_train) // plan.batch_size
    schedule = tf_keras.optimizers.schedules.CosineDecay(plan.learning_rate, steps * plan.epochs)
    # Decoupled decay is not amplified by momentum, as SGD's customary L2 is.
    decay = plan.weight_decay / (1 - plan.momentum)
    optimizer = tf_keras.optimizers.SGD(schedule, plan.momentum, nesterov=True, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "range"])
    loss = None if trainer is not model else "sparse_categorical_crossentropy"
    trainer.compile(optimizer, **({} if loss is None else {"loss": loss}), metrics=["accuracy"])
    checkpoint = tf.train.Checkpoint(model=trainer)
    manager = tf.train.CheckpointManager(checkpoint, str(files.folder), max_to_keep=1)
    done = 0
    if manager.latest_checkpoint:
        done = int(manager.latest_checkpoint.rsplit("-", 1)[1])
        checkpoint.restore(manager.latest_checkpoint)
        print(f"goes on after epoch {done}", flush=True)
    rows: list[dict[str, Any]] = list(files.rows()[:done])
    for epoch in range(done, plan.epochs):
        start = time.monotonic()
        rate = float(schedule(steps * epoch))
        batches = data.batches(plan.batch_size, _SEED.value, epoch)
        history = trainer.fit(batches, initial_epoch=epoch, epochs=epoch + 1, verbose=0).history
        seconds = time.monotonic() - start
        rows.append(
            {
                "epoch": epoch + 1,
                "learning_rate": f"{rate:.5f}",
                "loss": f"{history['loss'][0]:.4f}",
                "train_accuracy": f"{100 * history['accuracy'][0]:.2f}",
                "test_accuracy": f"{data.accuracy(model):.2f}",
                "seconds": f"{seconds:.0f}",
            }
        )
        files.write_rows(rows)
        manager.save(epoch + 1)
        print(f"epoch {epoch + 1}/{plan.epochs}: " + _in_words(rows[-1]), flush=True)


def export(model: Any, data: Images, files: RunFiles) -> dict[str, Any]:
    """Writes the integer file (int8 storage), and compares it with Keras on the whole test set."""
    import tflite_export

    snapped, moves = tflite_export.snap(model, "int8", (data.x_test, data.y_test))
    blob = tflite_export.convert(snapped, "int8", snap_first=False)
    tflite_export.save(blob, files.folder / "int8.tflite")
    snapped.save_weights(files.folder / "snapped.h5")
    outputs = tflite_files.predict(blob, data.x_test, _TEST_BATCH)
    return {
        "bytes": len(blob),
        "keras_accuracy": round(100 * moves.accuracies[0], 2),
        "snapped_accuracy": round(100 * moves.accuracies[1], 2),
        "tflite_accuracy": round(100 * float((outputs.argmax(1) == data.y_test).mean()), 2),
    }


def provenance() -> dict[str, Any]:
    """How the result was obtained: command, commit, versions, hardware, date."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=pathlib.Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit or "unknown",
        "versions": versions,
        "hardware": f"{_processor()}, {_THREADS.value} thread(s)",
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _in_words(row: dict[str, Any]) -> str:
    return (
        f"loss {row['loss']}, train {row['train_accuracy']} %, test {row['test_accuracy']} %, "
        f"{row['seconds']} s"
    )


if __name__ == "__main__":
    app.run(main)
