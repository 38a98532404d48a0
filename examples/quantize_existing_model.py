"""Quantizes a trained model without training it: quantize, calibrate, summary, save.

    python examples/quantize_existing_model.py
    python examples/quantize_existing_model.py --model_path=mine.keras --images=some_images.npy
    python examples/quantize_existing_model.py --application=MobileNetV2

By default a ResNet-8 is first trained on scikit-learn's digits, so that there is something to
quantize. --application downloads ImageNet weights, unless --weights=none. --images is a NumPy file
of inputs as the model takes them, (examples, height, width, channels); a few hundred are enough.
Two-bit weights need training: see quickstart.py and distill.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import datasets
import keras
import numpy as np
import saved_models
from absl import app, flags

import wrpn_tf

_MODEL_PATH = flags.DEFINE_string("model_path", None, "A saved Keras 3 model (.keras, .h5).")
_APPLICATION = flags.DEFINE_string("application", None, "A network of keras.applications.")
_WEIGHTS = flags.DEFINE_enum(
    "weights", "imagenet", ["imagenet", "none"], "For --application; imagenet is downloaded."
)
_IMAGES = flags.DEFINE_string("images", None, "A .npy file of inputs, to calibrate with.")
_NUM_BITS_WEIGHT = flags.DEFINE_integer(
    "num_bits_weight", 8, "Bits of weights.", lower_bound=1, upper_bound=8
)
_NUM_BITS_ACTIVATION = flags.DEFINE_integer(
    "num_bits_activation", 8, "Bits of activations.", lower_bound=1, upper_bound=8
)
_WEIGHT_SCALE = flags.DEFINE_string(
    "weight_scale", "max_per_channel", "Where the weights' largest level lies: a rule's name."
)
_METHOD = flags.DEFINE_enum(
    "method", "mse", ["mse", "percentile", "max"], "How calibration chooses the ranges."
)
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs of the default network.", lower_bound=1)
_SAVE_TO = flags.DEFINE_string("save_to", None, "File (.keras) for the quantized model.")
flags.register_validator(
    "save_to", lambda path: not path or path.endswith(".keras"), "must end in .keras"
)
flags.mark_flags_as_mutual_exclusive(["model_path", "application"])


@flags.multi_flags_validator(
    ["images", "model_path", "application"],
    "--images needs --model_path or --application: the default network has its own",
)
def _has_use_for_images(values: Mapping[str, str | None]) -> bool:
    return not values["images"] or bool(values["model_path"] or values["application"])


def trained_network(data: datasets.Dataset) -> keras.Model:
    """Returns a ResNet-8 after a short training on the digits."""
    model = wrpn_tf.applications.ResNet8(input_shape=data.input_shape)
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    print(f"Training a ResNet-8 on the digits, {_EPOCHS.value} epochs, to have a trained model.")
    model.fit(data.x_train, data.y_train, epochs=_EPOCHS.value, verbose=0)
    return model


def load_model() -> keras.Model:
    """Returns the float model that the flags name."""
    if _MODEL_PATH.value:
        return saved_models.load(_MODEL_PATH.value)
    network = getattr(keras.applications, _APPLICATION.value, None)
    if not callable(network):
        raise ValueError(
            f"`application` must be a network of keras.applications, got {_APPLICATION.value!r}."
        )
    return network(weights=None if _WEIGHTS.value == "none" else _WEIGHTS.value)


def calibration_images(model: keras.Model) -> np.ndarray:
    """Returns the images of --images, or random ones."""
    if _IMAGES.value:
        return np.load(_IMAGES.value)
    print("No --images: calibrating with random ones, which shows the steps and gives poor ranges.")
    shape = [224 if size is None else size for size in model.input_shape[1:]]
    return np.random.default_rng(0).random((8, *shape), np.float32)


def agreement(model: keras.Model, quantized: keras.Model, images: np.ndarray) -> float:
    """Returns the share of images for which both models give the same class, or yes or no."""
    classes = [classify(network, images) for network in (model, quantized)]
    return float((classes[0] == classes[1]).mean())


def classify(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns where the largest output is; of a single output, whether it says yes."""
    outputs = model.predict(images, verbose=0)
    if outputs.shape[-1] > 1:
        return outputs.argmax(axis=-1)
    activation = getattr(model.layers[-1], "activation", None)
    return outputs > (0.5 if activation is keras.activations.sigmoid else 0)


def main(argv: Sequence[str]) -> None:
    """Quantizes, calibrates, compares, saves."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    keras.utils.set_random_seed(0)
    data = None
    try:
        if _MODEL_PATH.value or _APPLICATION.value:
            model = load_model()
            images = calibration_images(model)
        else:
            data = datasets.load("digits")
            model, images = trained_network(data), data.x_train[:256]
        quantized = wrpn_tf.quantize_model(
            model,
            num_bits_weight=_NUM_BITS_WEIGHT.value,
            num_bits_activation=_NUM_BITS_ACTIVATION.value,
            weight_scale=_WEIGHT_SCALE.value,
        )
        wrpn_tf.calibrate(quantized, images, method=_METHOD.value, verbose=False)
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f"Error: {error}")
    wrpn_tf.summary(quantized)
    shown = images if data is None else data.x_test
    print(f"\nSame answer as in float: {agreement(model, quantized, shown):.2%} of the images.")
    if data is not None:
        for name, network in (("float", model), ("quantized", quantized)):
            right = classify(network, data.x_test) == data.y_test
            print(f"Test images told right, {name}: {right.mean():.2%}")
    if _SAVE_TO.value:
        saved_models.save(quantized, _SAVE_TO.value)
        print(f"Saved: {_SAVE_TO.value}. `import wrpn_tf` lets Keras load it.")


if __name__ == "__main__":
    app.run(main)
