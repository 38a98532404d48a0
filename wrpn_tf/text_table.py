"""Lines of text tables, whose columns have a fixed width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Columns: TypeAlias = Sequence[tuple[str, int, str]]
"""Header, width and alignment ("<" or ">") of each column."""


def table_line(cells: Iterable[str], columns: Columns) -> str:
    """Returns one line of a table: a cell for each column, a space between them."""
    pairs = zip(cells, columns, strict=True)
    return " ".join(f"{cell:{align}{width}}" for cell, (_, width, align) in pairs).rstrip()


def fit_text(text: str, width: int) -> str:
    """Returns the text, its middle left out if it is too long."""
    if len(text) <= width:
        return text
    head = (width - 2) // 2
    return text[:head] + ".." + text[len(text) - (width - 2 - head) :]
