"""Trains a float network and its 2-bit versions, and shows what they keep and what they save.

    python examples/quickstart.py
    python examples/quickstart.py --dataset=cifar10 --data_dir=cifar-10-batches-py --epochs=30
    python examples/quickstart.py --dataset=fashion_mnist --epochs=5 --seeds=1

Five rows, all trained from scratch by the same schedule: the float network; 2-bit weights and 8-bit
activations (the first and last layers' weights have 8 bits); the same with twice the filters
(WRPN); the same taught by the float network (Apprentice); and both. Every run trains to its last
epoch, and every run counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import datasets
import keras
import saved_models
from absl import app, flags

import wrpn_tf

_DATASET = flags.DEFINE_enum("dataset", "digits", datasets.NAMES, "Images to train on.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "For cifar10: the folder cifar-10-batches-py.")
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", None, "Training images to use, the first of them; all by default.", lower_bound=1
)
_NUM_BITS_WEIGHT = flags.DEFINE_integer(
    "num_bits_weight", 2, "Bits of weights.", lower_bound=1, upper_bound=8
)
_NUM_BITS_ACTIVATION = flags.DEFINE_integer(
    "num_bits_activation", 8, "Bits of activations.", lower_bound=1, upper_bound=8
)
_WIDTH_MULTIPLIER = flags.DEFINE_float("width_multiplier", 2.0, "Filters of the widened networks.")
_EPOCHS = flags.DEFINE_integer("epochs", 30, "Epochs of each run.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a training step.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 3e-3, "Adam's at the start; a cosine takes it to 0.", lower_bound=0
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each row, seeds 0, 1, ...", lower_bound=1)
_OUT_DIR = flags.DEFINE_string(
    "out_dir", "quickstart_results", "Where the best low-bit network is saved; empty: nowhere."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A way to make the network.

    Attributes:
        name: What the table calls it.
        width_multiplier: Its filters / those of the float network.
        is_low_bit: Whether it is quantized.
        is_taught: Whether it learns from the float network, too.
    """

    name: str
    width_multiplier: float = 1.0
    is_low_bit: bool = True
    is_taught: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """A trained network and its share of right answers on the test set."""

    model: keras.Model
    accuracy: float


def make_rows() -> tuple[Row, ...]:
    """Returns the rows of the table; the first one is the teacher."""
    bits = f"{_NUM_BITS_WEIGHT.value}b/{_NUM_BITS_ACTIVATION.value}b"
    width = _WIDTH_MULTIPLIER.value
    return (
        Row("float (teacher)", is_low_bit=False),
        Row(bits),
        Row(f"{bits}, {width:g}x wide", width),
        Row(f"{bits}, distilled", is_taught=True),
        Row(f"{bits}, {width:g}x wide, distilled", width, is_taught=True),
    )


def build_network(input_shape: Sequence[int], num_classes: int) -> keras.Model:
    """Returns a small float network that gives logits; nothing in it knows of quantization."""
    layers = keras.layers
    image = x = keras.Input(input_shape)
    for filters, strides in ((16, 1), (32, 2), (32, 1), (64, 2)):
        x = layers.Conv2D(
            filters,
            3,
            strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
        )(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(num_classes)(x), name="small_cnn")


def train(row: Row, data: datasets.Dataset, teacher: keras.Model | None, seed: int) -> Result:
    """Trains one row's network from new weights."""
    keras.utils.set_random_seed(seed)
    model = build_network(data.input_shape, data.num_classes)
    if row.is_low_bit:
        model = wrpn_tf.widen_and_quantize(
            model,
            width_multiplier=row.width_multiplier,
            num_bits_weight=_NUM_BITS_WEIGHT.value,
            num_bits_activation=_NUM_BITS_ACTIVATION.value,
        )
    trainer, loss = model, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if row.is_taught:
        trainer, loss = wrpn_tf.Distiller(model, teacher), None
    batches = data.training_batches(_BATCH_SIZE.value, seed)
    schedule = keras.optimizers.schedules.CosineDecay(
        _LEARNING_RATE.value, _EPOCHS.value * len(batches)
    )
    # XLA, Keras' own choice, takes longer to compile here than it saves.
    trainer.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"], jit_compile=False)
    trainer.fit(batches, shuffle=False, epochs=_EPOCHS.value, verbose=0)
    results = trainer.evaluate(data.x_test, data.y_test, 512, verbose=0, return_dict=True)
    return Result(model, results["accuracy"])


