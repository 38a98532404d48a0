"""The plot in the report of `cifar10.py`."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping

from cifar10_results import Row


def draw(rows: Mapping[str, Row], path: pathlib.Path) -> None:
    """Draws the final accuracies, a dot for each seed, and the learning curves of seed 0."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (dots, curves) = pyplot.subplots(1, 2, figsize=(14, 6))
    shown = list(rows.values())[::-1]
    palette = itertools.cycle(pyplot.colormaps["tab20"].colors)
    colors = dict(zip(rows, palette, strict=False))
    for height, row in enumerate(shown):
        accuracies = [net.accuracy for net in row.nets.values()]
        dots.plot(accuracies, [height] * len(accuracies), "o", color=colors[row.run.name])
        if 0 in row.nets:
            net = row.nets[0]
            curve = net.reestimated or net.curve
            style = {
                "linestyle": "--" if row.run.tool is not None else "-",
                "linewidth": 2 if net.reestimated else 0.8,
                "color": colors[row.run.name],
            }
            curves.plot(range(1, len(curve) + 1), curve, **style)
    dots.set_yticks(range(len(shown)), [row.run.title for row in shown])
    dots.set(xlabel="test accuracy, %", title="after the last epoch, a dot for each seed")
    dots.grid(axis="x", color="0.9")
    dots.set_axisbelow(True)
    if "float" in rows:
        dots.axvline(rows["float"].mean, color="0.6", linewidth=1, zorder=0)
    best = max(row.mean for row in shown)
    curves.set(
        xlabel="epoch",
        ylabel="test accuracy, %",
        ylim=(best - 25, best + 1),
        title="seed 0; thick: batch norm measured again; dashed: other tools",
    )
    for axis in (dots, curves):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
