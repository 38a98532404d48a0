"""Trains small nets at low precision on part of CIFAR-10: weight-scale rules, ranges, widths.

    python examples/experiments/low_bit_training.py --data_dir=.../cifar-10-batches-py \
        --nets=resnet8 --settings=float,default,wide --seeds=3

The first 10,000 training images, the whole test set, 12 epochs, batch 128, SGD 0.1 with Nesterov
momentum 0.9 and a cosine to 0, weight decay 5e-4 on kernels, crops and mirrored images. One run
takes two to five minutes on two cores. Each finished run is appended to a CSV file; runs that are
in it are not repeated, so an interrupted series goes on where it was. Ends with a table: mean and
spread over the seeds.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags

import wrpn_tf

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import csv_rows
import datasets

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py.", required=True)
_NETS = flags.DEFINE_list("nets", ["resnet8", "plain6", "mobile8"], "Nets to train.")
_SETTINGS = flags.DEFINE_list("settings", ["float", "mean"], "Settings to train them in.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds 0, 1, ... per net and setting.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 12, "Epochs.", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 10_000, "Training images.", lower_bound=128)
_OUT = flags.DEFINE_string("out", "low_bit_training.csv", "CSV file of finished runs.")

_BATCH = 128
_MEAN = np.float32([0.4914, 0.4822, 0.4465])
_STD = np.float32([0.2470, 0.2435, 0.2616])
_COLUMNS = ("net", "setting", "seed", "epochs", "images", "test_accuracy", "loss", "seconds")

# Arguments of `widen_and_quantize`; nothing is widened unless a setting says so. None: float.
SETTINGS: dict[str, Mapping[str, Any] | None] = {
    "float": None,
    "default": {},
    "wide": {"width_multiplier": 2.0},
    "paper": dict(wrpn_tf.quantization.PAPER_RECIPE),
    "paper_clip4": {**wrpn_tf.quantization.PAPER_RECIPE, "activation_range": 4.0},
    **{
        rule: {"weight_scale": rule}
        for rule in ("none", "initializer", "mean", "mean_per_channel", "max", "max_per_channel")
    },
    "range1": {"activation_range": 1.0},
    "range4": {"activation_range": 4.0},
    "observed": {"activation_range": "observed"},
    "w4a4": {"num_bits_weight": 4, "num_bits_activation": 4},
    "w2a2": {"num_bits_activation": 2},
    "w2a2_range2": {"num_bits_activation": 2, "activation_range": 2.0},
}


flags.register_validator(
    "nets", lambda names: set(names) <= set(NETS), "must be among resnet8, plain6, mobile8"
)
flags.register_validator(
    "settings",
    lambda names: set(names) <= set(SETTINGS),
    f"must be among {', '.join(SETTINGS)}",
)


def main(argv: list[str]) -> None:
    """Trains what is not in the CSV file yet, then prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    data = datasets.load("cifar10", _DATA_DIR.value).first(_IMAGES.value)
    out = pathlib.Path(_OUT.value)
    todo = [
        (net, setting, seed)
        for seed in range(_SEEDS.value)
        for net in _NETS.value
        for setting in _SETTINGS.value
    ]
    for number, (net, setting, seed) in enumerate(todo, start=1):
        if (net, setting, str(seed)) not in _finished(out):
            print(f"[{number}/{len(todo)}] {net} {setting} seed {seed}", flush=True)
            csv_rows.append(out, _COLUMNS, _train(net, setting, seed, data))
    _print_table(out)


def _train(net: str, setting: str, seed: int, data: datasets.Dataset) -> dict[str, Any]:
    start = time.time()
    keras.utils.set_random_seed(seed)
    model = NETS[net]()
    if SETTINGS[setting] is not None:
        model = wrpn_tf.widen_and_quantize(model, **{"width_multiplier": 1, **SETTINGS[setting]})
    batches = data.training_batches(_BATCH, seed).map(lambda x, y: ((x - _MEAN) / _STD, y))
    steps = len(data.x_train) // _BATCH
    schedule = keras.optimizers.schedules.CosineDecay(0.1, steps * _EPOCHS.value)
    # Decoupled decay is not amplified by momentum: 5e-4 / (1 - 0.9) is SGD's customary 5e-4.
    optimizer = keras.optimizers.SGD(schedule, 0.9, nesterov=True, weight_decay=5e-3)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias", "range"])
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    history = model.fit(batches, epochs=_EPOCHS.value, verbose=2 if sys.stdout.isatty() else 0)
    images = (data.x_test - _MEAN) / _STD
    _, accuracy = model.evaluate(images, data.y_test, batch_size=500, verbose=0)
    return {
        "net": net,
        "setting": setting,
        "seed": seed,
        "epochs": _EPOCHS.value,
        "images": len(data.x_train),
        "test_accuracy": round(100 * accuracy, 2),
        "loss": round(history.history["loss"][-1], 4),
        "seconds": round(time.time() - start),
    }


def _resnet8() -> keras.Model:
    return wrpn_tf.applications.CIFARResNet(8, weights=None)


def _plain6() -> keras.Model:
    """Five 3x3 convolutions with batch norm, each second one with stride 2, and a dense layer."""
    inputs = x = keras.Input((32, 32, 3))
    for number, filters in enumerate((32, 32, 64, 64, 128)):
        strides = 1 if number % 2 else 2
        convolution = keras.layers.Conv2D(
            filters, 3, strides, padding="same", use_bias=False, kernel_initializer="he_normal"
        )
        x = _conv_bn_relu(x, convolution)
    return _classifier(inputs, x, "plain6")


def _mobile8() -> keras.Model:
    """A convolution, three pairs of depthwise and pointwise ones, ReLU6, and a dense layer."""
    inputs = keras.Input((32, 32, 3))
    x = _conv_bn_relu(inputs, keras.layers.Conv2D(32, 3, padding="same", use_bias=False), 6.0)
    for filters in (64, 128, 256):
        depthwise = keras.layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False)
        x = _conv_bn_relu(x, depthwise, 6.0)
        x = _conv_bn_relu(x, keras.layers.Conv2D(filters, 1, use_bias=False), 6.0)
    return _classifier(inputs, x, "mobile8")


def _conv_bn_relu(x: Any, convolution: keras.Layer, limit: float | None = None) -> Any:
    return keras.layers.ReLU(limit)(keras.layers.BatchNormalization()(convolution(x)))


def _classifier(inputs: Any, x: Any, name: str) -> keras.Model:
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x), name=name)


NETS = {"resnet8": _resnet8, "plain6": _plain6, "mobile8": _mobile8}


def _rows(out: pathlib.Path) -> list[dict[str, str]]:
    """The finished runs of this length."""
    length = (str(_EPOCHS.value), str(_IMAGES.value))
    return [r for r in csv_rows.read(out) if (r["epochs"], r["images"]) == length]


def _finished(out: pathlib.Path) -> set[tuple[str, str, str]]:
    return {(row["net"], row["setting"], row["seed"]) for row in _rows(out)}


def _print_table(out: pathlib.Path) -> None:
    results: dict[tuple[str, str], list[float]] = {}
    for row in _rows(out):
        key = (row["net"], row["setting"])
        results.setdefault(key, []).append(float(row["test_accuracy"]))
    print(f"{'net':10}{'setting':20}{'test accuracy %':>16}{'spread':>8}{'n':>4}")
    for (net, setting), values in sorted(results.items()):
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{net:10}{setting:20}{statistics.mean(values):16.2f}{spread:8.2f}{len(values):4}")


if __name__ == "__main__":
    app.run(main)
