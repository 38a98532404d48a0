"""Widens a trained network: the plan first, then a wider network that computes the same.

    python examples/widen.py
    python examples/widen.py --width_multiplier=1.3 --layer_fraction=0.3
    python examples/widen.py --model_path=mine.keras --overrides='stage3_.*=4'

By default a ResNet-8, trained for a moment on scikit-learn's digits, gets twice the filters.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import datasets
import keras
import numpy as np
import saved_models
from absl import app, flags

import wrpn_tf

_MODEL_PATH = flags.DEFINE_string(
    "model_path", None, "A saved Keras 3 model; by default a ResNet-8, trained here on digits."
)
_WIDTH_MULTIPLIER = flags.DEFINE_float("width_multiplier", 2.0, "New filters / old filters.")
_LAYER_FRACTION = flags.DEFINE_float(
    "layer_fraction", 1.0, "Part of the layers to widen, from the input on, in (0, 1]."
)
_OVERRIDES = flags.DEFINE_list(
    "overrides", [], "Multipliers of single layers: REGULAR_EXPRESSION=MULTIPLIER, ..."
)
_NOISE = flags.DEFINE_float(
    "noise", 0.0, "What parts the copied filters, relative to their own spread; 0.01 is enough."
)
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Epochs of the default network.", lower_bound=1)
_SAVE_TO = flags.DEFINE_string("save_to", None, "File (.keras) for the wider network.")
flags.register_validator(
    "save_to", lambda path: not path or path.endswith(".keras"), "must end in .keras"
)


def trained_network() -> keras.Model:
    """Returns a ResNet-8 after a short training on the digits."""
    data = datasets.load("digits")
    model = wrpn_tf.applications.ResNet8(input_shape=data.input_shape)
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    model.fit(data.x_train, data.y_train, epochs=_EPOCHS.value, verbose=0)
    accuracy = model.evaluate(data.x_test, data.y_test, verbose=0, return_dict=True)["accuracy"]
    print(f"Trained ResNet-8 for {_EPOCHS.value} epochs: {accuracy:.2%} of the test images.")
    return model


def parse_override(rule: str) -> tuple[str, float]:
    """Returns the regular expression and the multiplier of "EXPRESSION=MULTIPLIER".

    Raises:
        ValueError: If the text has another form.
    """
    pattern, _, multiplier = rule.rpartition("=")
    try:
        return pattern, float(multiplier)
    except ValueError as error:
        raise ValueError(
            f"`overrides` must be REGULAR_EXPRESSION=MULTIPLIER, ..., got {rule!r}."
        ) from error


def print_plan(model: keras.Model, options: dict[str, Any]) -> None:
    """Prints old and new width of every layer that has one."""
    plan = wrpn_tf.plan_widths(model, **options)
    unchanged = wrpn_tf.plan_widths(model, width_multiplier=1.0)
    print(f"\n{'layer':<40}{'filters':>8}{'new':>8}")
    for path, width in plan.items():
        print(f"{path:<40}{unchanged[path]:>8}{width:>8}")


def largest_difference(model: keras.Model, wider: keras.Model) -> float:
    """Returns how far the outputs are apart on random images, relative to the largest output."""
    shape = [32 if size is None else size for size in model.input_shape[1:]]
    images = np.random.default_rng(0).random((16, *shape), np.float32)
    before, after = model.predict(images, verbose=0), wider.predict(images, verbose=0)
    return float(np.max(np.abs(after - before)) / np.max(np.abs(before)))


def main(argv: Sequence[str]) -> None:
    """Plans, widens, compares."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    keras.utils.set_random_seed(0)
    options = {
        "width_multiplier": _WIDTH_MULTIPLIER.value,
        "layer_fraction": _LAYER_FRACTION.value,
    }
    path = _MODEL_PATH.value
    try:
        options["overrides"] = dict(map(parse_override, _OVERRIDES.value))
        model = saved_models.load(path) if path else trained_network()
        print_plan(model, options)
        wider = wrpn_tf.widen_model(
            model, **options, preserve_function=True, noise=_NOISE.value, seed=0
        )
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    print(f"\nParameters: {model.count_params():,} before, {wider.count_params():,} after.")
    print(
        "Largest difference of the outputs, of the largest output: "
        f"{largest_difference(model, wider):.1e}"
        f"{' (with noise)' if _NOISE.value else ' (rounding; sums have more terms)'}."
    )
    if _SAVE_TO.value:
        saved_models.save(wider, _SAVE_TO.value)
        print(f"Saved: {_SAVE_TO.value}")


if __name__ == "__main__":
    app.run(main)
