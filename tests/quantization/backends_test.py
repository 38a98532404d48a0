"""Quantized models beside one TensorFlow process: other Keras backends, and several replicas."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_NET = """
import random
import numpy as np, keras, sys, wrpn_tf
# Keras itself loads TensorFlow, if it is there, when it serializes a layer.
assert keras.backend.backend() == "tensorflow" or "tensorflow" not in sys.modules
random.seed(1)  # Keras draws its seeds from it; its own function would import TensorFlow.
L = keras.layers
inputs = keras.Input((8, 8, 3))
x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3)(inputs)))
x = L.ReLU()(L.DepthwiseConv2D(3)(x))
model = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
regions = wrpn_tf.RegionPrecision("entropy", (4, 2, 0))
quantized = wrpn_tf.quantize_model(model, num_bits_activation=4, region_precision=regions)
images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
"""
_FORWARD = """
assert np.isfinite(keras.ops.convert_to_numpy(quantized(images))).all()
for layer in quantized.layers:
    for variable, quantizer in wrpn_tf.quantization.weight_quantizers(layer).values():
        levels = quantizer.scale(variable) * quantizer.to_int(variable).astype("float32")
        forward = keras.ops.convert_to_numpy(quantizer(variable.value, False, {}))
        np.testing.assert_array_equal(forward, levels)
assert "tf_keras" not in sys.modules
"""
_TRAIN = """
before = [keras.ops.convert_to_numpy(v) for v in quantized.trainable_variables]
quantized.compile("sgd", "mse")
loss = quantized.fit(images, np.ones((4, 2)), epochs=2, verbose=0).history["loss"]
assert np.isfinite(loss).all()
for variable, value in zip(quantized.trainable_variables, before):
    changed = np.any(keras.ops.convert_to_numpy(variable) != value)
    # A bias before batch norm has no gradient, nor has a range beyond which no value lies.
    assert changed or variable.path.endswith(("conv2d/bias", "output_range")), variable.path
ends = [[float(keras.ops.convert_to_numpy(v)) for v in quantized.variables if v.path.endswith(end)]
        for end in ("smallest", "largest")]
assert len(ends[0]) == 4 and all(low < high for low, high in zip(*ends)), ends
"""
_REPLICAS = """
import sys
import numpy as np
import tensorflow as tf
import wrpn_tf
keras = __import__(sys.argv[1])
keras.utils.set_random_seed(1)
cpus = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
L = keras.layers
with strategy.scope():
    inputs = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3)(inputs)))
    x = L.Dense(2)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(x)))
    regions = wrpn_tf.RegionPrecision("gradient", (8, 4), target_bits=7.5)
    quantized = wrpn_tf.quantize_model(keras.Model(inputs, x), region_precision=regions)
    quantized.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
images = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
loss = quantized.fit(images, np.ones((8, 2)), batch_size=8, verbose=0).history["loss"]
assert strategy.num_replicas_in_sync == 2 and np.isfinite(loss).all()
value = lambda v: (v.value if sys.argv[1] == "keras" else v).numpy()
ends = [[value(v) for v in quantized.variables if end in v.name]
        for end in ("smallest", "largest")]
assert len(ends[0]) == 4 and all(low < high for low, high in zip(*ends)), ends
threshold, = [value(v) for v in quantized.variables if "thresholds" in v.name]
assert 0 < threshold < 1, threshold
"""


def errors_of(code, *arguments, backend="tensorflow"):
    """What a process of its own prints when one of the code's assertions fails; else nothing."""
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def test_the_numpy_backend_imports_no_tensorflow_and_runs_forward():
    pytest.importorskip("jax")  # Keras' NumPy backend imports it
    assert errors_of(_NET + _FORWARD, backend="numpy") == ""


def test_the_jax_backend_trains():
    pytest.importorskip("jax")
    assert errors_of(_NET + _TRAIN, backend="jax") == ""


def test_one_step_on_two_replicas(flavor):
    assert errors_of(_REPLICAS, flavor.name) == ""
