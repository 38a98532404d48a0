"""Measures a low-bit net with regions on CIFAR-10's test images, one setting at a time."""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import csv_rows
import datasets
import numpy as np
import region_rows
import region_settings
import tensorflow as tf
from region_settings import Setting

import wrpn_tf
from wrpn_tf.keras_flavor import flavor_of

_CALIBRATION_IMAGES = 500
_BATCH = 500


def measure(
    settings: Sequence[Setting],
    bench: Callable[[], Bench],
    path: pathlib.Path,
    about_net: Mapping[str, Any],
    title: str,
) -> None:
    """Appends the rows of settings that a CSV file lacks, each as soon as it is measured.

    Args:
        settings: What to measure.
        bench: Called only if there is something to measure.
        path: The CSV file.
        about_net: `seed` and `epochs`, for the rows.
        title: Of the progress lines.
    """
    finished = {region_rows.key(row) for row in csv_rows.read(path)}
    todo = [setting for setting in settings if setting.key not in finished]
    for number, setting in enumerate(todo, start=1):
        start = time.monotonic()
        row = bench().row(setting) | about_net
        row["seconds"] = round(time.monotonic() - start)
        csv_rows.append(path, region_rows.COLUMNS, row)
        print(f"[{title} {number}/{len(todo)}] {row}", flush=True)


class Bench:
    """Nets, and what they predict for the test images, each computed once.

    Args:
        network: Name of its weights -> the quantized net; "base" is one.
        precisions: Makes a setting's `RegionPrecision`.
        data: CIFAR-10.
        mean: What is subtracted from an image before a net reads it.
        num_images: How many of the test images.
    """

    def __init__(
        self,
        network: Callable[[str], Any],
        precisions: region_settings.Precisions,
        data: datasets.Dataset,
        mean: np.ndarray,
        num_images: int,
    ):
        self._precisions = precisions
        self._images = data.x_test[:num_images] - mean
        self._labels = data.y_test[:num_images]
        self._calibration = data.x_train[:_CALIBRATION_IMAGES] - mean
        self._network = functools.cache(network)
        self._outputs = functools.cache(self._compute_outputs)

    def row(self, setting: Setting) -> dict[str, Any]:
        """Measures one setting."""
        # What fine-tuning may cost or gain is part of the difference.
        reference, _ = self._outputs(Setting("full"))
        if setting.metric.startswith("two_pass"):
            (low, low_bits), (high, high_bits) = (self._outputs(x) for x in setting.passes)
            again = region_settings.in_doubt(low, setting)
            outputs = np.where(again[:, None], high, low)
            mean_bits = low_bits + high_bits * again
        else:
            outputs, mean_bits = self._outputs(setting)
        saved = 1 - mean_bits / 8
        with_metric = saved.mean() - self._precisions.cost_of(setting)
        right, was_right = ((x.argmax(1) == self._labels) for x in (outputs, reference))
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

    def _compute_outputs(self, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
        """What a net with regions gives for the test images, and each one's mean bits."""
        network = self._network(setting.weights)
        if setting.metric == "full":
            return _predict(network, self._images), np.full(len(self._images), 8.0)
        model = wrpn_tf.apply_regions(network, self._precisions.precision(setting))
        if setting.has_target:
            wrpn_tf.calibrate_regions(model, self._calibration, verbose=False)
        bits = wrpn_tf.quantization.region_maps(model).output["mean_bits"]
        both = flavor_of(model).keras.Model(model.input, [model.output, bits])
        outputs, mean_bits = _predict(both, self._images)
        return outputs, mean_bits


def _predict(model: Any, images: np.ndarray) -> Any:
    function = tf.function(lambda x: model(x, training=False))
    starts = range(0, len(images), _BATCH)
    results = [function(images[start : start + _BATCH]) for start in starts]
    if not isinstance(results[0], list):
        return np.concatenate(results)
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]
