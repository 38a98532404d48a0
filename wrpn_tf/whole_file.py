"""Files that are written whole, or not at all."""

from __future__ import annotations

import os
import pathlib
import tempfile


def write_whole(blob: bytes, target: pathlib.Path) -> None:
    """Writes a file beside its place, then moves it there; an interrupted write leaves nothing.

    Args:
        blob: The file's bytes.
        target: Where to; a file that is there is replaced.

    Raises:
        OSError: If it cannot be written.
    """
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
        os.chmod(partial, 0o644)
        os.replace(partial, target)
    except BaseException:
        pathlib.Path(partial).unlink(missing_ok=True)
        raise
