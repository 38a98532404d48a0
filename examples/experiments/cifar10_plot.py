"""The plot in the report of `cifar10.py`."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping

from cifar10_results import Row


def draw(rows: Mapping[str, Row], path: pathlib.Path) -> None:
    """Draws the final accuracies, a dot for each seed, and a learning curve of each row.

    Moving averages of batch norm jump in the middle of training: rows that have nothing better are
    grey. A curve has the color of its row's dots, and is dashed where these are diamonds: rows that
    the hues did not suffice for.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (dots, curves) = pyplot.subplots(1, 2, figsize=(14, 6))
    shown = list(rows.values())[::-1]
    measured = {
        name: next((net for net in row.nets.values() if net.reestimated), None)
        for name, row in rows.items()
    }
    hues = [color for color in pyplot.colormaps["tab20"].colors if len(set(color)) > 1]
    hues = hues[::2] + hues[1::2]  # The pale ones last.
    colored = [name for name, net in measured.items() if net is not None]
    looks = itertools.cycle(itertools.product((("o", "-"), ("D", "--")), hues))
    look_of = dict(zip(colored, looks, strict=False))
    for height, row in enumerate(shown):
        accuracies = [net.accuracy for net in row.nets.values()]
        (marker, line), color = look_of.get(row.run.name, (("o", "-"), "0.6"))
        dots.plot(accuracies, [height] * len(accuracies), marker, color=color)
        net = measured[row.run.name]
        if net is not None:
            epochs = range(1, len(net.reestimated) + 1)
            curves.plot(epochs, net.reestimated, line, color=color, linewidth=2)
        else:
            net = next(iter(row.nets.values()))
            epochs = range(1, len(net.curve) + 1)
            curves.plot(epochs, net.curve, color="0.85", linewidth=0.8, zorder=0)
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
        title="a seed of each; grey: batch norm not measured again",
    )
    for axis in (dots, curves):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
