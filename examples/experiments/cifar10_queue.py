"""In which order the runs of `cifar10.py` are trained, several at a time."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

from cifar10_config import Run

Finished = Callable[[str, int], bool]


class Job(NamedTuple):
    """One process: a run with a seed."""

    run: Run
    seed: int

    @property
    def name(self) -> str:
        """As its files are called."""
        return f"{self.run.name}_seed{self.seed}"


def jobs(
    runs: Mapping[str, Run],
    only: Container[str],
    seeds: int | None,
    finished: Finished,
) -> list[Job]:
    """Returns what is to be trained, all of seed 0 first.

    Args:
        runs: All runs, by name.
        only: Names of those that are wanted.
        seeds: At most so many seeds of each; None: as many as it has.
        finished: Whether a run, by name, has its result for a seed.
    """
    most = max(run.seeds for run in runs.values())
    wanted = [
        Job(run, seed)
        for seed in range(most if seeds is None else min(most, seeds))
        for run in runs.values()
        if seed < run.seeds and run.name in only
    ]
    return [job for job in wanted if not finished(job.run.name, job.seed)]


class Queue:
    """Trains jobs in order, those that start from another's weights once these are there.

    Args:
        jobs: What to train.
        train: Trains one; returns the exit code of its process.
        finished: Whether a run, by name, has its result for a seed.
        workers: Jobs at a time.
    """

    def __init__(
        self,
        jobs: list[Job],
        train: Callable[[Job], int],
        finished: Finished,
        workers: int,
    ):
        self._waiting = list(jobs)
        self._train = train
        self._finished = finished
        self._workers = workers
        self._num_running = 0
        self._changed = threading.Condition()
        self._failed: list[str] = []

    def run(self) -> list[str]:
        """Trains all; returns the names of those that failed, or could not start."""
        with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
            for worker in [pool.submit(self._work) for _ in range(self._workers)]:
                worker.result()
        return self._failed + [job.name for job in self._waiting]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            code = self._train(job)
            with self._changed:
                self._num_running -= 1
                if code:
                    self._failed.append(job.name)
                self._changed.notify_all()

    def _next(self) -> Job | None:
        """Takes the first job that can start; waits for one while others may yet allow it."""
        with self._changed:
            while True:
                ready = next((job for job in self._waiting if self._can_start(job)), None)
                if ready is not None:
                    self._waiting.remove(ready)
                    self._num_running += 1
                    return ready
                if not self._waiting or not self._num_running:
                    return None
                self._changed.wait()

    def _can_start(self, job: Job) -> bool:
        return job.run.start is None or self._finished(job.run.start, job.seed)
