"""The Keras 3 Distiller under the JAX backend, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

SCRIPT = """
import keras
import numpy as np
import wrpn_tf
from wrpn_tf.training import Distiller, ReestimateBatchNorm

assert keras.backend.backend() == "jax"
x = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
y = np.argmax(x[:, :3], axis=1)

def classifier(units, activation=None):
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(units, activation="relu", kernel_regularizer="l2")(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    return keras.Model(inputs, keras.layers.Dense(3, activation=activation)(hidden))

for scheme in "ABC":
    distiller = Distiller(classifier(8), classifier(16, "softmax"), scheme=scheme)
    distiller.compile(keras.optimizers.Adam(0.01), metrics=["accuracy"])
    frozen = distiller.teacher.get_weights()
    callbacks = [ReestimateBatchNorm(distiller, x)]
    history = distiller.fit(
        x, y, batch_size=8, epochs=5, validation_data=(x, y), verbose=0, callbacks=callbacks
    ).history
    assert history["student_loss"][-1] < history["student_loss"][0], history
    changed = any((a != b).any() for a, b in zip(frozen, distiller.teacher.get_weights()))
    assert changed == (scheme == "A")
    report = distiller.evaluate(x, y, verbose=0, return_dict=True)
    parts = report["teacher_loss"] + 0.5 * report["student_loss"]
    parts += 0.5 * report["distillation_loss"]
    assert report["loss"] > parts  # Regularisation.
    assert abs(report["loss"] - history["val_loss"][-1]) < 1e-5
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed.")
def test_trains_under_jax():
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr[-3000:]
