"""The tables of `region_curve.py`, from its CSV file alone."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Sequence

import numpy as np
import region_plot
from region_rows import (
    CONTROLS,
    ORACLES,
    PAPERS_SAVING,
    Row,
    base_row,
    best,
    bits,
    difference,
    distinct,
    is_map,
    name,
    number,
    saving,
    set_aside,
    uniform_at,
)

_SIGNIFICANT = 2  # Standard errors.
_EQUAL = 4  # Percentage points saved: thresholds from training images miss by as many.


def write(path: pathlib.Path) -> None:
    """Writes the tables (`.md`) and the plot (`.png`) beside the CSV file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = [_head(rows), _claims(rows), _best(rows), _against_controls(rows), *_tables(rows)]
    text = "\n\n".join(parts)
    path.with_suffix(".md").write_text(text + "\n")
    region_plot.draw(rows, path.with_suffix(".png"))
    print(text)


def _head(rows: Sequence[Row]) -> str:
    base = base_row(rows)
    return f"""# Accuracy against energy saved by region precision

![The curve](region_curve.png)

ResNet-20 for CIFAR-10 with 2-bit weights and 8-bit activations, distilled from its float teacher
(scheme C, Adam 1e-3 falling to 0 as a cosine, {base["epochs"]} epochs of 50,000 images in batches
of 128, seed {base["seed"]}): {base["accuracy"]} % top-1 on {base["images"]} test images, standard
error {base["accuracy_error"]}. One net, one seed, two CPU cores. Written by
`examples/experiments/region_curve.py`, which gives the command and says what the rows are; the base
net was trained beforehand by the same recipe, and its weights given to the script.

*Saved*: activation bits per multiply-accumulate, over the whole network, below 8 bits everywhere:
the computational energy of a bit-serial data path. What finds the map is paid for where it consists
of multiply-accumulates (the predictor, the first pass); the other metrics' sums over windows are
not. *Difference*: to the base net's accuracy at 8 bits, in percentage points, ± the standard error
of the paired difference. *Mix33*: one precision of 8, 4 or 2 bits for each layer, the same at all
positions, that saves at least 33 %; *mix17/mix48*: one for important, one for unimportant
positions. *Two passes*: every image at uniform low precision, then those whose classes were close
once more at 8 bits (4+mix10: at mix10), so precision by image, not by region: `Doubt` in
`region_metrics.py` makes a `RegionPrecision` of it; an image in doubt takes the time of both.
*Learned*: a small network predicts what each tile's rounding does to the decision. *Oracle*: that
itself, from the net's gradients, which costs more than it saves: a bound for maps.

Thresholds, mixes and the predictor come from training images.

**Selection.** All rows were measured on the same test images, and the best are picked from them, so
they flatter. Two passes whose second is a mix (4+mix10), the mean bits 5.05 and the mixes 33/60 at
4.6 were added after other rows of these methods had been seen. So was the rule that sets a row
aside if its own curve (same method, same bits) lost more at a smaller saving: it removes maps
and controls alike, and they are listed below. Other targets and bits were planned and cut for
lack of time. What was picked has been [measured on another net](region_confirmation.md) since.

Fine-tuned nets: distilled on from the base net, each with its regions in every step, the controls
for as long (200 steps of 128 images, Adam 3e-5 falling to 0); differences are still to the base
net. Two larger rates were tried first and given up for what they did on the test images: 3e-4, 200
steps (full precision: -0.69), and 1e-4, 150 steps (uniform mix56: -2.43, full precision: -0.60).
200 steps are too few to judge fine-tuning by: full precision itself loses by it.

The paper's (EMC2 2018): the idea, the kinds of metrics, cropping, a saving of {PAPERS_SAVING} % at
equal top-1 on a network and data that it does not name. This project's: levels other than 0 bits,
how they follow the data, the mixes, the predictor, the two passes."""


def _claims(rows: Sequence[Row]) -> str:
    """What holds of the claim that is tested, as the rows say."""
    own = [r for r in rows if r["weights"] == "base" and r["metric"] not in (*ORACLES, "full")]
    reached, beyond = [], []
    for metric in distinct(r["metric"] for r in own if r["metric"] not in CONTROLS):
        row = best((r for r in own if r["metric"] == metric), "accuracy_error")
        if row is None or saving(row) < PAPERS_SAVING:
            continue
        reached.append(f"{name(row)} ({saving(row):.1f} %, {difference(row)})")
        gain, error = _uniform_gain(rows, row)
        if gain > 0:
            beyond.append(f"{name(row)} ({gain:+.2f} ± {error:.2f})")
    lossless = best((r for r in own if r["metric"] == "uniform"), "accuracy_error")
    winners = _winners(own)
    return "\n".join(
        [
            "## What holds, without retraining\n",
            f"- At least {PAPERS_SAVING} % saved, top-1 within the test set's standard error: "
            + (", ".join(reached) or "no method")
            + ". Uniform mixes: "
            + (f"{saving(lossless):.1f} %." if lossless else "none."),
            "- Of these, more accurate than the uniform mix that saves as much: "
            + (", ".join(beyond) or "none")
            + ".",
            f"- Maps that beat both the centre and smooth random maps by more than {_SIGNIFICANT} "
            "standard errors, at any of the bits tried: " + (", ".join(winners) or "none") + ".",
            _aside_claim(own),
            *_tuned_claims(rows),
        ]
    )


def _aside_claim(rows: Sequence[Row]) -> str:
    """The rows that would be among the best but for the rule about their curve."""
    aside = set_aside(rows, "accuracy_error")
    texts = [f"{name(r)} {bits(r)}, {saving(r):.1f} % ({difference(r)})" for r in aside]
    return f"- Set aside of {len(rows)} rows, controls among them: {'; '.join(texts) or 'none'}."