def train_all(data: datasets.Dataset, rows: Sequence[Row]) -> dict[Row, list[Result]]:
    """Trains every row with every seed, with a line for each run."""
    results: dict[Row, list[Result]] = {row: [] for row in rows}
    num_runs = len(rows) * _SEEDS.value
    for seed in range(_SEEDS.value):
        teacher = None
        for row in rows:
            run = sum(map(len, results.values())) + 1
            print(f"{run:>3}/{num_runs}  seed {seed}  {row.name:<28}", end="", flush=True)
            start = time.monotonic()
            result = train(row, data, teacher, seed)
            teacher = teacher or result.model
            results[row].append(result)
            seconds = time.monotonic() - start
            print(f"{result.accuracy:>8.2%} of the test images {seconds:>7.1f} s", flush=True)
    return results


def table(results: dict[Row, list[Result]], num_test_images: int) -> str:
    """Returns the table and, in words, whether the last row is as good as the first."""
    teacher, *_, both = means = {
        row: statistics.fmean(r.accuracy for r in runs) for row, runs in results.items()
    }
    reports = {row: wrpn_tf.summary(r[0].model, print_fn=None) for row, r in results.items()}
    num_seeds = len(results[teacher])
    lines = [
        f"{'':<28}{'accuracy, %':>14}{'spread':>9}{'bytes':>11}{'of float':>10}"
        f"{'MACs':>13}{'cost':>8}"
    ]
    for row, runs in results.items():
        size, float_size = reports[row].num_bytes, reports[teacher].num_bytes
        spread = f"{100 * statistics.stdev(r.accuracy for r in runs):.2f}" if num_seeds > 1 else "-"
        lines.append(
            f"{row.name:<28}{100 * means[row]:>14.2f}{spread:>9}{size:>11,}"
            f"{size / float_size:>10.1%}{reports[row].num_macs:>13,}"
            f"{reports[row].cost / reports[teacher].cost:>8.3f}"
        )
    gap = 100 * (means[both] - means[teacher])
    verdict = (
        f"at least as good as float ({gap:+.2f} points)"
        if gap >= 0
        else f"NOT as good as float ({gap:+.2f} points)"
    )
    seeds = f"mean of {num_seeds} seeds" if num_seeds > 1 else "1 seed only"
    return "\n".join(
        [
            *lines,
            "",
            f"accuracy: on the {num_test_images:,} test images, {seeds}; one image is "
            f"{100 / num_test_images:.2f} %. spread: standard deviation.",
            "bytes: parameters at their bits. cost: multiply-accumulates (MACs) x the bits of",
            "activations and weights added up, relative to float.",
            "",
            f"{both.name}: {verdict}.",
        ]
    )


def main(argv: Sequence[str]) -> None:
    """Loads, trains, compares, saves."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    start = time.monotonic()
    with _errors_as_one_line():
        data = datasets.load(_DATASET.value, _DATA_DIR.value).first(_NUM_IMAGES.value)
        data.num_batches(_BATCH_SIZE.value)  # Refuses more images than there are.
        network = build_network(data.input_shape, data.num_classes)
        wrpn_tf.plan_widths(network, width_multiplier=_WIDTH_MULTIPLIER.value)
    rows = make_rows()
    print(f"{data.name}: {data.split}.")
    print(
        f"Each run: {_EPOCHS.value} epochs; batches of {_BATCH_SIZE.value}; Adam, "
        f"{_LEARNING_RATE.value:g} to 0 along a cosine; images shifted by up to {data.max_shift}"
        f"{' and mirrored' if data.flip else ''}.\n"
    )
    results = train_all(data, rows)
    print(f"\n{table(results, len(data.x_test))}")
    if _OUT_DIR.value:
        best = max(rows[1:], key=lambda row: statistics.fmean(r.accuracy for r in results[row]))
        path = pathlib.Path(_OUT_DIR.value) / "low_bit.keras"
        saved_models.save(results[best][0].model, path)
        print(f"Saved {best.name} (seed 0): {path}")
    print(f"Took {time.monotonic() - start:.0f} s after TensorFlow's start. To repeat it:")
    print(shlex.join(["python", *sys.argv]))


@contextlib.contextmanager
def _errors_as_one_line() -> Any:
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    app.run(main)
