"""Trains a table of low-precision networks on CIFAR-10, ours and other tools', and reports on it.

    python examples/experiments/cifar10.py --data_dir=.../cifar-10-batches-py --teacher=resnet20.h5

The runs are those of `cifar10.yaml`, or of a file of yours in its form. Each is a process of its
own, so that several train at a time and a crash costs one epoch of one run. Kill it when you like:
the same command goes on after the last finished epoch of each run, and computes nothing again.
QKeras and Larq need NumPy 1 and an environment of their own:

    python -m venv tools && tools/bin/pip install "tensorflow==2.18.*" "tf_keras==2.18.*" \
        tensorflow-model-optimization "numpy<2" qkeras larq pyparsing pyyaml absl-py setuptools
    tools/bin/pip install --no-deps -e .

and --tools_python=tools/bin/python; without it their runs are left out.

A run of ResNet-8 for 30 epochs takes some 25 minutes on one core, with a teacher one to one and a
half hours; of ResNet-20 three times that.
"""

from __future__ import annotations

import concurrent.futures
import pathlib
import subprocess
import sys
import threading

import cifar10_config
import cifar10_report
from absl import app, flags
from cifar10_config import Run

_HERE = pathlib.Path(__file__).resolve().parent

_CONFIG = flags.DEFINE_string("config", str(_HERE / "cifar10.yaml"), "YAML file of runs.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py.")
_TEACHER = flags.DEFINE_string("teacher", None, "Of distilled runs: a float tf_keras .h5 file.")
_ONLY = flags.DEFINE_list("only", None, "Names of runs; all by default.")
_SEEDS = flags.DEFINE_integer("seeds", None, "At most so many seeds of each run.", lower_bound=1)
_WORKERS = flags.DEFINE_integer("workers", 2, "Runs at a time.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of each run.", lower_bound=1)
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
    report = cifar10_report.write(runs, pathlib.Path(_OUT_DIR.value))
    print(report)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}; their output is in {_WORK_DIR.value}.")


def train_all(runs: dict[str, Run]) -> list[str]:
    """Trains the runs that have no result yet; returns the names of those that failed."""
    jobs = todo(runs)
    if not jobs:
        return []
    if _DATA_DIR.value is None:
        raise app.UsageError("--data_dir must be given to train; --report_only trains nothing.")
    if _TEACHER.value is None and any(run.distill is not None for run, _ in jobs):
        raise app.UsageError("--teacher must be given for runs that are distilled.")
    queue = Queue(jobs)
    with concurrent.futures.ThreadPoolExecutor(_WORKERS.value) as pool:
        workers = [pool.submit(queue.work) for _ in range(_WORKERS.value)]
        for worker in workers:
            worker.result()
    return queue.failed


def todo(runs: dict[str, Run]) -> list[tuple[Run, int]]:
    """The runs without a result, all of seed 0 first."""
    unknown = set(_ONLY.value or ()) - set(runs)
    if unknown:
        raise app.UsageError(
            f"--only must name runs of {_CONFIG.value}, got {', '.join(sorted(unknown))}."
        )
    most = max(run.seeds for run in runs.values())
    jobs = [
        (run, seed)
        for seed in range(min(most, _SEEDS.value or most))
        for run in runs.values()
        if seed < run.seeds and (_ONLY.value is None or run.name in _ONLY.value)
    ]
    jobs = [job for job in jobs if not _result(job).exists()]
    left_out = [run.name for run, _ in jobs if run.needs_other_environment]
    if left_out and _TOOLS_PYTHON.value is None:
        print(f"Left out, for want of --tools_python: {', '.join(dict.fromkeys(left_out))}.")
        jobs = [(run, seed) for run, seed in jobs if not run.needs_other_environment]
    return jobs


class Queue:
    """Runs in order, a run that starts from another's weights once those are there."""

    def __init__(self, jobs: list[tuple[Run, int]]):
        self._jobs = list(jobs)
        self._count = len(jobs)
        self._running: set[tuple[str, int]] = set()
        self._changed = threading.Condition()
        self.failed: list[str] = []

    def work(self) -> None:
        """Trains one run after the other until there is none left."""
        while (job := self._next()) is not None:
            run, seed = job
            code = _train(run, seed)
            with self._changed:
                self._running.remove((run.name, seed))
                if code:
                    self.failed.append(f"{run.name} (seed {seed})")
                self._changed.notify_all()

    def _next(self) -> tuple[Run, int] | None:
        with self._changed:
            while self._jobs:
                ready = [job for job in self._jobs if self._is_ready(job)]
                if ready:
                    self._jobs.remove(ready[0])
                    run, seed = ready[0]
                    self._running.add((run.name, seed))
                    print(
                        f"[{self._count - len(self._jobs)}/{self._count}] {run.name}, seed {seed}"
                    )
                    return ready[0]
                if not self._running:
                    self.failed += [
                        f"{r.name} (seed {s}): `start` is missing" for r, s in self._jobs
                    ]
                    self._jobs.clear()
                    return None
                self._changed.wait()
        return None

    @staticmethod
    def _is_ready(job: tuple[Run, int]) -> bool:
        run, seed = job
        return run.start is None or _result_file(run.start, seed).exists()


def _train(run: Run, seed: int) -> int:
    """Trains in a new process, whose lines are shown and kept; returns its exit code."""
    flags_of_run = {
        "config": _CONFIG.value,
        "run": run.name,
        "seed": seed,
        "data_dir": _DATA_DIR.value,
        "out_dir": _OUT_DIR.value,
        "work_dir": _WORK_DIR.value,
        "threads": _THREADS.value,
    }
    if run.distill is not None:
        flags_of_run["teacher"] = _TEACHER.value
    python = _TOOLS_PYTHON.value if run.needs_other_environment else sys.executable
    command = [python, str(_HERE / "cifar10_train.py")]
    command += [f"--{name}={value}" for name, value in flags_of_run.items()]
    log = pathlib.Path(_WORK_DIR.value) / f"{run.name}_seed{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            print(f"{run.name} {seed}: {line}", end="", flush=True)
    return process.returncode


def _result(job: tuple[Run, int]) -> pathlib.Path:
    run, seed = job
    return _result_file(run.name, seed)


def _result_file(name: str, seed: int) -> pathlib.Path:
    return pathlib.Path(_OUT_DIR.value) / f"{name}_seed{seed}.json"


if __name__ == "__main__":
    app.run(main)