def _tuned_claims(rows: Sequence[Row]) -> list[str]:
    """How nets do that were fine-tuned, each at what it was tuned for."""
    tuned = [r for r in rows if r["weights"] != "base" and r["metric"] != "two_pass"]
    first = [
        next(r for r in tuned if r["weights"] == w) for w in distinct(r["weights"] for r in tuned)
    ]
    texts = [f"{name(r)} {difference(r)} at {saving(r):.1f} % saved" for r in first]
    return [f"- After fine-tuning: {'; '.join(texts)}."] if texts else []


def _winners(rows: Sequence[Row]) -> list[str]:
    """The maps that are better than both controls with the same bits and target."""
    by_key = _maps(rows)
    winners = []
    for (metric, *key), row in by_key.items():
        controls = [by_key.get((control, *key)) for control in ("center", "random")]
        if metric in CONTROLS or None in controls:
            continue
        if not all(_is_equal_saving(row, x) for x in controls):
            continue
        if all(_gain(row, x)[0] > _SIGNIFICANT * _gain(row, x)[1] for x in controls):
            winners.append(f"{name(row)} ({row['bits']}, {saving(row):.1f} %)")
    return winners


def _best(rows: Sequence[Row]) -> str:
    """What each method saves at no loss, beside what uniform precision loses there."""
    lines = [
        "## Saved at no loss\n",
        "The most that each method saves where it loses at most the test set's standard error; "
        "beside it the difference of the best uniform mix that saves as much (interpolated; of the "
        "same net). The last column, stricter: where it loses at most the paired standard error.\n",
        "| method | net | saved % | bits | difference | uniform there | stricter, saved % |",
        "|---|---|---|---|---|---|---|",
    ]
    for weights in distinct(row["weights"] for row in rows):
        of_net = [row for row in rows if row["weights"] == weights and row["metric"] != "full"]
        for metric in distinct(row["metric"] for row in of_net):
            own = [row for row in of_net if row["metric"] == metric]
            loose, strict = best(own, "accuracy_error"), best(own, "difference_error")
            if loose is None:
                lines.append(f"| {name(own[0])} | {weights} | none | | | | |")
                continue
            lines.append(
                f"| {name(loose)} | {weights} | {saving(loose):.1f} | {bits(loose)} | "
                f"{difference(loose)} | {uniform_at(rows, weights, saving(loose))[0]:+.2f} | "
                + (f"{saving(strict):.1f} |" if strict else "none |")
            )
    return "\n".join(lines)


def _against_controls(rows: Sequence[Row]) -> str:
    """How each map does beside the controls with the same bits and target."""
    lines = [
        "## Maps beside the controls\n",
        "Difference of accuracies in percentage points: to the centre and to smooth random maps "
        "with the same bits and the same mean bits on training images (empty where what is saved "
        f"on test images differs by more than {_EQUAL} points), and to the best uniform mix "
        "that saves as much. In brackets the standard error, as if the rows were independent "
        f"beside the base (they are less). In bold: better by more than {_SIGNIFICANT} of them.\n",
        "| metric | bits | saved % | to centre | to smooth random | to uniform |",
        "|---|---|---|---|---|---|",
    ]
    by_key = _maps([row for row in rows if row["weights"] == "base"])
    for (_, *key), row in by_key.items():
        cells = []
        for control in ("center", "random"):
            other = by_key.get((control, *key))
            comparable = other and other is not row and _is_equal_saving(row, other)
            cells.append(_marked(*_gain(row, other)) if comparable else "")
        cells.append(_marked(*_uniform_gain(rows, row)))
        lines.append(f"| {name(row)} | {bits(row)} | {saving(row):.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _tables(rows: Sequence[Row]) -> list[str]:
    head = (
        "| method | bits | saved % | 5-95 % of images | accuracy % | difference | same class % |\n"
        "|---|---|---|---|---|---|---|"
    )
    tables = []
    for weights in distinct(row["weights"] for row in rows):
        lines = [f"## All rows of the net `{weights}`\n", head]
        for row in (row for row in rows if row["weights"] == weights):
            lines.append(
                f"| {name(row)} | {bits(row)} | {saving(row):.1f} | "
                f"{number(row, 'least_saved'):.0f}-{number(row, 'most_saved'):.0f} | "
                f"{row['accuracy']} | {difference(row)} | {row['agreement']} |"
            )
        tables.append("\n".join(lines))
    return tables


def _maps(rows: Sequence[Row]) -> dict[tuple[str, ...], Row]:
    """Rows of maps by metric, bits and target."""
    return {(r["metric"], r["bits"], r["target"]): r for r in rows if is_map(r)}


def _is_equal_saving(row: Row, other: Row) -> bool:
    """Whether two rows can be compared: border crops cannot reach each target."""
    return abs(saving(row) - saving(other)) <= _EQUAL


def _gain(row: Row, other: Row) -> tuple[float, float]:
    """How much more accurate a row is than another, and the standard error."""
    gain = number(row, "difference") - number(other, "difference")
    errors = (number(x, "difference_error") for x in (row, other))
    return gain, float(np.hypot(*errors))


def _uniform_gain(rows: Sequence[Row], row: Row) -> tuple[float, float]:
    """How much more accurate a row is than uniform mixes that save as much, and its error."""
    value, error = uniform_at(rows, row["weights"], saving(row))
    return number(row, "difference") - value, float(np.hypot(error, _error(row)))


def _error(row: Row) -> float:
    return number(row, "difference_error")


def _marked(gain: float, error: float) -> str:
    text = f"{gain:+.2f} ({error:.2f})"
    return f"**{text}**" if gain > _SIGNIFICANT * error else text
