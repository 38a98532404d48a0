"""One run of `cifar10.py`, in a process of its own: trains, measures each epoch, exports.

    python examples/experiments/cifar10_train.py --config=examples/experiments/cifar10.yaml \
        --run=w2a8 --seed=0 --data_dir=.../cifar-10-batches-py

After each epoch a line is added to RUN_seedS.csv in --out_dir and a checkpoint is written to
--work_dir, from which a run that was killed goes on as if it had not been. RUN_seedS.json, written
at the end, has the result and how it was obtained.

--keras_flavor=keras trains our networks in Keras 3, with the backend that KERAS_BACKEND names. JAX
trains where TensorFlow is not installed, and leaves the integer file to the same command with
TensorFlow.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # QKeras and Larq read it.
# TensorFlow leaves it off on CPUs without VNNI, where it cuts a step of ResNet-8 from 415 ms
# to 235.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import cifar10_config
import cifar10_networks
import datasets
from cifar10_config import Run
from cifar10_training import Images, RunFiles, quantized, train

import wrpn_tf
from wrpn_tf.keras_flavor import get_flavor

_CONFIG = flags.DEFINE_string("config", None, "YAML file of runs.", required=True)
_RUN = flags.DEFINE_string("run", None, "Name of the run.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Of weights, order and augmentation.", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py.", required=True)
_TEACHER = flags.DEFINE_string(
    "teacher",
    None,
    "Of distilled runs: a float tf_keras .h5 file that reads x / 255 minus CIFAR-10's mean "
    "training image.",
)
_OUT_DIR = flags.DEFINE_string("out_dir", "cifar10", "Where CSV and JSON files are written.")
_WORK_DIR = flags.DEFINE_string("work_dir", "cifar10_checkpoints", "Checkpoints, trained nets.")
_KERAS_FLAVOR = flags.DEFINE_enum(
    "keras_flavor", "tf_keras", ["keras", "tf_keras"], "Which Keras; other tools need tf_keras."
)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of TensorFlow.", lower_bound=1)

# In percent. Less is a net that was trained for other images, or on another input than it gets.
_LEAST_TEACHER_ACCURACY = 50

_PACKAGES = (
    "wrpn_tf",
    "tensorflow",
    "tf_keras",
    "keras",
    "jax",
    "tensorflow-model-optimization",
    "qkeras",
    "larq",
)


def main(argv: list[str]) -> None:
    """Trains what is not trained yet."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    runs = cifar10_config.read(_CONFIG.value)
    if _RUN.value not in runs:
        raise app.UsageError(f"--run must be one of {', '.join(runs)}, got {_RUN.value}.")
    run = runs[_RUN.value]
    if run.distill is not None and _TEACHER.value is None:
        raise app.UsageError(f"--teacher must be given for {run.name}, which is distilled.")
    if run.tool is not None and _KERAS_FLAVOR.value != "tf_keras":
        raise app.UsageError(f"--keras_flavor must be tf_keras for {run.name}, another tool's.")
    if importlib.util.find_spec("tensorflow") is not None:
        _limit_threads()
    data = Images(datasets.load("cifar10", _DATA_DIR.value))
    files = RunFiles(run.name, _SEED.value, _OUT_DIR.value, _WORK_DIR.value)
    result = train_run(run, data, files)
    if run.export and importlib.util.find_spec("tensorflow") is not None:
        from cifar10_export import export

        model = cifar10_networks.build(run, _KERAS_FLAVOR.value)
        model.load_weights(files.weights(_KERAS_FLAVOR.value))
        files.write_result(result | {"export": export(model, data, files)})
    print(f"done: {result['test_accuracy']:.2f} %", flush=True)


def train_run(run: Run, data: Images, files: RunFiles) -> dict[str, Any]:
    """Trains a run to its end, unless it was; returns its result, which is then written."""
    if files.json.exists():
        return json.loads(files.json.read_text())
    keras = get_flavor(_KERAS_FLAVOR.value).keras
    if run.distill is not None:  # First: a net that is loaded draws weights.
        teacher, accuracy = _load_teacher(keras, data)
    keras.utils.set_random_seed(_SEED.value)
    result = {"run": dataclasses.asdict(run), "seed": _SEED.value, "versions": _versions()}
    result["parts"] = files.begin_part(_provenance(result["versions"]), run.schedule.epochs)
    model = _network(run, data, files)
    trainer = model
    if run.distill is not None:
        trainer = wrpn_tf.Distiller(model, teacher, **run.distill)
        name = pathlib.Path(_TEACHER.value).name
        result["teacher"] = {"file": name, "test_accuracy": round(accuracy, 2)}
    epochs = range(run.float_epochs, run.schedule.epochs)
    train(run.schedule, epochs, _SEED.value, model, trainer, data, files)
    model.save_weights(files.weights(_KERAS_FLAVOR.value))
    rows = files.rows()
    result |= {
        "parameters": model.count_params(),
        "test_accuracy": float(rows[-1]["test_accuracy"]),
        "seconds": round(sum(float(row["seconds"]) for row in rows)),
    }
    files.write_result(result)
    return result


def _load_teacher(keras: Any, data: Images) -> tuple[Any, float]:
    """Returns the teacher and its accuracy in percent; ends where it does not know the images."""
    teacher = keras.models.load_model(_TEACHER.value, compile=False)
    accuracy = data.accuracy(teacher)
    print(f"teacher: {accuracy:.2f} %", flush=True)
    if accuracy < _LEAST_TEACHER_ACCURACY:
        sys.exit(
            "Error: `teacher` must be a float net that reads x / 255 minus CIFAR-10's mean "
            f"training image and tells at least {_LEAST_TEACHER_ACCURACY} % of the test images "
            f"right, got {accuracy:.2f} % by {_TEACHER.value}."
        )
    return teacher, accuracy


def _network(run: Run, data: Images, files: RunFiles) -> Any:
    """The network that is measured, before it trains as such."""
    network = cifar10_networks.float_network(run, _KERAS_FLAVOR.value)
    if run.start is not None:
        start = RunFiles(run.start, _SEED.value, _OUT_DIR.value, _WORK_DIR.value)
        network.load_weights(start.weights(_KERAS_FLAVOR.value))
    return quantized(run, _SEED.value, network, data, files)


def _limit_threads() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _provenance(versions: Mapping[str, str]) -> dict[str, str]:
    """How this process trains: commit, backend, hardware, date."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=pathlib.Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    trained_with, hardware = _backend(versions)
    return {
        "commit": commit or "unknown",
        "trained_with": trained_with,
        "hardware": hardware,
        "date": datetime.date.today().isoformat(),
    }


def _backend(versions: Mapping[str, str]) -> tuple[str, str]:
    """What computes, in words, and on what."""
    cpu = f"{_processor()}, {_THREADS.value} thread(s)"
    if _KERAS_FLAVOR.value == "tf_keras":
        return f"TensorFlow {versions['tensorflow']}", cpu
    backend = get_flavor("keras").keras.backend.backend()
    words = f"Keras {versions['keras']}, {backend} {versions[backend]}"
    if backend == "tensorflow":
        return words, cpu
    import jax

    return words, jax.devices()[0].device_kind


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    app.run(main)
