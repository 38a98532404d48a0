"""Keras 3 or tf_keras: which of the two an object is of, and what differs in loading and cloning.

With `model_graph` this is the one seam between them. Everything else in the package is written
once, against `KerasFlavor` and `ModelGraph`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import types
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class KerasFlavor:
    """One of the two Keras implementations that TensorFlow models are written with.

    Attributes:
        name: `"keras"` (Keras 3) or `"tf_keras"` (Keras 2, which tfmot needs).
    """

    name: str

    @property
    def keras(self) -> types.ModuleType:
        """The module, imported on first use."""
        return importlib.import_module(self.name)

    @property
    def layers(self) -> types.ModuleType:
        """The flavour's `layers` module."""
        return self.keras.layers


KERAS = KerasFlavor("keras")
TF_KERAS = KerasFlavor("tf_keras")

_LOOKUP_LAYERS = ("IntegerLookup", "StringLookup", "TextVectorization")


def get_flavor(name: str) -> KerasFlavor:
    """Returns the flavour called `name`.

    Raises:
        ValueError: If `name` is neither `"keras"` nor `"tf_keras"`.
    """
    for flavor in (KERAS, TF_KERAS):
        if name == flavor.name:
            return flavor
    raise ValueError(f'`name` must be "keras" or "tf_keras", got {name!r}.')


def flavor_of(obj: Any, argument: str = "model") -> KerasFlavor:
    """Returns the flavour of a model or layer, read off its class.

    Args:
        obj: A Keras 3 or tf_keras model or layer (or Keras 3 operation).
        argument: What the caller's users know `obj` as; used in the error.

    Raises:
        TypeError: If the object belongs to neither Keras.
    """
    for base in type(obj).__mro__:
        root = base.__module__.partition(".")[0]
        if root in ("keras", "tf_keras"):
            return get_flavor(root)
    raise TypeError(
        f"`{argument}` must be a Keras 3 or tf_keras model, got {type(obj).__name__}: {obj!r:.80}."
    )


def keras_class(layer: Any) -> str:
    """Returns the name of the Keras class that a layer or operation is of, or derives from."""
    for base in type(layer).__mro__:
        if base.__module__.partition(".")[0] in ("keras", "tf_keras"):
            return base.__name__
    return type(layer).__name__


def clone_layer(layer: Any, **config_changes: Any) -> Any:
    """Returns a new layer with `layer`'s configuration, changed; no weights are copied.

    Raises:
        TypeError: If a change names no entry of the layer's configuration.
    """
    config = layer.get_config()
    unknown = sorted(set(config_changes) - set(config))
    if unknown:
        raise TypeError(f"{type(layer).__name__} has no configuration entry {', '.join(unknown)}.")
    functions = _own_functions(layer, config)
    config.update(_vocabulary(layer, config))
    flavor = flavor_of(layer, "layer")
    if not isinstance(layer, flavor.layers.Lambda):
        return type(layer).from_config({**config, **functions, **config_changes})
    if flavor is TF_KERAS:  # Its Lambdas carry their function's code in the configuration.
        return type(layer).from_config({**config, **config_changes})
    # Those of Keras 3 refuse to be made from it.
    return type(layer)(**{**config, **functions, **config_changes})


def _vocabulary(layer: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a layer that looks words up learned by `adapt`, which its configuration leaves out."""
    if keras_class(layer) not in _LOOKUP_LAYERS or config["vocabulary"]:
        return {}
    words = layer.get_vocabulary(include_special_tokens=False)
    return {"vocabulary": words} if len(words) else {}


def own_objects(layer: Any) -> dict[str, Any]:
    """Returns the user's own class and functions of a layer, by the names that its files have."""
    objects = [type(layer), *_own_functions(layer, layer.get_config()).values()]
    return {each.__name__: each for each in objects if is_own(each)}


def _own_functions(layer: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The user's own functions among a layer's settings: Keras cannot find them again by name."""
    functions = {}
    for entry in config:
        for value in (getattr(layer, entry, None), getattr(layer, f"_{entry}", None)):
            if isinstance(value, types.FunctionType) and is_own(value):
                functions[entry] = value
    return functions


def is_own(value: Any) -> bool:
    """Returns whether a class or function is the user's: none of a Keras'."""
    home = (value.__module__ or "").partition(".")[0]
    return home not in ("keras", "tf_keras", "tensorflow")


def import_tfmot() -> types.ModuleType:
    """Imports tensorflow_model_optimization and leaves the user's `tf.keras` as it is.

    tfmot sets `TF_USE_LEGACY_KERAS` while it is imported and touches `tf.keras`, which would make
    `tf.keras` tf_keras for the whole process; resolving `tf.keras` first prevents that.
    """
    import tensorflow as tf

    _ = tf.keras.layers
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        return importlib.import_module("tensorflow_model_optimization")
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
