"""Measures what region_curve.py's report picked on a net that had no part in the picking.

    python examples/experiments/region_confirmation.py --data_dir=.../cifar-10-batches-py

The best of some 200 rows flatter: they were picked from the test images that they are measured on.
Here those settings and their controls alone, fixed beforehand, are measured on another net, by
default this repository's trained one (ResNet-20, 2-bit weights, 8-bit activations, the first 30 %
of the layers at 2x, trained from random weights and taught by another net, a trained, frozen
ResNet-56). Thresholds, mixes and the predictor are found anew on training images, by the same
rules.

Each finished row is appended to a CSV file and not computed again. On two cores some 20 minutes.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import csv_rows
import datasets
import region_bench
import region_settings
import saved_models
from region_rows import (
    Row,
    base_row,
    bits,
    difference,
    is_map,
    key,
    name,
    number,
    saving,
    uniform_at,
)
from region_settings import Setting

_RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py.")
_NET = flags.DEFINE_string(
    "net", str(_RESULTS / "trained/resnet20_w2a8.keras"), "The low-bit Keras 3 model."
)
_FIRST = flags.DEFINE_string(
    "first", str(_RESULTS / "region_curve.csv"), "CSV file of the net that was picked by."
)
_IMAGES = flags.DEFINE_integer("images", 10_000, "Test images.", lower_bound=1)
_LABELLED = flags.DEFINE_integer(
    "labelled", 20_000, "Training images for sensitivities and predictor.", lower_bound=2000
)
_WORK_DIR = flags.DEFINE_string(
    "work_dir", "region_confirmation_models", "Sensitivities and predictor."
)
_OUT = flags.DEFINE_string("out", "region_confirmation.csv", "CSV file of finished rows.")

_MAP_CONTROLS = ("center", "random")
# What the report on the first net names as best or as telling, with what it is compared to.
SETTINGS = (
    Setting("full"),
    *(Setting("uniform", x) for x in ("4", "mix10", "mix17", "mix25", "mix33", "mix40", "mix45")),
    Setting("two_pass", "4+mix17", 0.75),
    Setting("two_pass", "4+mix10", 1.25),
    *(Setting(x, "4", margin) for margin in (1.0, 1.5) for x in ("two_pass", "two_pass_random")),
    *(Setting(x, "mix17/mix48", 5.05) for x in ("learned", *_MAP_CONTROLS)),
    *(Setting(x, "mix17/mix48", 5.32) for x in ("combined", *_MAP_CONTROLS)),
    *(Setting(x, "8/4", 5.32) for x in ("entropy", "gradient", "points_of_interest")),
    *(Setting(x, "8/4", 5.32) for x in _MAP_CONTROLS),
)


def main(argv: list[str]) -> None:
    """Computes the rows that are not in the CSV file yet, and writes the report beside it."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    out = pathlib.Path(_OUT.value)
    # What the net was trained with, its own results say.
    region_bench.measure(SETTINGS, _bench, out, {"seed": "", "epochs": ""}, "confirmation")
    text = report(csv_rows.read(pathlib.Path(_FIRST.value)), csv_rows.read(out))
    out.with_suffix(".md").write_text(text)
    print(text)


@functools.cache
def _bench() -> region_bench.Bench:
    """Returns the one bench, which is made only if there is something to measure."""
    if _DATA_DIR.value is None:
        raise app.UsageError("`--data_dir` must be given: some rows are not measured yet.")
    net = saved_models.load(_NET.value)
    data = datasets.load("cifar10", _DATA_DIR.value)
    mean = data.x_train.mean(0)
    folder = pathlib.Path(_WORK_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    precisions = region_settings.Precisions(net, data.x_train[: _LABELLED.value], mean, folder)
    return region_bench.Bench({"base": net}.__getitem__, precisions, data, mean, _IMAGES.value)


def report(first: Sequence[Row], rows: Sequence[Row]) -> str:
    """Returns the table of both nets, in Markdown.

    Args:
        first: Rows of `region_curve.py`.
        rows: Rows of this script.
    """
    base, first_base = base_row(rows), base_row(first)
    by_key = {key(row): row for row in first}
    lines = [
        "# What was picked on one net, on another\n",
        "The settings that the [first net's report](region_curve.md) names, and their controls, "
        f"with no retraining, on {int(base['images']):,} test images of CIFAR-10. First net: "
        f"{first_base['accuracy']} % top-1 at 8 bits, ± {first_base['accuracy_error']}; the best "
        f"were picked from its rows. Second net: [this repository's](trained/README.md), "
        f"{base['accuracy']} %, ± {base['accuracy_error']}; these rows alone were measured on it, "
        "once, so nothing was picked. Thresholds, mixes and the predictor come from training "
        "images of each. One seed. Written by `examples/experiments/region_confirmation.py`; the "
        "words are the first report's.\n",
        "*Uniform there*: the least that uniform precision loses on the second net where it saves "
        "at least as much: the mixes interpolated, or a row that saves more. In bold: worse than "
        "the row by more than two standard errors, as if the two were independent beside the net "
        "at 8 bits (they are less). Of maps, the mean bits on training images.\n",
        "| method | bits | first net: saved % | difference | second net: saved % | difference "
        "| uniform there |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows[1:]:
        before = by_key[key(row)]
        lines.append(
            f"| {name(row)} | {_bits(row)} | {saving(before):.1f} | {difference(before)} "
            f"| {saving(row):.1f} | {difference(row)} | {_uniform(rows, row)} |"
        )
    return "\n".join(lines) + "\n"


def _bits(row: Row) -> str:
    """A row's bits in words, of maps with their mean."""
    return f"{bits(row)}, mean {row['target']}" if is_map(row) else bits(row)


def _uniform(rows: Sequence[Row], row: Row) -> str:
    """The least that uniform precision loses that saves at least as much as a row."""
    if row["metric"] == "uniform":
        return ""
    saves_more = [r for r in rows if r["metric"] == "uniform" and saving(r) >= saving(row)]
    value, error = max(
        uniform_at(rows, row["weights"], saving(row)),
        *((number(r, "difference"), number(r, "difference_error")) for r in saves_more),
    )
    gain = number(row, "difference") - value
    better = gain > 2 * float(np.hypot(error, number(row, "difference_error")))
    return f"**{value:+.2f}**" if better else f"{value:+.2f}"


if __name__ == "__main__":
    app.run(main)
