"""Accuracy against energy saved by region precision, on CIFAR-10, beside the controls.

    python examples/experiments/region_curve.py --data_dir=.../cifar-10-batches-py \
        --teacher=.../resnet20.h5 --stages=base,uniform,two_pass,maps,tuned,report

A ResNet-20 with 2-bit weights and 8-bit activations, distilled from its float teacher; then, with
no retraining, maps of several metrics at several mean bits, and what they must beat: smooth random
maps, the image's centre, and uniform lower precision, the best mix of layers that sensitivities on
training images give. `two_pass` computes each image at a uniform low precision first and again at
full precision if the first pass was in doubt. `tuned` distils on for a short while with regions in
each step, and the controls for as long.

Each finished row is appended to a CSV file; rows that are in it are not computed again, trained
nets are kept in --work_dir, so an interrupted series goes on where it was. On two cores: training
the base 40 minutes, sensitivities and predictor 5, each row half a minute, fine-tuning 3 minutes a
net.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import csv_rows
import datasets
import region_networks
import region_report
import region_rows
import region_settings
import tensorflow as tf
import tf_keras
from region_settings import Setting

import wrpn_tf

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py.", required=True)
_TEACHER = flags.DEFINE_string("teacher", None, "The float network, a tf_keras .h5 file.")
_STAGES = flags.DEFINE_list(
    "stages", ["base", "uniform", "two_pass", "maps", "report"], "See above; in this order."
)
_EPOCHS = flags.DEFINE_integer("epochs", 8, "Epochs of the base net.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 200, "Steps of fine-tuning, 128 images each.", lower_bound=1)
_RATE = flags.DEFINE_float("tuning_rate", 3e-5, "Adam's learning rate at first, of fine-tuning.")
_IMAGES = flags.DEFINE_integer("images", 10_000, "Test images.", lower_bound=1)
_LABELLED = flags.DEFINE_integer(
    "labelled", 20_000, "Training images for sensitivities and predictor.", lower_bound=2000
)
_SEED = flags.DEFINE_integer("seed", 0, "Of all training.")
_WORK_DIR = flags.DEFINE_string("work_dir", "region_curve_models", "Trained nets.")
_OUT = flags.DEFINE_string("out", "region_curve.csv", "CSV file of finished rows.")

_CALIBRATION_IMAGES = 500
_BATCH = 500


def main(argv: list[str]) -> None:
    """Computes the rows that are not in the CSV file yet."""
    del argv
    out = pathlib.Path(_OUT.value)
    for stage in _STAGES.value:
        if stage == "report":
            region_report.write(out)
            continue
        todo = [x for x in region_settings.of_stage(stage) if x.key not in _finished(out)]
        for number, setting in enumerate(todo, start=1):
            start = time.monotonic()
            row = Bench.shared().row(setting)
            row |= {"seed": _SEED.value, "epochs": _EPOCHS.value}
            row["seconds"] = round(time.monotonic() - start)
            csv_rows.append(out, region_rows.COLUMNS, row)
            print(f"[{stage} {number}/{len(todo)}] {row}", flush=True)


class Bench:
    """The data, the nets and what they predict, each made or loaded when it is first asked for."""

    def __init__(self):
        self.data = datasets.load("cifar10", _DATA_DIR.value)
        self.mean = self.data.x_train.mean(0)
        self.images = self.data.x_test[: _IMAGES.value] - self.mean
        self.labels = self.data.y_test[: _IMAGES.value]
        self.folder = pathlib.Path(_WORK_DIR.value)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.teacher = region_networks.load_teacher(_TEACHER.value)
        self.outputs = functools.cache(self._outputs)
        self.network = functools.cache(self._network)

    @classmethod
    @functools.cache
    def shared(cls) -> Bench:
        """Returns the one bench, which is made only if there is something to measure."""
        return cls()

    @functools.cached_property
    def settings(self) -> region_settings.Precisions:
        """Makes a setting's `RegionPrecision`."""
        return region_settings.Precisions(
            self.network("base"), self.data.x_train[: _LABELLED.value], self.mean, self.folder
        )

    def row(self, setting: Setting) -> dict[str, Any]:
        """Measures one setting."""
        # What fine-tuning may cost or gain is part of the difference.
        reference, _ = self.outputs(Setting("full"))
        if setting.metric.startswith("two_pass"):
            (low, low_bits), (high, high_bits) = (self.outputs(x) for x in setting.passes)
            again = region_settings.in_doubt(low, setting)
            outputs = np.where(again[:, None], high, low)
            mean_bits = low_bits + high_bits * again
        else:
            outputs, mean_bits = self.outputs(setting)
        saved = 1 - mean_bits / 8
        with_metric = saved.mean() - self.settings.cost_of(setting)
        right, was_right = ((x.argmax(1) == self.labels) for x in (outputs, reference))
        difference = right.astype(float) - was_right
        root = len(right) ** 0.5
        percent = {
            "accuracy": right.mean(),
            "accuracy_error": right.std() / root,
            "difference": difference.mean(),
            "difference_error": difference.std() / root,
            "agreement": (outputs.argmax(1) == reference.argmax(1)).mean(),
            "saved": saved.mean(),
            "saved_with_metric": with_metric,
            "least_saved": np.quantile(saved, 0.05),
            "most_saved": np.quantile(saved, 0.95),
        }
        name = dict(zip(region_rows.COLUMNS, setting.key, strict=False))
        return {
            **name,
            "images": len(right),
            **{column: f"{100 * value:.2f}" for column, value in percent.items()},
        }

    def _network(self, weights: str) -> Any:
        """The quantized net with the weights of this name."""
        if weights == "base":
            return region_networks.trained_base(
                self.teacher, self.data, self.mean, _EPOCHS.value, _SEED.value, self.folder
            )
        path = (
            self.folder / f"{weights}_{_STEPS.value}steps_rate{_RATE.value:g}_seed{_SEED.value}.h5"
        )
        base = self.network("base")
        if not path.exists():
            setting = region_settings.TUNED[weights]
            precision = None if setting is None else self.settings.precision(setting)
            tuned = region_networks.fine_tuned(
                base.get_weights(),
                self.teacher,
                precision,
                self.data,
                self.mean,
                _STEPS.value,
                _RATE.value,
                _SEED.value,
            )
            tuned.save_weights(path)
        model = wrpn_tf.quantize_model(self.teacher)
        model.load_weights(path)
        return model

    def _outputs(self, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
        """What a net with regions gives for the test images, and each one's mean bits."""
        network = self.network(setting.weights)
        if setting.metric == "full":
            return _predict(network, self.images), np.full(len(self.images), 8.0)
        model = wrpn_tf.apply_regions(network, self.settings.precision(setting))
        if setting.has_target:
            calibration = self.data.x_train[:_CALIBRATION_IMAGES] - self.mean
            wrpn_tf.calibrate_regions(model, calibration, verbose=False)
        bits = wrpn_tf.quantization.region_maps(model).output["mean_bits"]
        outputs, mean_bits = _predict(
            tf_keras.Model(model.input, [model.output, bits]), self.images
        )
        return outputs, mean_bits


def _predict(model: Any, images: np.ndarray) -> Any:
    function = tf.function(lambda x: model(x, training=False))
    starts = range(0, len(images), _BATCH)
    results = [function(images[start : start + _BATCH]) for start in starts]
    if not isinstance(results[0], list):
        return np.concatenate(results)
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def _finished(path: pathlib.Path) -> set[tuple[str, ...]]:
    return {tuple(row[c] for c in region_rows.COLUMNS[:4]) for row in csv_rows.read(path)}


if __name__ == "__main__":
    app.run(main)
