"""What distillation costs in time: ResNet-20, batch 128, alternating steps, no XLA.

    python tests/benchmarks/distiller_benchmark.py [--rounds=30]

The bound on distilled step / (the quantized student's own step + the teacher's forward pass) is
1.05, in either Keras. Takes three minutes on two quiet cores; run nothing else meanwhile.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags
from alternating import median_ratios

import wrpn_tf
from wrpn_tf import keras_flavor

_ROUNDS = flags.DEFINE_integer("rounds", 30, "Timed rounds.", lower_bound=1)
_FLAVORS = flags.DEFINE_list("flavors", ["keras", "tf_keras"], "Which Keras.")
_BATCH = 128
_BOUND = 1.05


def main(argv: list[str]) -> None:
    """Prints the ratio of each flavour beside the bound."""
    del argv
    for name in _FLAVORS.value:
        (parts_time, _), (distilled_time, ratio) = compare(name)
        print(
            f"{name:9}student's step and teacher's forward pass {1000 * parts_time:7.1f} ms, "
            f"distilled step {1000 * distilled_time:7.1f} ms, ratio {ratio:.3f} (bound {_BOUND})",
            flush=True,
        )


def compare(name: str) -> list[tuple[float, float]]:
    """Returns the time and ratio of the two parts run apart, and of the distilled step."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_BATCH, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 10, _BATCH)
    keras = keras_flavor.get_flavor(name).keras
    model, teacher = (
        wrpn_tf.applications.ResNet20(weights=None, keras_flavor=name) for _ in range(2)
    )
    alone = wrpn_tf.quantize_model(model)
    distiller = wrpn_tf.Distiller(wrpn_tf.quantize_model(model), teacher)
    for each, loss in ((alone, "sparse_categorical_crossentropy"), (distiller, None)):
        each.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, jit_compile=False)
    forward = tf.function(lambda x: teacher(x, training=False))

    def apart() -> None:
        alone.train_on_batch(images, labels)
        forward(images).numpy()  # Waits for it.

    functions = {"apart": apart, "distilled": lambda: distiller.train_on_batch(images, labels)}
    return list(median_ratios(functions, _ROUNDS.value).values())


if __name__ == "__main__":
    app.run(main)
