"""The plot of `region_curve.py`: accuracy against energy saved."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from region_rows import (
    CONTROLS,
    ORACLES,
    PAPERS_SAVING,
    Row,
    base_row,
    distinct,
    name,
    number,
    saving,
)

_BELOW, _ABOVE = 2.7, 0.5  # Percentage points around the base that are shown.
_GREYS = {"full": "black", "uniform": "black", "center": "0.4", "random": "0.62"}
# Of the two passes, enough to see how the first one matters.
_FIRST_PASSES = ("4", "4+mix17", "mix33", "mix56")


def draw(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Draws one line for each method and its bits; a second panel for fine-tuned nets, if any."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    base = base_row(rows)
    accuracy, error = number(base, "accuracy"), number(base, "accuracy_error")
    shown = [row for row in rows if _is_shown(row, accuracy - _BELOW)]
    panels = {
        "no retraining": [r for r in shown if r["weights"] == "base"],
        "after a short fine-tuning": [r for r in shown if r["weights"] != "base"],
    }
    panels = {title: panel for title, panel in panels.items() if panel}
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(10 * len(panels), 11), squeeze=False, sharey=True
    )
    for axis, (title, panel) in zip(axes[0], panels.items(), strict=True):
        axis.axhspan(accuracy - error, accuracy + error, color="0.93", zorder=0)
        axis.axvline(PAPERS_SAVING, color="0.8", linewidth=1, zorder=0)
        _draw_lines(axis, panel)
        axis.set(title=title, xlabel="computational energy saved, %", xlim=(0, 62))
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set(ylabel="top-1 accuracy, %", ylim=(accuracy - _BELOW, accuracy + _ABOVE))
    figure.suptitle(
        "ResNet-20 on CIFAR-10, 2-bit weights. Band: the base net and its standard error;\n"
        "bars: standard error of the paired difference to it; vertical line: the paper's saving "
        "at equal top-1",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _is_shown(row: Row, least_accuracy: float) -> bool:
    if row["metric"] == "two_pass" and row["bits"] not in _FIRST_PASSES:
        return False
    return row["metric"] != "two_pass_random" and number(row, "accuracy") >= least_accuracy


def _draw_lines(axis: Any, rows: Sequence[Row]) -> None:
    from matplotlib import colormaps

    kinds = distinct(_kind(row) for row in rows)
    markers = dict(zip(kinds, itertools.cycle("osD^vPX*<>hp"), strict=False))
    # Without the controls' grey, and the reds and oranges of the two passes.
    hues = [color for i, color in enumerate(colormaps["tab10"].colors) if i not in (1, 3, 7)]
    colors = itertools.cycle(hues)
    color_of = {m: _GREYS.get(m) or next(colors) for m in distinct(r["metric"] for r in rows)}
    shades = itertools.cycle(colormaps["autumn"]([0.0, 0.25, 0.45, 0.65]))
    for line in distinct(_line(row) for row in rows):
        own = sorted((row for row in rows if _line(row) == line), key=saving)
        metric = own[0]["metric"]
        bold = metric in ("uniform", "two_pass")
        axis.errorbar(
            [saving(row) for row in own],
            [number(row, "accuracy") for row in own],
            [number(row, "difference_error") for row in own],
            color=next(shades) if metric == "two_pass" else color_of[metric],
            linestyle="--" if metric in CONTROLS else ":" if metric in ORACLES else "-",
            marker=markers[_kind(own[0])],
            markersize=7,
            linewidth=2.4 if bold else 1.2,
            elinewidth=0.8,
            alpha=0.9,
            label=" ".join(line),
        )


def _line(row: Row) -> tuple[str, str]:
    if row["weights"] == "base":
        return name(row), _kind(row)
    return f"{row['weights'].replace('_', ' ')}: {name(row)}", _kind(row)


def _kind(row: Row) -> str:
    return "" if row["metric"] in ("uniform", "full") else row["bits"].replace("mix", "mix ")
