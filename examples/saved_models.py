"""Reads the saved models that the examples are given, and writes those that they make."""

from __future__ import annotations

import os
import pathlib
import tempfile

import keras


def load(path: str) -> keras.Model:
    """Returns the Keras 3 model in a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no model.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`model_path` must be a file with a Keras 3 model, got {path!r}.")
    try:
        return keras.saving.load_model(path)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"`model_path` must be a file that Keras 3's `Model.save` wrote, got {path!r}: {error}"
        ) from error


def save(model: keras.Model, path: str | pathlib.Path) -> None:
    """Writes a whole file, or none; makes the folder that it is in."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = pathlib.Path(folder) / path.name
        model.save(unfinished)
        unfinished.replace(path)
