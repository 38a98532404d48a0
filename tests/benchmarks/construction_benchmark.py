"""How long it takes to make a model: `widen_and_quantize(ResNet50)` against `tfmot.quantize_model`.

    python tests/benchmarks/construction_benchmark.py [--rounds=3]

Bound: widening (2x, all layers) and quantizing takes no longer than tfmot's 8-bit transform of the
same tf_keras net, which does not widen. Takes three minutes; run nothing else meanwhile.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags
from alternating import median_ratios

import wrpn_tf
from wrpn_tf import keras_flavor

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed rounds.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Prints the time of each, relative to tfmot's."""
    del argv
    tfmot = keras_flavor.import_tfmot().quantization.keras
    nets = {
        flavor.name: flavor.keras.applications.ResNet50(weights=None)
        for flavor in (keras_flavor.TF_KERAS, keras_flavor.KERAS)
    }
    functions = {
        "tfmot.quantize_model, tf_keras": lambda: tfmot.quantize_model(nets["tf_keras"]),
        "quantize_model, tf_keras": lambda: wrpn_tf.quantize_model(nets["tf_keras"]),
        "widen_and_quantize, tf_keras": lambda: wrpn_tf.widen_and_quantize(nets["tf_keras"]),
        "widen_and_quantize, keras": lambda: wrpn_tf.widen_and_quantize(nets["keras"]),
    }
    for name, (seconds, ratio) in median_ratios(functions, _ROUNDS.value, warm_up=1).items():
        print(f"{name:32}{seconds:7.2f} s, relative to tfmot's {ratio:.2f}", flush=True)


if __name__ == "__main__":
    app.run(main)
