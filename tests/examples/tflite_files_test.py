"""What the examples read out of `.tflite` files."""

from __future__ import annotations

import pathlib
import sys

import keras
import numpy as np
import pytest

import tflite_export
import wrpn_tf

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def predict(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import tflite_files

    yield tflite_files.predict
    del sys.modules["tflite_files"]


def test_answers_are_those_of_the_snapped_network_whatever_the_batch(predict):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(8, 3),
            layers.ReLU(),
            layers.Conv2D(8, 3),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, kernel_initializer=keras.initializers.RandomNormal(stddev=2.0)),
        ]
    )
    images = np.random.default_rng(0).normal(size=(23, 8, 8, 3)).astype(np.float32)
    model = wrpn_tf.quantize_model(network)
    wrpn_tf.calibrate(model, images, verbose=False)
    snapped, _ = tflite_export.snap(model, "int8")
    blob = tflite_export.convert(snapped, "int8", snap_first=False)
    outputs = predict(blob, images, batch_size=10)
    assert outputs.shape == (23, 5)
    np.testing.assert_array_equal(outputs, predict(blob, images, batch_size=23))
    logits = snapped.predict(images, verbose=0)
    np.testing.assert_array_equal(outputs.argmax(axis=1), logits.argmax(axis=1))
    assert len(set(outputs.argmax(axis=1))) > 1
