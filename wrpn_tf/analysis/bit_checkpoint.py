"""Rows of measurements that survive a kill: a file of one JSON line for each."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


class Checkpoint:
    """(start of the batch, row) -> number, kept in a file if there is a path.

    The first line of the file says what the rows are of. A row is written as a whole, at once; what
    a kill left of the last one is dropped when the file is read again.

    Args:
        path: The file, made if it does not exist; None keeps the rows in memory.
        identity: What the rows depend on: name -> value.

    Raises:
        ValueError: If the file is of another identity, or no checkpoint, or its folder is missing.
    """

    def __init__(self, path: str | os.PathLike[str] | None, identity: Mapping[str, Any]) -> None:
        self._path = None if path is None else pathlib.Path(path)
        self._rows: dict[tuple[int, str], float] = {}
        if self._path is None:
            return
        if not self._path.parent.is_dir():
            raise ValueError(f"`checkpoint` must be in a folder that exists, got {self._path}.")
        if self._path.exists() and self._path.stat().st_size:
            self._read(self._path, identity)
        else:
            _write_whole(self._path, json.dumps(dict(identity)) + "\n")

    def __contains__(self, key: tuple[int, str]) -> bool:
        return key in self._rows

    def __getitem__(self, key: tuple[int, str]) -> float:
        return self._rows[key]

    def add(self, start: int, row: str, value: float) -> None:
        """Adds a row."""
        self._rows[start, row] = value
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps([start, row, value]) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def _read(self, path: pathlib.Path, identity: Mapping[str, Any]) -> None:
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        try:
            found, *rows = map(json.loads, whole.splitlines())
            self._rows = {(int(start), str(row)): float(value) for start, row, value in rows}
            is_checkpoint = isinstance(found, dict)
        except (ValueError, TypeError):
            is_checkpoint = False
        if not is_checkpoint:
            raise ValueError(f"`checkpoint` must be a file of this search, got another: {path}.")
        for name, value in identity.items():
            if found.get(name) != value:
                raise ValueError(
                    f"`checkpoint` must be of the same {name}, got a file with another: {path} has "
                    f"{found.get(name)!r}, the search {value!r}. Give another path, or remove it."
                )
        if whole != text:
            _write_whole(path, whole)


def _write_whole(path: pathlib.Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def fingerprint(arrays: Iterable[Any]) -> str:
    """Returns a short name of the values of some arrays, their shapes and types."""
    digest = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(array)
        digest.update(f"{values.dtype.str}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]
