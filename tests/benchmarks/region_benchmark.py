"""What region precision costs in time: ResNet-20, batch 128, alternating steps, no XLA.

    python tests/benchmarks/region_benchmark.py [--rounds=30]

Bound on the quantized model with regions / without: 1.10, forward pass and training step. Takes
two minutes on two quiet cores; run nothing else meanwhile.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags
from alternating import median_ratios

import wrpn_tf
from wrpn_tf import keras_flavor

_ROUNDS = flags.DEFINE_integer("rounds", 30, "Timed rounds.", lower_bound=1)
_FLAVORS = flags.DEFINE_list("flavors", ["keras", "tf_keras"], "Which Keras.")
_METRIC = flags.DEFINE_string("metric", "entropy", "Metric of importance.")
_BATCH = 128
_BOUND = 1.10
_SETTINGS = {"8/4": (8, 4), "8/4/0": (8, 4, 0)}


def main(argv: list[str]) -> None:
    """Prints the ratios of each flavour beside their bound."""
    del argv
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_BATCH, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 10, _BATCH)
    for name in _FLAVORS.value:
        keras = keras_flavor.get_flavor(name).keras
        float_model = wrpn_tf.applications.ResNet20(weights=None, keras_flavor=name)
        models = {"without": wrpn_tf.quantize_model(float_model)}
        for setting, bits in _SETTINGS.items():
            precision = wrpn_tf.RegionPrecision(_METRIC.value, bits)
            models[setting] = wrpn_tf.quantize_model(float_model, region_precision=precision)
        for each in models.values():
            optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
            each.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        steps = {k: lambda m=m: m.train_on_batch(images, labels) for k, m in models.items()}
        passes = {k: lambda m=m: m.predict_on_batch(images) for k, m in models.items()}
        for what, functions in (("training step", steps), ("forward pass", passes)):
            results = median_ratios(functions, _ROUNDS.value)
            time, _ = results.pop("without")
            ratios = ", ".join(f"{key} {ratio:.3f}" for key, (_, ratio) in results.items())
            print(
                f"{name:9}{what:14} without {1000 * time:7.1f} ms, with / without: {ratios} "
                f"(bound {_BOUND:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
