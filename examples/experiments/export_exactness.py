"""Trains nets at many bit widths, exports each in every storage, and counts what differs.

    python examples/experiments/export_exactness.py
    python examples/experiments/export_exactness.py --data_dir=.../cifar-10-batches-py \
        --nets=digits,preactivation,concatenation,gated,resnet20,mobilenetv2

For each net and pair of bit widths: trains briefly, snaps, writes a file, and compares Keras, the
kernels' formulas, the accelerator and every installed runtime at every layer. A row of the CSV file
tells how many values differ; rows that are in it, of the same seed, epochs and numbers of images,
are not computed again, trained nets are kept in --model_dir, so an interrupted series goes on where
it was. The digits (digits, preactivation, concatenation, gated) take two minutes per net on two
cores, each CIFAR-10 net about three minutes for one pair of bit widths in three storages.
"""

from __future__ import annotations

import os
import pathlib
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from keras import layers

import tflite_export
import wrpn_tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import csv_rows
import datasets
import saved_models

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py, for CIFAR-10 nets.")
_NETS = flags.DEFINE_list(
    "nets",
    ["digits"],
    "Among digits, preactivation, concatenation, gated (on the digits), resnet20, mobilenetv2.",
)
_BITS = flags.DEFINE_list(
    "bits", ["w2a2", "w2a4", "w2a8", "w3a3", "w4a4", "w4a8"], "Of weights and activations."
)
_STORAGES = flags.DEFINE_list("storages", ["int8", "int4", "int2"], "How weights are stored.")
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Epochs of training; by default 10, for resnet20 3.", lower_bound=1
)
_TRAIN_IMAGES = flags.DEFINE_integer("train_images", 4000, "Images to train on.", lower_bound=64)
_TEST_IMAGES = flags.DEFINE_integer(
    "test_images", 2000, "Test images for accuracies.", lower_bound=1
)
_IMAGES = flags.DEFINE_integer("images", 32, "Test images compared at each layer.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the initial weights and the order of the images.")
_MODEL_DIR = flags.DEFINE_string("model_dir", "export_exactness_models", "Trained nets.")
_OUT = flags.DEFINE_string("out", "export_exactness.csv", "CSV file of finished rows.")

# What a row is measured on: rows that are the same in these are computed once.
_KEY = ("net", "bits", "storage", "seed", "epochs", "train_images", "test_images", "images")
_COLUMNS = (
    "net",
    "bits",
    "storage",
    "seed",
    "epochs",
    "train_images",
    "test_images",
    "test_accuracy",
    "snapped_accuracy",
    "largest_scale_move",
    "bytes",
    "images",
    "exact",
    "differing",
    "keras_differing",
    "compared",
    "seconds",
)


def main(argv: list[str]) -> None:
    """Computes the rows that are not in the CSV file yet."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    out = pathlib.Path(_OUT.value)
    for net in _NETS.value:
        data = load(net)
        for bits in _BITS.value:
            finished = [tuple(row[column] for column in _KEY) for row in csv_rows.read(out)]
            todo = [settings(net, bits, storage, data) for storage in _STORAGES.value]
            todo = [row for row in todo if tuple(map(str, row.values())) not in finished]
            model = trained(net, bits, data) if todo else None
            for row in todo:
                print(f"{net} {bits} {row['storage']}", flush=True)
                csv_rows.append(out, _COLUMNS, row | measure(model, row["storage"], data))
    print(out.read_text())


def load(net: str) -> datasets.Dataset:
    """Returns a net's images."""
    if net in ("digits", *_ON_DIGITS):
        return datasets.load("digits", None)
    if _DATA_DIR.value is None:
        raise app.UsageError(f"--data_dir must be given for {net}.")
    return datasets.load("cifar10", _DATA_DIR.value).first(_TRAIN_IMAGES.value)


def settings(net: str, bits: str, storage: str, data: datasets.Dataset) -> dict[str, Any]:
    """Returns what a row is measured on, `_KEY` -> value."""
    tested, compared = (min(flag.value, len(data.x_test)) for flag in (_TEST_IMAGES, _IMAGES))
    counts = (num_epochs(net), len(data.x_train), tested, compared)
    values = (net, bits, storage, _SEED.value, *counts)
    return dict(zip(_KEY, values, strict=True))


def trained(net: str, bits: str, data: datasets.Dataset) -> keras.Model:
    """Returns a trained low-bit net: from the folder of models, or newly trained."""
    epochs = num_epochs(net)
    name = f"{net}_{bits}_{epochs}epochs_{len(data.x_train)}images_seed{_SEED.value}.keras"
    path = pathlib.Path(_MODEL_DIR.value) / name
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(_SEED.value)
    weight_bits, activation_bits = (int(number) for number in bits.lstrip("w").split("a"))
    model = wrpn_tf.quantize_model(
        _network(net), num_bits_weight=weight_bits, num_bits_activation=activation_bits
    )
    batches = data.training_batches(64, _SEED.value)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * len(batches))
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"], jit_compile=False)
    model.fit(batches, shuffle=False, epochs=epochs, verbose=2)
    saved_models.save(model, path)
    return model


