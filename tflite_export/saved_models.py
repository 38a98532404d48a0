"""Loads a saved model with the Keras that wrote it."""

from __future__ import annotations

import json
import os
import zipfile
from typing import Any

from wrpn_tf.keras_flavor import KERAS, TF_KERAS, KerasFlavor


def load_model(path: str | os.PathLike[str]) -> Any:
    """Returns the model in a `.keras` or `.h5` file or a SavedModel folder, uncompiled.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If it holds no Keras model.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"`path` must be a saved model, got {str(path)!r}: no such file.")
    flavor = saved_flavor(path)
    try:
        return flavor.keras.models.load_model(path, compile=False)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"`path` must be a model that Keras saved, got {str(path)!r}: {error}"
        ) from error


def saved_flavor(path: str | os.PathLike[str]) -> KerasFlavor:
    """Returns the Keras that wrote a file: Keras 3, or tf_keras (Keras 2)."""
    if os.path.isdir(path):
        return TF_KERAS
    try:
        version = _archived_version(path) if zipfile.is_zipfile(path) else _h5_version(path)
    except (AttributeError, KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"`path` must be a model that Keras saved, got {str(path)!r}.") from error
    return TF_KERAS if str(version).startswith("2") else KERAS


def _archived_version(path: str | os.PathLike[str]) -> str:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("metadata.json")).get("keras_version", "3")


def _h5_version(path: str | os.PathLike[str]) -> str:
    import h5py

    with h5py.File(path) as file:
        return file.attrs.get("keras_version", "3")
