"""What the runs of `cifar10.py` have written, and what follows from it."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

import cifar10_config
import csv_rows
from cifar10_config import Run

_TEST_IMAGES = 10_000


@dataclasses.dataclass(frozen=True)
class Finished:
    """One trained net.

    Attributes:
        seed: Its seed.
        curve: Test accuracy after each epoch, in percent.
        reestimated: The same with batch norm's statistics measured again; empty where it was not.
        result: The content of its JSON file.
    """

    seed: int
    curve: tuple[float, ...]
    reestimated: tuple[float, ...]
    result: Mapping[str, Any]

    @property
    def accuracy(self) -> float:
        """After the last epoch, whichever was the best."""
        return self.curve[-1]


def standard_error(accuracy: float) -> float:
    """Of one net's accuracy in percent, which the number of test images gives, in points."""
    return math.sqrt(accuracy * (100 - accuracy) / _TEST_IMAGES)


@dataclasses.dataclass(frozen=True)
class Convergence:
    """When a net is first as good as another one is at its end.

    Attributes:
        target: The other's last test accuracy, in percent.
        epoch: The first epoch with at least that; None if there is none.
        others_epoch: The first epoch in which the other itself had it.
        is_reestimated: Whether both accuracies are with batch norm's statistics measured again.
    """

    target: float
    epoch: int | None
    others_epoch: int
    is_reestimated: bool


def convergence(net: Finished, other: Finished) -> Convergence:
    """Compares two nets, with statistics that were measured again if both have them."""
    is_reestimated = bool(net.reestimated and other.reestimated)
    curve, others = (x.reestimated if is_reestimated else x.curve for x in (net, other))
    target = others[-1]
    own, its = (
        [epoch for epoch, x in enumerate(c, start=1) if x >= target] for c in (curve, others)
    )
    return Convergence(target, own[0] if own else None, its[0], is_reestimated)


@dataclasses.dataclass(frozen=True)
class Row:
    """All finished seeds of a run.

    Attributes:
        run: The run.
        nets: Its nets, by seed.
    """

    run: Run
    nets: Mapping[int, Finished]

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return statistics.mean(net.accuracy for net in self.nets.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for one seed."""
        accuracies = [net.accuracy for net in self.nets.values()]
        return statistics.stdev(accuracies) if len(accuracies) > 1 else None

    def pairs(self, other: Row) -> list[tuple[Finished, Finished]]:
        """This row's nets and another's, of the seeds that both have."""
        common = sorted(set(self.nets) & set(other.nets))
        return [(self.nets[seed], other.nets[seed]) for seed in common]

    def ahead_of(self, other: Row) -> float | None:
        """Mean difference to another row, of the seeds that both have; None if there are none."""
        differences = [own.accuracy - its.accuracy for own, its in self.pairs(other)]
        # Accuracies have two decimals; a bound that is met exactly must not miss by an ulp.
        return round(statistics.mean(differences), 4) if differences else None

    def error_of_difference(self, other: Row) -> float:
        """Standard error of `ahead_of` that the number of test images gives, in points.

        As if the two nets erred independently; on the same images, they do not quite.
        """
        pairs = self.pairs(other)
        errors = [standard_error(net.accuracy) for pair in pairs for net in pair]
        return math.hypot(*errors) / len(pairs)


def read(runs: Mapping[str, Run], folder: pathlib.Path) -> dict[str, Row]:
    """Returns the rows that have a finished net, in the order of the configuration.

    Raises:
        ValueError: If a result was obtained with another configuration than the present one.
    """
    rows = {}
    for run in runs.values():
        nets = {}
        for seed in range(run.seeds):
            path = folder / f"{run.name}_seed{seed}.json"
            if path.exists():
                nets[seed] = _finished(run, seed, path)
        if nets:
            rows[run.name] = Row(run, nets)
    return rows


def ahead(rows: Mapping[str, Row], name: str, other: str) -> float | None:
    """`Row.ahead_of` of two runs by name; None also while one is not trained."""
    return rows[name].ahead_of(rows[other]) if name in rows and other in rows else None


def float_of(row: Row, rows: Mapping[str, Row]) -> Row | None:
    """The float row of the same schedule."""
    return next(
        (
            other
            for other in rows.values()
            if other.run.quantize is None
            and other.run.tool is None
            and _trains_alike(other.run, row.run)
        ),
        None,
    )


def plain_of(row: Row, rows: Mapping[str, Row]) -> Row | None:
    """The row of the same net and bits, from the same weights, without a teacher."""
    return next(
        (
            other
            for other in rows.values()
            if other.run.quantize == row.run.quantize
            and _begins_alike(other.run, row.run)
            and _trains_alike(other.run, row.run)
            and other.run.distill is None
            and other.run.tool is None
        ),
        None,
    )


def ours_of(row: Row, rows: Mapping[str, Row]) -> Row | None:
    """Our row, neither widened nor distilled, with the bits of another tool's row."""
    assert row.run.tool is not None
    bits = {key: value for key, value in row.run.tool.items() if key != "name"}
    return next(
        (
            other
            for other in rows.values()
            if other.run.quantize == bits
            and _begins_alike(other.run, row.run)
            and _trains_alike(other.run, row.run)
            and other.run.distill is None
        ),
        None,
    )


def _begins_alike(one: Run, other: Run) -> bool:
    return (one.start, one.float_share) == (other.start, other.float_share)


def _trains_alike(one: Run, other: Run) -> bool:
    """Whether two schedules are the same but for the rate, which is lower from float weights."""
    rate = other.schedule.learning_rate
    return dataclasses.replace(one.schedule, learning_rate=rate) == other.schedule


def _finished(run: Run, seed: int, path: pathlib.Path) -> Finished:
    result = json.loads(path.read_text())
    try:
        obtained = cifar10_config.described_run(result["run"])
    except TypeError as error:
        raise ValueError(f"{path} has a run that this version does not know: {error}.") from error
    wanted = dataclasses.replace(
        run, title=obtained.title, seeds=obtained.seeds, export=obtained.export
    )
    if obtained != wanted:
        raise ValueError(
            f"{path} was obtained with another configuration of {run.name}: {obtained}, not "
            f"{wanted}. Give the run another name, or train it again after removing the file."
        )
    epochs = csv_rows.read(path.with_suffix(".csv"))
    curve = tuple(float(row["test_accuracy"]) for row in epochs)
    if len(curve) != run.schedule.epochs:
        raise ValueError(f"{path.with_suffix('.csv')} must have {run.schedule.epochs} epochs.")
    reestimated = tuple(float(x) for row in epochs if (x := row.get("reestimated_accuracy")))
    return Finished(seed, curve, reestimated, result)
