"""Rows of `region_curve.py`'s CSV file: names and numbers for the report and the plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Row = dict[str, str]

COLUMNS = (
    "weights",
    "metric",
    "bits",
    "target",
    "images",
    "accuracy",
    "accuracy_error",
    "difference",
    "difference_error",
    "agreement",
    "saved",
    "saved_with_metric",
    "least_saved",
    "most_saved",
    "seed",
    "epochs",
    "seconds",
)

CONTROLS = ("uniform", "center", "random", "two_pass_random")
ORACLES = ("oracle", "oracle_within")
# Saving at equal top-1 that the paper's abstract states, in %.
PAPERS_SAVING = 33.5
_NAMES = {
    "full": "8 bits everywhere",
    "uniform": "uniform (control)",
    "center": "centre (control)",
    "random": "smooth random (control)",
    "two_pass": "two passes",
    "two_pass_random": "two passes, random images (control)",
    "points_of_interest": "points of interest",
    "border_crop": "border crop",
    "combined": "entropy + gradient + centre",
    "learned": "learned predictor",
    "oracle": "oracle (a bound)",
    "oracle_within": "oracle within images (a bound)",
}


def key(row: Row) -> tuple[str, ...]:
    """Returns the first columns, which tell a row from all others: `Setting.key`."""
    return tuple(row[column] for column in COLUMNS[:4])


def is_map(row: Row) -> bool:
    """Returns whether a row's precision differs by region, to reach mean bits."""
    return number(row, "target") > 0 and not row["metric"].startswith("two_pass")


def name(row: Row) -> str:
    """Returns a row's method in words."""
    return _NAMES.get(row["metric"], row["metric"])


def bits(row: Row) -> str:
    """Returns a row's bits in words."""
    if row["metric"].startswith("two_pass"):
        return f"{row['bits']}, again below a margin of {row['target']}"
    return row["bits"]


def number(row: Row, column: str) -> float:
    """Returns a number of a row."""
    return float(row[column])


def saving(row: Row) -> float:
    """Returns what a row saves, its metric's own cost included, in %."""
    return number(row, "saved_with_metric")


def difference(row: Row) -> str:
    """Returns the difference of accuracies with its paired standard error."""
    return f"{number(row, 'difference'):+.2f} ± {number(row, 'difference_error'):.2f}"


def base_row(rows: Sequence[Row]) -> Row:
    """Returns the row of the base net at full precision."""
    return next(row for row in rows if row["metric"] == "full" and row["weights"] == "base")


def best(rows: Iterable[Row], error_column: str) -> Row | None:
    """Returns the row that saves most of those that lose at most one standard error, or None.

    One whose own curve lost more at a smaller saving does not count: see `set_aside`.
    """
    rows = list(rows)
    aside = set_aside(rows, error_column)
    kept = [r for r in rows if _is_lossless(r, error_column) and r not in aside]
    return max(kept, key=saving, default=None)


def set_aside(rows: Iterable[Row], error_column: str) -> list[Row]:
    """Returns the rows that lose at most one standard error though their curve lost more before.

    A curve is one method of one net, with the same bits where it has any: what lost more at a
    smaller saving is more likely noise here than a gain.
    """
    rows = list(rows)
    failed: dict[tuple[str, ...], float] = {}
    for row in rows:
        if not _is_lossless(row, error_column):
            failed[_curve(row)] = min(failed.get(_curve(row), float("inf")), saving(row))
    return [
        row
        for row in rows
        if _is_lossless(row, error_column) and saving(row) > failed.get(_curve(row), float("inf"))
    ]


def _is_lossless(row: Row, error_column: str) -> bool:
    return number(row, "difference") >= -number(row, error_column)


def uniform_at(rows: Sequence[Row], weights: str, saved: float) -> tuple[float, float]:
    """Interpolates the difference of uniform precision, and its error, where it saves so much.

    Of the base net, or for all others of the net that was tuned with uniform precision.
    """
    weights = weights if weights == "base" else "tuned_uniform"
    own = [r for r in rows if r["weights"] == weights and r["metric"] in ("full", "uniform")]
    own.sort(key=saving)
    savings = [saving(r) for r in own]
    value, error = (
        float(np.interp(saved, savings, [number(r, column) for r in own]))
        for column in ("difference", "difference_error")
    )
    return value, error


def _curve(row: Row) -> tuple[str, ...]:
    """Which curve a row belongs to; uniform rows are one, whatever their bits."""
    uniform = row["metric"] == "uniform"
    return row["weights"], row["metric"], "" if uniform else row["bits"]


def distinct(values: Iterable[Any]) -> list[Any]:
    """Returns values without repetitions, in the order in which they first come."""
    return list(dict.fromkeys(values))
