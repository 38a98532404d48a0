"""Trains a table of low-precision networks on CIFAR-10, ours and other tools', and reports on it.

    python examples/experiments/cifar10.py --data_dir=.../cifar-10-batches-py --teacher=resnet20.h5

The runs are those of `cifar10.yaml`, or of a file of yours in its form, or in that of
`cifar10_resnet20.yaml`, which trains the same runs of a deeper net; give a file of yours an
--out_dir and a --work_dir of its own. Each run is a process, so that several train at a time and a
crash costs one epoch of one run. Kill it when you like: the same command goes on after the last
finished epoch of each run, and computes nothing again.
QKeras and Larq need NumPy 1 and an environment of their own:

    python -m venv tools && tools/bin/pip install "tensorflow==2.18.*" "tf_keras==2.18.*" \
        tensorflow-model-optimization "numpy<2" qkeras larq pyparsing pyyaml absl-py setuptools
    tools/bin/pip install --no-deps -e .

and --tools_python=tools/bin/python; without it their runs are left out.

KERAS_BACKEND=jax and --keras_flavor=keras train our networks in Keras 3 on JAX, say on a GPU, even
where TensorFlow is not installed; the same command with TensorFlow then adds the integer files.

A run of ResNet-8 for 30 epochs takes some 40 minutes on one core, with a teacher an hour; of
ResNet-20 an hour and a half, with a teacher or widened two to five. Without AVX-512 it takes up to
twice as long.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import pathlib
import subprocess
import sys

import cifar10_config
import cifar10_queue
import cifar10_report
from absl import app, flags
from cifar10_config import Run
from cifar10_queue import Job

_HERE = pathlib.Path(__file__).resolve().parent

_CONFIG = flags.DEFINE_string("config", str(_HERE / "cifar10.yaml"), "YAML file of runs.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py.")
_TEACHER = flags.DEFINE_string(
    "teacher",
    None,
    "Of distilled runs: a float tf_keras .h5 file that reads x / 255 minus CIFAR-10's mean "
    "training image.",
)
_ONLY = flags.DEFINE_list("only", None, "Names of runs; all by default.")
_SEEDS = flags.DEFINE_integer("seeds", None, "At most so many seeds of each run.", lower_bound=1)
_WORKERS = flags.DEFINE_integer("workers", 2, "Runs at a time.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of each run.", lower_bound=1)
_KERAS_FLAVOR = flags.DEFINE_enum(
    "keras_flavor", "tf_keras", ["keras", "tf_keras"], "Which Keras trains our networks."
)
_TOOLS_PYTHON = flags.DEFINE_string("tools_python", None, "Python that has QKeras and Larq.")
_OUT_DIR = flags.DEFINE_string("out_dir", "cifar10", "Where results are written.")
_WORK_DIR = flags.DEFINE_string("work_dir", "cifar10_checkpoints", "Checkpoints, trained nets.")
_REPORT_ONLY = flags.DEFINE_boolean("report_only", False, "Train nothing.")


def main(argv: list[str]) -> None:
    """Trains what is missing, then writes the report."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    try:
        runs = cifar10_config.read(_CONFIG.value)
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    failed = [] if _REPORT_ONLY.value else train_all(runs)
    out_dir, config = pathlib.Path(_OUT_DIR.value), pathlib.Path(_CONFIG.value)
    print(cifar10_report.write(runs, out_dir, config))
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}; their logs are in {_WORK_DIR.value}.")


def train_all(runs: dict[str, Run]) -> list[str]:
    """Trains the runs that have no result yet; returns the names of those that failed."""
    only = set(runs if _ONLY.value is None else _ONLY.value)
    if not only <= set(runs):
        unknown = ", ".join(sorted(only - set(runs)))
        raise app.UsageError(f"--only must name runs of {_CONFIG.value}, got {unknown}.")
    is_finished = functools.partial(_is_finished, runs)
    todo = cifar10_queue.jobs(runs, only, _SEEDS.value, is_finished)
    if _TOOLS_PYTHON.value is None:
        left_out = {job.run.name: None for job in todo if job.run.needs_other_environment}
        if left_out:
            print(f"Left out, for want of --tools_python: {', '.join(left_out)}.")
        todo = [job for job in todo if job.run.name not in left_out]
    if todo and _DATA_DIR.value is None:
        raise app.UsageError("--data_dir must be given to train; --report_only trains nothing.")
    if _TEACHER.value is None and any(job.run.distill is not None for job in todo):
        raise app.UsageError("--teacher must be given for runs that are distilled.")
    return cifar10_queue.Queue(todo, train, is_finished, _WORKERS.value).run()


def train(job: Job) -> int:
    """Trains in a new process, whose lines are shown and kept; returns its exit code."""
    flags_of_job = {
        "config": _CONFIG.value,
        "run": job.run.name,
        "seed": job.seed,
        "data_dir": _DATA_DIR.value,
        "out_dir": _OUT_DIR.value,
        "work_dir": _WORK_DIR.value,
        "threads": _THREADS.value,
    }
    if job.run.tool is None:
        flags_of_job["keras_flavor"] = _KERAS_FLAVOR.value
    if job.run.distill is not None:
        flags_of_job["teacher"] = _TEACHER.value
    python = _TOOLS_PYTHON.value if job.run.needs_other_environment else sys.executable
    command = [python, str(_HERE / "cifar10_train.py")]
    command += [f"--{name}={value}" for name, value in flags_of_job.items()]
    log = pathlib.Path(_WORK_DIR.value) / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{job.name}: starts", flush=True)
    with (
        log.open("a") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            print(f"{job.name}: {line}", end="", flush=True)
    return process.returncode


def _is_finished(runs: dict[str, Run], name: str, seed: int) -> bool:
    """Whether a run is trained, and exported where TensorFlow is there to do it."""
    path = pathlib.Path(_OUT_DIR.value) / f"{name}_seed{seed}.json"
    if not path.exists():
        return False
    can_export = importlib.util.find_spec("tensorflow") is not None
    return not (runs[name].export and can_export) or "export" in json.loads(path.read_text())


if __name__ == "__main__":
    app.run(main)
