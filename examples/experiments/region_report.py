"""The table and the plot of `region_curve.py`, from its CSV file alone."""

from __future__ import annotations

import csv
import itertools
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

Row = dict[str, str]
_CONTROLS = ("center", "random", "two_pass_random")
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
    "oracle": "oracle (no method)",
    "oracle_within": "oracle within images (no method)",
}


def write(path: pathlib.Path) -> None:
    """Writes the tables (`.md`) and the plot (`.png`) beside the CSV file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    text = "\n\n".join([_head(rows), _best(rows), _against_controls(rows), *_tables(rows)])
    path.with_suffix(".md").write_text(text + "\n")
    _plot(rows, path.with_suffix(".png"))
    print(text)


def _head(rows: Sequence[Row]) -> str:
    base = next(row for row in rows if row["metric"] == "full" and row["weights"] == "base")
    return (
        "# Accuracy against energy saved by region precision\n\n"
        f"ResNet-20, 2-bit weights, 8-bit activations, distilled for {base['epochs']} epochs (seed "
        f"{base['seed']}): {base['accuracy']} % top-1 on {base['images']} test images of CIFAR-10, "
        f"standard error {base['accuracy_error']}. Written by "
        "`examples/experiments/region_curve.py`, which says what rows are; one run, one seed.\n\n"
        "*Saved*: activation bits per multiply-accumulate, of the whole network, less than with 8 "
        "bits everywhere: the computational energy of a bit-serial data path, that of what finds "
        "the map included where it consists of multiply-accumulates (the predictor, the first "
        "pass). *Difference*: of the accuracy to that of the base net at 8 bits, in percentage "
        "points, with the standard error of the paired difference. Thresholds, mixes and the "
        "predictor come from training images; the rows compared below were measured on the test "
        "images, so the best of them is a little too good.\n\n"
        "The idea, the kinds of metrics and the cropping are the paper's (EMC2 2018); levels other "
        "than 0 bits, the mixes, the predictor and the two passes are this project's."
    )


def _best(rows: Sequence[Row]) -> str:
    """What each method saves at no loss, beside what uniform precision saves."""
    lines = [
        "## Saved at no loss\n",
        "The most that each method saves where its accuracy is below the base's by at most the "
        "test set's standard error, and, stricter, by no more than the paired one; beside it the "
        "difference of the best uniform mix that saves as much (interpolated).\n",
        "| method | net | saved % | bits | difference | uniform there | saved %, stricter |",
        "|---|---|---|---|---|---|---|",
    ]
    for weights in _ordered(row["weights"] for row in rows):
        uniform = _uniform_curve(rows, weights)
        of_net = [row for row in rows if row["weights"] == weights]
        for metric in _ordered(row["metric"] for row in of_net):
            own = [row for row in of_net if row["metric"] == metric]
            best = _most([r for r in own if _value(r, "difference") >= -_error(r)])
            strict = _most([r for r in own if _value(r, "difference") >= -_paired_error(r)])
            if best is None:
                lines.append(f"| {_name(metric)} | {weights} | none | | | | |")
                continue
            saved = _value(best, "saved_with_metric")
            lines.append(
                f"| {_name(metric)} | {weights} | {saved:.1f} | {_bits(best)} | {_difference(best)}"
                f" | {np.interp(saved, *uniform):+.2f} | "
                + (f"{_value(strict, 'saved_with_metric'):.1f} |" if strict else "none |")
            )
    return "\n".join(lines)


def _against_controls(rows: Sequence[Row]) -> str:
    """How each metric does beside the controls with the same bits and target."""
    lines = [
        "## Metrics beside the controls\n",
        "Difference of accuracies, in percentage points, at the same bits and the same mean bits "
        "on training images; *uniform*: to the best uniform mix that saves as much. In brackets "
        "the standard error, as if the rows' were independent (they are less). In bold: better by "
        "more than two.\n",
        "| metric | bits | saved % | to centre | to smooth random | to uniform |",
        "|---|---|---|---|---|---|",
    ]
    maps = [r for r in rows if r["weights"] == "base" and float(r["target"]) > 0]
    by_key = {(r["metric"], r["bits"], r["target"]): r for r in maps}
    uniform = _uniform_curve(rows, "base")
    for row in maps:
        if row["metric"].startswith("two_pass"):
            continue
        cells = []
        for control in ("center", "random"):
            other = by_key.get((control, row["bits"], row["target"]))
            cells.append("" if other in (None, row) else _compared(row, other))
        at_saving = float(np.interp(_value(row, "saved_with_metric"), *uniform))
        gain = _value(row, "difference") - at_saving
        cells.append(_marked(gain, 2**0.5 * _paired_error(row)))
        lines.append(
            f"| {_name(row['metric'])} | {_bits(row)} | {_value(row, 'saved_with_metric'):.1f} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


def _tables(rows: Sequence[Row]) -> list[str]:
    head = (
        "| method | bits | saved % | 5-95 % of images | accuracy % | difference | same class % |\n"
        "|---|---|---|---|---|---|---|"
    )
    tables = []
    for weights in _ordered(row["weights"] for row in rows):
        lines = [f"## All rows of the net `{weights}`\n", head]
        for row in (row for row in rows if row["weights"] == weights):
            lines.append(
                f"| {_name(row['metric'])} | {_bits(row)} | {row['saved_with_metric']} | "
                f"{row['least_saved']}-{row['most_saved']} | {row['accuracy']} | "
                f"{_difference(row)} | {row['agreement']} |"
            )
        tables.append("\n".join(lines))
    return tables


def _plot(rows: Sequence[Row], path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tuned = [row for row in rows if row["weights"] != "base"]
    base = [row for row in rows if row["weights"] == "base"]
    panels = [(base, "no retraining"), (tuned, "after a short fine-tuning")][: 2 if tuned else 1]
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(8 * len(panels), 6), squeeze=False, sharey=True
    )
    full = next(row for row in base if row["metric"] == "full")
    accuracy, error = _value(full, "accuracy"), _error(full)
    for axis, (panel, title) in zip(axes[0], panels, strict=True):
        axis.axhspan(accuracy - error, accuracy + error, color="0.92", zorder=0)
        axis.axvline(PAPERS_SAVING, color="0.8", linewidth=1, zorder=0)
        _draw_lines(axis, panel)
        axis.set(title=title, xlabel="computational energy saved, %", xlim=(0, 62))
        axis.legend(fontsize=8, loc="lower left")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set(ylabel="top-1 accuracy, %", ylim=(accuracy - 4, accuracy + 1))
    figure.suptitle(
        "ResNet-20 on CIFAR-10, 2-bit weights. Band: the base net and its standard error; bars: of "
        "the paired difference to it;\nvertical line: what the paper saves at equal top-1",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _draw_lines(axis: object, rows: Sequence[Row]) -> None:
    """One line for each method and kind of bits; controls are grey and dashed."""
    from matplotlib import colormaps

    shown = [r for r in rows if r["metric"] != "two_pass_random"]
    names, kinds = _ordered(_line(r)[0] for r in shown), _ordered(_kind(r) for r in shown)
    colors = dict(zip(names, itertools.cycle(colormaps["tab20"].colors), strict=False))
    markers = dict(zip(kinds, itertools.cycle("osD^vPX*<>hp"), strict=False))
    for line in _ordered(_line(row) for row in shown):
        own = sorted((r for r in shown if _line(r) == line), key=_saving)
        metric = own[0]["metric"]
        control = metric in _CONTROLS or metric == "uniform"
        grey = {"center": "0.45", "random": "0.65", "uniform": "black"}
        axis.errorbar(
            [_saving(r) for r in own],
            [_value(r, "accuracy") for r in own],
            [_paired_error(r) for r in own],
            color=grey.get(metric, colors[line[0]]),
            linestyle="--" if control else "-",
            marker=markers[_kind(own[0])],
            markersize=5,
            linewidth=2.5 if metric in ("uniform", "two_pass") else 1.2,
            elinewidth=0.8,
            alpha=0.9,
            label=" ".join(line),
        )


def _line(row: Row) -> tuple[str, str]:
    name = _name(row["metric"]) if row["weights"] == "base" else _tuned_name(row)
    return name, _kind(row)


def _tuned_name(row: Row) -> str:
    return f"{row['weights'].replace('_', ' ')}: {_name(row['metric'])}"


def _kind(row: Row) -> str:
    return "" if row["metric"] in ("uniform", "full") else row["bits"].replace("mix", "mix ")


def _compared(row: Row, other: Row) -> str:
    gain = _value(row, "difference") - _value(other, "difference")
    return _marked(gain, float(np.hypot(_paired_error(row), _paired_error(other))))


def _marked(gain: float, error: float) -> str:
    text = f"{gain:+.2f} ({error:.2f})"
    return f"**{text}**" if gain > 2 * error else text


def _uniform_curve(rows: Sequence[Row], weights: str) -> tuple[list[float], list[float]]:
    """Savings, rising, and differences of the uniform rows, from full precision on."""
    own = [r for r in rows if r["weights"] == weights and r["metric"] in ("full", "uniform")]
    own.sort(key=_saving)
    return [_saving(r) for r in own], [_value(r, "difference") for r in own]


def _most(rows: Sequence[Row]) -> Row | None:
    return max(rows, key=_saving, default=None)


def _saving(row: Row) -> float:
    return _value(row, "saved_with_metric")


def _value(row: Row, column: str) -> float:
    return float(row[column])


def _error(row: Row) -> float:
    return _value(row, "accuracy_error")


def _paired_error(row: Row) -> float:
    return _value(row, "difference_error")


def _difference(row: Row) -> str:
    return f"{_value(row, 'difference'):+.2f} ± {_paired_error(row):.2f}"


def _name(metric: str) -> str:
    return _NAMES.get(metric, metric)


def _bits(row: Row) -> str:
    if row["metric"].startswith("two_pass"):
        return f"{row['bits']}, again below a margin of {row['target']}"
    return row["bits"]


def _ordered(values: Iterable) -> list:
    return list(dict.fromkeys(values))