def num_epochs(net: str) -> int:
    """Returns for how long a net is trained."""
    return _EPOCHS.value or (3 if net == "resnet20" else 10)


def measure(model: keras.Model, storage: str, data: datasets.Dataset) -> dict[str, Any]:
    """Returns the rest of a row: what the snapped net loses, and what differs in its file."""
    start = time.monotonic()
    tested = data.x_test[: _TEST_IMAGES.value], data.y_test[: _TEST_IMAGES.value]
    snapped, moves = tflite_export.snap(model, storage, tested)
    blob = tflite_export.convert(snapped, storage, snap_first=False)
    report = tflite_export.verify(snapped, blob, data.x_test[: _IMAGES.value])
    print(report, flush=True)
    compared = [pair for layer in report.layers for pair in layer.sources.items()]
    before, after = moves.accuracies
    return {
        "test_accuracy": round(100 * before, 2),
        "snapped_accuracy": round(100 * after, 2),
        "largest_scale_move": max(float(np.abs(m.scale_moves).max()) for m in moves.layers),
        "bytes": len(blob),
        "exact": report.exact,
        "differing": sum(c.differing for name, c in compared if name != "Keras"),
        "keras_differing": sum(c.differing for name, c in compared if name == "Keras"),
        "compared": sum(c.total for name, c in compared if name == "Keras"),
        "seconds": round(time.monotonic() - start),
    }


def _network(net: str) -> keras.Model:
    if net == "digits":
        return wrpn_tf.applications.ResNet8(input_shape=(8, 8, 1))
    if net in _ON_DIGITS:
        image = keras.Input((8, 8, 1))
        features = layers.GlobalAveragePooling2D()(_ON_DIGITS[net](image))
        return keras.Model(image, layers.Dense(10, activation="softmax")(features))
    if net == "resnet20":
        return wrpn_tf.applications.ResNet20()
    if net == "mobilenetv2":
        model = keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, classes=10)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9  # Its own 0.999 takes thousands of steps.
        return model
    known = ", ".join(["digits", *_ON_DIGITS, "resnet20", "mobilenetv2"])
    raise app.UsageError(f"--nets must be among {known}, got {net}.")


def _preactivation(x: Any) -> Any:
    """Sums of signed branches, which convolutions read without a ReLU between."""
    x = layers.Conv2D(16, 3, padding="same")(x)
    for strides in (1, 2):
        y = layers.Conv2D(16, 3, strides, "same", use_bias=False)(_norm_relu(x))
        y = layers.Conv2D(16, 3, padding="same", use_bias=False)(_norm_relu(y))
        x = layers.Add()([x if strides == 1 else layers.Conv2D(16, 1, strides)(x), y])
    return _norm_relu(x)


def _concatenation(x: Any) -> Any:
    """A dense block, and what it shows when pooled, sampled up and joined with it."""
    x = _conv(x, 12)
    for _ in range(3):
        x = layers.Concatenate()([x, _conv(x, 8)])
    y = layers.UpSampling2D()(_conv(layers.MaxPooling2D()(x), 16))
    return _conv(layers.Concatenate()([x, y]), 16)


def _gated(x: Any) -> Any:
    """Squeeze-and-excite blocks of swish: depthwise convolutions whose channels are weighed."""
    x = _conv(x, 12)
    for strides in (1, 2):
        y = layers.Conv2D(32, 1, use_bias=False)(x)
        y = layers.Activation("swish")(layers.BatchNormalization(momentum=0.9)(y))
        y = layers.DepthwiseConv2D(3, strides, "same", use_bias=False)(y)
        y = layers.Activation("swish")(layers.BatchNormalization(momentum=0.9)(y))
        gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
        gate = layers.Conv2D(8, 1, activation="relu")(gate)
        y = layers.Multiply()([y, layers.Conv2D(32, 1, activation="sigmoid")(gate)])
        y = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(12, 1, use_bias=False)(y))
        x = layers.Add()([x, y]) if strides == 1 else y
    return _conv(x, 32)


def _conv(x: Any, filters: int) -> Any:
    return _norm_relu(layers.Conv2D(filters, 3, padding="same", use_bias=False)(x))


def _norm_relu(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


_ON_DIGITS = {
    "preactivation": _preactivation,
    "concatenation": _concatenation,
    "gated": _gated,
}


if __name__ == "__main__":
    app.run(main)
