"""Photographs for the examples that look at images: bundled ones, or files."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# Colour photographs inside scikit-image's package; others would be downloaded.
_FROM_SKIMAGE = ("astronaut", "chelsea", "coffee", "rocket")


def load(paths: Sequence[str] | None, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns name -> image of a shape, float32 in [0, 1]: the middle of each, made smaller.

    Args:
        paths: Image files, or folders of them. None: two photographs of scikit-learn and, if it is
            installed, four of scikit-image; nothing is downloaded.
        shape: (height, width, channels), with 1 or 3 channels.

    Raises:
        ImportError: If scikit-learn is missing, and no paths are given.
        ValueError: If there are no images, a file holds none, or two have the same name.
    """
    photographs = _bundled() if paths is None else dict(_read(path) for path in _files(paths))
    return {name: _resized(pixels, *shape) for name, pixels in photographs.items()}


def _bundled() -> dict[str, np.ndarray]:
    try:
        from sklearn.datasets import load_sample_images

        samples = load_sample_images()
    except ImportError as error:
        raise ImportError(
            "The bundled photographs need scikit-learn and Pillow: pip install scikit-learn pillow."
        ) from error
    names = [pathlib.Path(path).stem for path in samples.filenames]
    photographs = dict(zip(names, samples.images, strict=True))
    try:
        import skimage.data
    except ImportError:
        return photographs
    return photographs | {name: getattr(skimage.data, name)() for name in _FROM_SKIMAGE}


def _files(paths: Sequence[str]) -> list[pathlib.Path]:
    files = []
    for path in map(pathlib.Path, paths):
        found = [path]
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in _ENDINGS)
        if not found or not found[0].is_file():
            raise ValueError(f"`images` must be image files or folders of some, got {str(path)!r}.")
        files += found
    names = [path.stem for path in files]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"`images` must have different names, got {', '.join(repeated)} twice.")
    return files


def _read(path: pathlib.Path) -> tuple[str, np.ndarray]:
    import tensorflow as tf

    try:
        pixels = tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"`images` must be PNG, JPEG, GIF or BMP files, got {str(path)!r}."
        ) from error
    return path.stem, pixels.numpy()


def _resized(pixels: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
    """The largest part in the middle that has the wanted shape, resized."""
    import tensorflow as tf

    scale = min(pixels.shape[0] / height, pixels.shape[1] / width)
    rows, columns = int(scale * height), int(scale * width)
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    middle = pixels[top : top + rows, left : left + columns] / np.float32(255)
    resized = tf.image.resize(middle, (height, width), antialias=True).numpy().clip(0, 1)
    return resized.mean(axis=-1, keepdims=True) if channels == 1 else resized
