"""Rules that name layers by regular expressions: what every `overrides` argument has in common."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence


def check_pattern(pattern: str) -> None:
    """Checks a key of an `overrides` argument.

    Raises:
        ValueError: If it is no regular expression.
    """
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"`overrides` must have regular expressions as keys, got {pattern!r}: {error}."
        ) from error


def near_names(pattern: str, names: Sequence[str]) -> str:
    """Returns up to five names, the likest or else the first, for a rule that matches none."""
    near = difflib.get_close_matches(pattern, names, n=5, cutoff=0.3) or names[:5]
    return ", ".join(near)
