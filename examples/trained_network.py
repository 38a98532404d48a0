"""Tries the trained network of this repository: ResNet-20, 2-bit weights, 8-bit activations.

Its first 30 % of the layers are twice as wide; a full-precision teacher guided its training.

    python examples/trained_network.py                               # bundled photographs
    python examples/trained_network.py --images=cat.jpg,holidays     # files, folders of them
    python examples/trained_network.py --data_dir=.../cifar-10-batches-py

Without --data_dir it says what it takes each photograph for, in Keras and in the integer file; with
it, how many of CIFAR-10's 10,000 test images both tell right.
"""

from __future__ import annotations

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import datasets
import keras
import numpy as np
import photographs
import saved_models
import tflite_files
from absl import app, flags

import wrpn_tf

_IMAGES = flags.DEFINE_list("images", None, "Image files, or folders of them.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py: the test set.")
flags.mark_flags_as_mutual_exclusive(["images", "data_dir"])

FOLDER = pathlib.Path(__file__).resolve().parent / "results" / "trained"
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def main(argv: list[str]) -> None:
    """Loads the network and its file, and shows their answers."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    model = saved_models.load(str(FOLDER / "resnet20_w2a8.keras"))
    blob = (FOLDER / "resnet20_w2a8_int8.tflite").read_bytes()
    mean = np.load(FOLDER / "mean.npy")  # CIFAR-10's mean training image, which is subtracted
    print(f"{wrpn_tf.summary(model)}\n\nThe file has {len(blob):,} bytes.\n")
    try:
        if _DATA_DIR.value is None:
            tell(model, blob, mean)
        else:
            count(model, blob, mean)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


def tell(model: keras.Model, blob: bytes, mean: np.ndarray) -> None:
    """Prints what each photograph is taken for."""
    images = photographs.load(_IMAGES.value, mean.shape)
    outputs = answers(model, blob, np.stack(list(images.values())) - mean).values()
    print(f"{'photograph':24}{'Keras':14}file")
    for name, *classes in zip(images, *(x.argmax(axis=1) for x in outputs), strict=True):
        print(f"{name:24}" + "".join(f"{CLASSES[index]:14}" for index in classes))


def count(model: keras.Model, blob: bytes, mean: np.ndarray) -> None:
    """Prints how many of CIFAR-10's test images are told right."""
    data = datasets.load("cifar10", _DATA_DIR.value)
    for name, outputs in answers(model, blob, data.x_test - mean).items():
        right = (outputs.argmax(axis=1) == data.y_test).mean()
        print(f"{name:8}{right:.2%} of {len(data.y_test):,} test images told right")


def answers(model: keras.Model, blob: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    """What the Keras model and the integer file give for images."""
    return {
        "Keras": model.predict(images, 500, verbose=0),
        "file": tflite_files.predict(blob, images),
    }


if __name__ == "__main__":
    app.run(main)
