"""Figures of where a network computes at how many bits, drawn with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from region_measures import ImageRegions, LayerBits

# From warm and bright to dark with fewer bits; orange and blue differ for the colour-blind, too.
_COLORS = {8: "#ffb000", 4: "#35b5c8", 2: "#4a63c4", 1: "#7a3a9a", 0: "#3a3a3a"}
_MAX_PANELS = 5
# How black the image's black is; less, and the image is lost; more, and the colours are.
_SHADING = 0.6
# Narrower bars have no room for a name.
_LABELLED_SHARE = 0.025


def check_matplotlib() -> None:
    """Raises ImportError if matplotlib is missing, and says how to install it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The figures need matplotlib: pip install matplotlib, or pip install -e '.[plots]' in "
            "the clone."
        ) from error


def draw_image(regions: ImageRegions, subtitle: str, path: str | os.PathLike) -> None:
    """Saves the figure of one image: importance, bits by position, and bits by layer.

    Args:
        regions: The image.
        subtitle: What it was made with.
        path: The file; its ending says the format.
    """
    from matplotlib.figure import Figure

    panels = _panels(regions.layers)
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    figure.suptitle(
        f"{regions.name}: {regions.mean_bits:.2f} activation bits on average instead of "
        f"{regions.full_bits:.2f}, {regions.saving:.1%} of the computational energy saved\n"
        f"{subtitle}",
        fontsize=13,
    )
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    _draw_top(top, regions)
    bottom.suptitle("Bits of what convolutions read, at each resolution", fontsize=11)
    axes = np.atleast_1d(bottom.subplots(1, len(panels)))
    for axis, layer in zip(axes, panels, strict=True):
        height, width = layer.bits.shape
        _overlay(axis, regions, layer)
        axis.set_title(
            f"{layer.name}, {height} x {width}\n{layer.mean_bits:.2f} bits on average", fontsize=9
        )
    _add_legend(bottom, panels)
    figure.savefig(path, dpi=110)


def draw_comparison(
    results: Mapping[str, Sequence[ImageRegions]], subtitle: str, path: str | os.PathLike
) -> None:
    """Saves one figure of all images (rows) and metrics (columns).

    Args:
        results: Metric -> the images, always the same.
        subtitle: What it was made with.
        path: The file; its ending says the format.
    """
    from matplotlib.figure import Figure

    images = next(iter(results.values()))
    rows, columns = len(images), len(results) + 1
    figure = Figure(figsize=(1.9 * columns, 2.05 * rows + 1), layout="constrained")
    figure.suptitle(f"Computational energy saved by each metric\n{subtitle}", fontsize=11)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, *of_image in zip(grid, images, *results.values(), strict=True):
        first, *others = of_image
        _show(axes[0], first.image)
        axes[0].set_title(first.name, fontsize=9)
        for axis, (metric, regions) in zip(
            axes[1:], zip(results, others, strict=True), strict=True
        ):
            _overlay(axis, regions, _panels(regions.layers)[0])
            axis.set_title(f"{metric.replace('_', ' ')}: {regions.saving:.1%}", fontsize=9)
    _add_legend(figure, _panels(images[0].layers)[:1])
    figure.savefig(path, dpi=110)


def _draw_top(figure: Any, regions: ImageRegions) -> None:
    picture, importance, bars = figure.subplots(1, 3, width_ratios=(1, 1, 2.1))
    _show(picture, regions.image)
    picture.set_title("Image", fontsize=11)
    height, width = regions.image.shape[:2]
    shown = importance.imshow(regions.importance, cmap="magma", extent=(0, width, height, 0))
    importance.set_title("Importance", fontsize=11)
    importance.set_axis_off()
    scale = importance.inset_axes((0, -0.08, 1, 0.04))
    figure.colorbar(shown, cax=scale, orientation="horizontal")
    _draw_bars(bars, regions.layers)
    bars.set_title("Bits and energy of each layer", fontsize=11)


def _draw_bars(axis: Any, layers: Sequence[LayerBits]) -> None:
    """A bar for each layer, as wide as its computation: areas are energy."""
    left = 0.0
    for layer in layers:
        place = {"align": "edge", "edgecolor": "white", "width": layer.share}
        axis.bar(left, layer.full_bits, color="#e4e4e4", **place)
        base = 0.0
        for bits, share in sorted(layer.shares.items()):
            axis.bar(left, bits * share, bottom=base, color=_COLORS.get(bits, "#999999"), **place)
            base += bits * share
        if layer.share >= _LABELLED_SHARE:
            middle = left + layer.share / 2
            top = layer.full_bits - 0.15
            axis.text(middle, top, layer.name, rotation=90, ha="center", va="top", fontsize=8)
        left += layer.share
    axis.set_xlim(0, left)
    axis.set_ylim(0, max(layer.full_bits for layer in layers))
    axis.set_xticks([])
    axis.set_xlabel("layers, as wide as their share of the computation; area: energy, grey: saved")
    axis.set_ylabel("mean activation bits")
    axis.spines[["top", "right"]].set_visible(False)


def _panels(layers: Sequence[LayerBits]) -> list[LayerBits]:
    """The first layer at each resolution; of many resolutions some, the first and last included."""
    first: dict[tuple[int, ...], LayerBits] = {}
    for layer in layers:
        if layer.bits is not None:
            first.setdefault(layer.bits.shape, layer)
    found = list(first.values())
    count = min(len(found), _MAX_PANELS)
    return [found[round(place)] for place in np.linspace(0, len(found) - 1, count)]


def _overlay(axis: Any, regions: ImageRegions, layer: LayerBits) -> None:
    """The bits at each position, shaded by the image."""
    from matplotlib.colors import to_rgb

    colors = np.zeros((*layer.bits.shape, 3))
    for bits in np.unique(layer.bits):
        colors[layer.bits == bits] = to_rgb(_COLORS[int(bits)])
    axis.imshow(colors, extent=layer.extent, interpolation="nearest")
    darkness = 1 - regions.image.mean(axis=-1)
    height, width = darkness.shape
    axis.imshow(
        np.zeros_like(darkness),
        cmap="gray",
        alpha=_SHADING * darkness,
        extent=(0, width, height, 0),
    )
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_axis_off()


def _show(axis: Any, image: npt.NDArray[Any]) -> None:
    height, width, channels = image.shape
    shown = image if channels == 3 else image[..., 0]
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    axis.set_axis_off()


def _add_legend(figure: Any, panels: Sequence[LayerBits]) -> None:
    from matplotlib.patches import Patch

    levels = sorted({int(bits) for layer in panels for bits in np.unique(layer.bits)}, reverse=True)
    handles = [
        Patch(color=_COLORS[bits], label=f"{bits} bit{'' if bits == 1 else 's'}") for bits in levels
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
