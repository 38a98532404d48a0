"""What quantization costs in time: ResNet-20, batch 128, alternating steps, no XLA.

    python tests/benchmarks/training_step_benchmark.py [--rounds=30]

Bounds on quantized / float: training step 1.05 and forward pass 1.02 in Keras 3, 1.20 and 1.10 in
tf_keras through tfmot. Takes two minutes on two quiet cores; run nothing else meanwhile.
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
_BATCH = 128
_BOUNDS = {"keras": (1.05, 1.02), "tf_keras": (1.20, 1.10)}


def main(argv: list[str]) -> None:
    """Prints the ratios of each flavour beside their bounds."""
    del argv
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_BATCH, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 10, _BATCH)
    for name in _FLAVORS.value:
        keras = keras_flavor.get_flavor(name).keras
        model = wrpn_tf.applications.ResNet20(weights=None, keras_flavor=name)
        models = {"float": model, "quantized": wrpn_tf.quantize_model(model)}
        for each in models.values():
            optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
            each.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        train = {k: lambda m=m: m.train_on_batch(images, labels) for k, m in models.items()}
        forward = {k: lambda m=m: m.predict_on_batch(images) for k, m in models.items()}
        for what, functions, bound in zip(
            ("training step", "forward pass"), (train, forward), _BOUNDS[name], strict=True
        ):
            (float_time, _), (_, ratio) = median_ratios(functions, _ROUNDS.value).values()
            print(
                f"{name:9}{what:14} float {1000 * float_time:7.1f} ms, "
                f"quantized / float {ratio:.3f} (bound {bound:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
