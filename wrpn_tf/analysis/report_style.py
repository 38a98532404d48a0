"""Colours, and figures as bytes: files for anywhere, and SVG that takes a page's colours."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any

# Name -> (on light, on dark). Figures are drawn in the light ones; each occurs under one name only,
# so that a page can put its own in their place.
COLORS = {
    "ink": ("#1b1f24", "#e4e7eb"),
    "grid": ("#d5d9de", "#3a4149"),
    "weights": ("#2166ac", "#6db1f2"),
    "activations": ("#c8651b", "#f2a25c"),
    "gradients": ("#8a8f96", "#9aa1a9"),
    "cycles": ("#0f7f74", "#54c7b8"),
    "used": ("#6a3d9a", "#b99ae0"),
    "series-1": ("#1f5fa8", "#62a8f0"),
    "series-2": ("#b5531a", "#f09a55"),
    "series-3": ("#0b7a5f", "#45c9a0"),
    "series-4": ("#7b3f98", "#c295e0"),
    "series-5": ("#b21e48", "#f0809f"),
    "series-6": ("#756400", "#d6c04a"),
}
_RESOLUTION = 160  # dots per inch of PNG files


def color(name: str) -> str:
    """Returns a colour to draw with."""
    return COLORS[name][0]


def check_matplotlib() -> None:
    """Checks that figures can be drawn.

    Raises:
        ImportError: If matplotlib is missing; says how to install it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`report` draws its figures with matplotlib, which the extra `plots` brings: "
            "pip install 'wrpn_tf[plots]'"
        ) from error


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Figures are to be made and saved within it."""
    import matplotlib

    ink, grid = color("ink"), color("grid")
    settings = {
        "axes.axisbelow": True,
        "axes.edgecolor": ink,
        "axes.grid": True,
        "axes.grid.axis": "x",
        "axes.labelcolor": ink,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "font.family": "sans-serif",
        "font.size": 9,
        "grid.color": grid,
        "legend.frameon": False,
        "svg.fonttype": "none",  # text stays text: it can be searched for and read aloud
        "svg.hashsalt": "wrpn_tf",  # the same figure has the same bytes
        "text.color": ink,
        "text.parse_math": False,  # layers may have $ in their names
        "xtick.color": ink,
        "ytick.color": ink,
    }
    with matplotlib.rc_context(settings):
        yield


def lay_out(figure: Any) -> None:
    """Places what is in a figure for good, so that saving it does not do so again."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def to_png(figure: Any) -> bytes:
    """Returns a figure as a PNG file on white."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_RESOLUTION, facecolor="white")
    return stream.getvalue()


def to_svg(figure: Any) -> bytes:
    """Returns a figure as an SVG file on white."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None}, facecolor="white")
    return stream.getvalue()


def to_inline_svg(figure: Any, name: str, description: str) -> str:
    """Returns a figure as an SVG element, transparent and in the page's colours.

    Args:
        figure: A matplotlib figure.
        name: Of the figure, unique in its page: identifiers begin with it.
        description: What is read aloud; plain text without quotation marks.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r' (id|clip-path)="(url\(#)?', lambda m: f"{m[0]}{name}-", text)
    text = text.replace('xlink:href="#', f'href="#{name}-')
    for key, (light, _) in COLORS.items():
        text = text.replace(light, f"var(--{key})")
    return text.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
