"""A line of progress on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

_QUIET_SECONDS = 3.0


class Progress:
    """Shows how far a loop is, once it takes long; a context manager.

    Args:
        title: What runs.
        total: How many steps there are.
        unit: What a step is, in the plural.
        verbose: Whether to show anything.
    """

    def __init__(self, title: str, total: int, unit: str, verbose: bool):
        self._title = title
        self._total = f"{total} {unit}"
        self._verbose = verbose
        self._done = 0
        self._start = time.monotonic()
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._width:
            sys.stderr.write("\n")

    def add(self, count: int) -> None:
        """Counts steps as done."""
        self._done += count
        self.show("")

    def show(self, what: str) -> None:
        """Shows the state, and what runs now."""
        if not self._verbose or time.monotonic() - self._start < _QUIET_SECONDS:
            return
        line = f"{self._title}: {self._done} of {self._total}"
        line += f", {what}" if what else ""
        sys.stderr.write(f"\r{line:<{self._width}}")
        sys.stderr.flush()
        self._width = len(line)
