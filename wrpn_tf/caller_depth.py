"""Where a warning points: at the line that called this package."""

from __future__ import annotations

import sys


def depth_of_caller() -> int:
    """Returns the `stacklevel` that lets a warning of the calling function name the user's line."""
    package = __name__.partition(".")[0]
    frame, depth = sys._getframe(1), 1
    while frame is not None and frame.f_globals["__name__"].partition(".")[0] == package:
        frame, depth = frame.f_back, depth + 1
    return depth
