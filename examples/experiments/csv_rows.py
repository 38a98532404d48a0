"""The finished rows of an experiment, in a CSV file to which each is appended at once."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def read(path: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of a file, none if there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: pathlib.Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    """Appends a row, in a new file after the names of the columns."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if is_new:
            writer.writeheader()
        writer.writerow(row)
