"""The images that the examples train on, each with a fixed split into training and test set."""

from __future__ import annotations

import dataclasses
import pathlib
import pickle
import urllib.error
from collections.abc import Iterator
from typing import Any

import numpy as np

NAMES = ("digits", "cifar10", "fashion_mnist")

_NUM_TRAINING_DIGITS = 1000


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels, split into training and test set.

    Attributes:
        name: One of `NAMES`.
        split: The split in words.
        x_train: float32 images in [0, 1], (examples, height, width, channels).
        y_train: Class indices.
        x_test: As `x_train`.
        y_test: As `y_train`.
        max_shift: Pixels that a training image may be shifted by.
        flip: Whether training images may be mirrored, left to right.
    """

    name: str
    split: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    max_shift: int
    flip: bool = False
    num_classes: int = 10

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.x_train.shape[1:]

    def first(self, num_training_images: int | None) -> Dataset:
        """Returns the same with the first training images only; None means all."""
        x, y = self.x_train[:num_training_images], self.y_train[:num_training_images]
        return dataclasses.replace(self, x_train=x, y_train=y)

    def training_batches(self, batch_size: int, seed: int) -> Any:
        """Returns a `tf.data.Dataset` of batches: shuffled, shifted, mirrored, each epoch anew.

        The last, incomplete batch of an epoch is left out; what is in it changes with the epoch.

        Raises:
            ValueError: If the training set is smaller than a batch.
        """
        import tensorflow as tf

        steps = self.num_batches(batch_size)
        rng = np.random.default_rng(seed)
        signature = (
            tf.TensorSpec((batch_size, *self.input_shape), tf.float32),
            tf.TensorSpec((batch_size,), tf.int32),
        )
        batches = tf.data.Dataset.from_generator(
            lambda: self.epoch(batch_size, rng), output_signature=signature
        )
        batches = batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(4)
        # There is nothing to tune here, and `tf.data`'s tuner sleeps for up to a minute at a time
        # while the end of an epoch waits for it.
        options = tf.data.Options()
        options.autotune.enabled = False
        return batches.with_options(options)

    def epoch(
        self, batch_size: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the next epoch of `training_batches` as arrays.

        Raises:
            ValueError: If the training set is smaller than a batch.
        """
        steps = self.num_batches(batch_size)
        order = rng.permutation(len(self.x_train))
        for chosen in order[: steps * batch_size].reshape(steps, batch_size):
            yield self._augmented(self.x_train[chosen], rng), self.y_train[chosen]

    def num_batches(self, batch_size: int) -> int:
        """Returns how many whole batches an epoch has.

        Raises:
            ValueError: If the training set is smaller than a batch.
        """
        steps = len(self.x_train) // batch_size
        if not steps:
            raise ValueError(
                f"`batch_size` must be at most {len(self.x_train)}, the number of training images, "
                f"got {batch_size}."
            )
        return steps

    def _augmented(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, height, width, _ = images.shape
        margin = self.max_shift
        padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        down, right = rng.integers(0, 2 * margin + 1, (2, count))
        images = np.moveaxis(windows[np.arange(count), down, right], 1, -1)
        if not self.flip:
            return images
        mirrored = rng.integers(0, 2, count).astype(bool)
        return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Returns a dataset.

    Args:
        name: `"digits"`: 1,797 images of 8x8 inside scikit-learn; `"cifar10"`: read from
            `data_dir`; `"fashion_mnist"`: downloaded by Keras the first time.
        data_dir: For `"cifar10"`: the folder `cifar-10-batches-py` of the Python version of
            https://www.cs.toronto.edu/~kriz/cifar.html, unpacked, or the folder that holds it.

    Raises:
        ValueError: If the name is unknown, or `data_dir` is missing or does not fit the name.
        FileNotFoundError: If `data_dir` lacks one of CIFAR-10's files.
        ImportError: If scikit-learn is not installed.
        ConnectionError: If the download fails.
    """
    if name not in NAMES:
        raise ValueError(f"`dataset` must be one of {', '.join(NAMES)}, got {name!r}.")
    if (name == "cifar10") != bool(data_dir):
        raise ValueError(
            f"`data_dir` must be given for cifar10 and only for it, got {data_dir!r} for {name}."
        )
    if name == "cifar10":
        return _load_cifar10(pathlib.Path(data_dir))
    return _load_digits() if name == "digits" else _load_fashion_mnist()


def _load_digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits are part of scikit-learn, which is not installed: "
            "pip install -e '.[examples]'."
        ) from error
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).reshape(-1, 8, 8, 1).astype(np.float32)  # Pixels are 0..16.
    y = labels.astype(np.int32)
    n = _NUM_TRAINING_DIGITS
    return Dataset(
        name="digits",
        # In scikit-learn's order writers follow one another: few are in both parts.
        split=f"the first {n:,} images train, the last {len(x) - n} test",
        x_train=x[:n],
        y_train=y[:n],
        x_test=x[n:],
        y_test=y[n:],
        max_shift=1,
    )


def _load_fashion_mnist() -> Dataset:
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    except Exception as error:
        # Keras raises no narrower class where a download fails.
        if not isinstance(error.__context__, urllib.error.URLError):
            raise
        raise ConnectionError(
            "Keras could not download Fashion-MNIST "
            f"({error}). Try --dataset=digits, which needs no network."
        ) from error
    return Dataset(
        name="fashion_mnist",
        split="60,000 images train, 10,000 test, as published",
        x_train=(x_train[..., None] / 255).astype(np.float32),
        y_train=y_train.astype(np.int32),
        x_test=(x_test[..., None] / 255).astype(np.float32),
        y_test=y_test.astype(np.int32),
        max_shift=2,
        flip=True,
    )


def _load_cifar10(data_dir: pathlib.Path) -> Dataset:
    folder = data_dir / "cifar-10-batches-py"
    folder = folder if folder.is_dir() else data_dir
    training = [_read_cifar10(folder / f"data_batch_{i}") for i in range(1, 6)]
    x_test, y_test = _read_cifar10(folder / "test_batch")
    return Dataset(
        name="cifar10",
        split="50,000 images train, 10,000 test, as published",
        x_train=np.concatenate([x for x, _ in training]),
        y_train=np.concatenate([y for _, y in training]),
        x_test=x_test,
        y_test=y_test,
        max_shift=4,
        flip=True,
    )


def _read_cifar10(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(
            "`data_dir` must hold the files data_batch_1 to data_batch_5 and test_batch of "
            f"CIFAR-10's Python version, got a folder without {path.name}: {path.parent}."
        )
    with path.open("rb") as file:
        batch = pickle.load(file, encoding="bytes")
    images = np.asarray(batch[b"data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return (images / 255).astype(np.float32), np.asarray(batch[b"labels"], np.int32)
