"""Uses WRPN inside TensorFlow Model Optimization (tfmot), which works on tf_keras models.

    python examples/tfmot_interoperability.py --use=config    # one layer of a tfmot model
    python examples/tfmot_interoperability.py --use=scheme    # a whole model

`config`: tfmot's own 8-bit scheme quantizes a model, but one layer is annotated with our config and
gets 2-bit weights. `scheme`: our scheme takes the place of tfmot's in `quantize_apply`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import datasets
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras
from absl import app, flags

from wrpn_tf.quantization import WRPNQuantizeConfig, WRPNWeightQuantizer
from wrpn_tf.quantization.quantize_scheme import WRPNQuantizeScheme

_USE = flags.DEFINE_enum("use", "config", ["config", "scheme"], "What of WRPN to use in tfmot.")
_NUM_BITS_WEIGHT = flags.DEFINE_integer(
    "num_bits_weight", 2, "Bits of WRPN's weights.", lower_bound=1, upper_bound=8
)
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Epochs of training.", lower_bound=1)

_ANNOTATED_LAYER = "conv2"


def build_network() -> tf_keras.Model:
    """Returns a float tf_keras network for the digits."""
    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name=_ANNOTATED_LAYER),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, name="logits"),
        ]
    )


def quantize_with_config(model: tf_keras.Model) -> tf_keras.Model:
    """Quantizes with tfmot's scheme, and one layer's weights with WRPN."""
    config = WRPNQuantizeConfig({"kernel": WRPNWeightQuantizer(_NUM_BITS_WEIGHT.value, "mean")})

    def annotate(layer: Any) -> Any:
        config_of_layer = config if layer.name == _ANNOTATED_LAYER else None
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config_of_layer)

    annotated = tf_keras.models.clone_model(model, clone_function=annotate)
    with tfmot.quantization.keras.quantize_scope():
        return tfmot.quantization.keras.quantize_apply(annotated)


def quantize_with_scheme(model: tf_keras.Model) -> tf_keras.Model:
    """Quantizes the whole model with WRPN."""
    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    scheme = WRPNQuantizeScheme(num_bits_weight=_NUM_BITS_WEIGHT.value, num_bits_activation=8)
    return tfmot.quantization.keras.quantize_apply(annotated, scheme)


def print_kernels(model: tf_keras.Model) -> None:
    """Prints, for each quantized layer, how many values its rounded kernel takes."""
    print(f"\n{'layer':<28}{'wrapper':<20}values in the kernel")
    for layer in model.layers:
        for variable, quantizer, weights in getattr(layer, "_weight_vars", []):
            rounded = np.asarray(quantizer(variable, training=False, weights=weights))
            count = np.unique(rounded).size
            print(f"{layer.name:<28}{type(layer).__name__:<20}{count}")


def main(argv: Sequence[str]) -> None:
    """Quantizes, trains, shows what the weights have become."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    tf_keras.utils.set_random_seed(0)
    quantize = {"config": quantize_with_config, "scheme": quantize_with_scheme}[_USE.value]
    try:
        data = datasets.load("digits")
        model = quantize(build_network())
    except (ImportError, TypeError, ValueError) as error:
        sys.exit(f"Error: {error}")
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(data.x_train, data.y_train, epochs=_EPOCHS.value, verbose=2)
    _, accuracy = model.evaluate(data.x_test, data.y_test, verbose=0)
    print(f"\n{accuracy:.2%} of the test images told right ({data.split}).")
    print_kernels(model)


if __name__ == "__main__":
    app.run(main)
