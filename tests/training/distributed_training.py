"""Trains a Distiller under a `tf.distribute` strategy, quantizes and calibrates another model, and
writes what came out; run by the tests.

`python distributed_training.py FLAVOR STRATEGY OUTPUT`; STRATEGY is mirrored or
multi_worker.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tensorflow as tf

from wrpn_tf import calibrate, keras_flavor, quantize_model
from wrpn_tf.training import Distiller

BATCH = 8
STEPS = 3


def make_strategy(name: str) -> tf.distribute.Strategy:
    if name == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return tf.distribute.MultiWorkerMirroredStrategy()


def classifier(keras, seed: int, units: int):
    """A net without batch normalisation, whose statistics would be each replica's own."""
    generator = np.random.default_rng(seed)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(
        units, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01)
    )
    model = keras.Model(inputs, keras.layers.Dense(3)(hidden(inputs)))
    model.set_weights([generator.normal(size=w.shape).astype(np.float32) for w in model.weights])
    return model


def normalised(keras):
    """A net with batch normalisation, whose variables a strategy keeps in a form of their own."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.BatchNormalization()])
    model.add(layers.Dense(3))
    generator = np.random.default_rng(3)
    model.set_weights([generator.uniform(0.5, 2, w.shape) for w in model.get_weights()])
    return model


def train(flavor_name: str, strategy: tf.distribute.Strategy) -> dict:
    """Trains for two epochs, and quantizes; returns all weights and what was reported."""
    keras = keras_flavor.get_flavor(flavor_name).keras
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH * STEPS, 4)).astype(np.float32)
    y = np.argmax(x[:, :3], axis=1)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = data.with_options(options)
    with strategy.scope():
        student, teacher = classifier(keras, 1, 5), classifier(keras, 2, 7)
        optimizer = keras.optimizers.SGD(0.1)
    distiller = Distiller(student, teacher)  # In the student's strategy, wherever it is made.
    distiller.compile(optimizer, metrics=["accuracy"])
    history = distiller.fit(data, epochs=2, verbose=0).history
    evaluation = distiller.evaluate(data, verbose=0, return_dict=True)
    with strategy.scope():
        quantized = quantize_model(normalised(keras))
        calibrate(quantized, x, verbose=False)
    return {
        "replicas": strategy.num_replicas_in_sync,
        "history": {name: [float(v) for v in values] for name, values in history.items()},
        "evaluation": {name: float(value) for name, value in evaluation.items()},
        "weights": [w.tolist() for w in distiller.student.get_weights()],
        "quantized": [w.tolist() for w in quantized.get_weights()],
    }


def main(flavor_name: str, strategy_name: str, output: str) -> None:
    result = train(flavor_name, make_strategy(strategy_name))
    with open(output, "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
