"""What the networks of this package share: argument checks, the classifier, the weights file."""

from __future__ import annotations

import os
from typing import Any

from wrpn_tf.keras_flavor import KERAS, TF_KERAS, KerasFlavor, get_flavor

_POOLINGS = (None, "avg", "max")


def open_network(
    *,
    keras_flavor: str,
    weights: str | os.PathLike[str] | None,
    input_shape: tuple[int | None, int | None, int],
    min_size: int,
    classes: int,
    pooling: str | None,
) -> tuple[KerasFlavor, Any]:
    """Checks the arguments all networks share; returns the flavor and the input tensor.

    Raises:
        TypeError: If `classes` or a side of `input_shape` is no integer.
        ValueError: If an argument is out of its range, or `weights` names no file.
    """
    if keras_flavor not in (KERAS.name, TF_KERAS.name):
        raise ValueError(f'`keras_flavor` must be "keras" or "tf_keras", got {keras_flavor!r}.')
    flavor = get_flavor(keras_flavor)
    _check_weights(weights)
    _check_input_shape(input_shape, min_size)
    if isinstance(classes, bool) or not isinstance(classes, int):
        raise TypeError(f"`classes` must be an integer, got {classes!r}.")
    if classes < 1:
        raise ValueError(f"`classes` must be >= 1, got {classes}.")
    if pooling not in _POOLINGS:
        raise ValueError(f'`pooling` must be None, "avg" or "max", got {pooling!r}.')
    return flavor, flavor.keras.Input(shape=tuple(input_shape), name="image")


def close_network(
    flavor: KerasFlavor,
    image: Any,
    features: Any,
    *,
    name: str,
    weights: str | os.PathLike[str] | None,
) -> Any:
    """Returns the model from `image` to `features`, with the weights of the file, if any.

    Raises:
        ValueError: If the file holds no weights, or those of another network.
    """
    model = flavor.keras.Model(image, features, name=name)
    if weights is not None:
        try:
            model.load_weights(os.fspath(weights))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`weights` must be a file written by `save_weights` of the same network, {name!r},"
                f" got {os.fspath(weights)!r}: {error}"
            ) from error
    return model


def predictions(flavor: KerasFlavor, x: Any, classes: int, activation: Any) -> Any:
    """Returns the output of the classifier, a Dense layer named as in `keras.applications`."""
    dense = flavor.keras.layers.Dense(classes, activation=activation, name="predictions")
    return dense(x)


def pooled(flavor: KerasFlavor, x: Any, pooling: str | None) -> Any:
    """Returns features without the classifier: as they are, or pooled over space."""
    layers = flavor.keras.layers
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(name="max_pool")(x)
    return x


def _check_weights(weights: str | os.PathLike[str] | None) -> None:
    if weights is None:
        return
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(f"`weights` must be None or a path, got {weights!r}.")
    if not os.path.isfile(weights):
        raise ValueError(
            "`weights` must be None (random initialisation) or the path of a file written by "
            f"`model.save_weights`, got {os.fspath(weights)!r}, which is no file. "
            "No trained weights come with the package."
        )


def _check_input_shape(shape: Any, min_size: int) -> None:
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise ValueError(f"`input_shape` must be (height, width, channels), got {shape!r}.")
    for size, what in zip(shape, ("height", "width", "channels"), strict=True):
        if size is None and what != "channels":
            continue
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"`input_shape` must hold integers, got {what} {size!r} in {shape!r}.")
        least = 1 if what == "channels" else min_size
        if size < least:
            raise ValueError(f"`input_shape` must have {what} >= {least}, got {tuple(shape)}.")
