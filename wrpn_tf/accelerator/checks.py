"""Checks of whole numbers that users give."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_int(name: str, value: Any, smallest: int, largest: int | None = None) -> int:
    """Returns `value` if it is a whole number in smallest..largest.

    Raises:
        TypeError: If it is not an int, or is a bool.
        ValueError: If it is out of range.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be an int, got {type(value).__name__} {value!r}.")
    if value < smallest or (largest is not None and value > largest):
        wanted = f"at least {smallest}" if largest is None else f"in {smallest}..{largest}"
        raise ValueError(f"`{name}` must be {wanted}, got {value}.")
    return int(value)
