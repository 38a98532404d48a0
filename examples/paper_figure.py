"""Draws WRPN's Figure 1: the shares of weights and activations in the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_WEIGHTS = "#4c72b0"
_ACTIVATIONS = "#dd8452"


def draw_shares(path: str, panels: Mapping[str, Sequence[tuple[str, float, float]]]) -> None:
    """Writes a figure with a panel of stacked bars for each phase.

    Args:
        path: The file; its ending says what it is (.png, .svg, .pdf).
        panels: Title -> bars: label, % of weights as computed, the same as published.

    Raises:
        ImportError: If matplotlib is missing; says how to install it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`--figure` needs matplotlib, which the extra `plots` brings: pip install -e '.[plots]'"
        ) from error
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (title, bars) in zip(axes, panels.items(), strict=True):
        labels, weights, published = zip(*bars, strict=True)
        rest = [100 - share for share in weights]
        axis.bar(labels, weights, color=_WEIGHTS, label="weights")
        axis.bar(labels, rest, bottom=weights, color=_ACTIVATIONS, label="activations")
        axis.plot(labels, published, "k_", markersize=18, label="published border")
        axis.tick_params(axis="x", labelrotation=90)
        axis.set_title(title)
    axes[0].set_ylabel("% of the memory")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.savefig(path)
