"""Metrics of importance for `region_curve.py` alone: a control, and a learned predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from region_sensitivity import TILE

_NUM_MAPS = 256
# What a network reads, image minus mean, is in (-1, 1): metrics get (x + 1) / 2.
VALUE_RANGE = (-1.0, 1.0)


def on_original(metric: Callable[[Any], Any], mean: np.ndarray) -> Callable[[Any], Any]:
    """Returns a metric of the original image for a network that reads image - mean.

    Args:
        metric: Images in [0, 1], multiples of 1 / 255 -> importance.
        mean: The mean image.
    """

    def importance(scaled: Any) -> Any:
        low, high = VALUE_RANGE
        # The rounding takes out what the two shifts lost: 1e-7 of 4e-3.
        pixels = tf.round((scaled * (high - low) + low + mean) * 255)
        return metric(tf.clip_by_value(pixels, 0.0, 255.0) / 255)

    return importance


class SmoothRandom:
    """A control: one of 256 smooth random maps for each image, chosen by a hash of its pixels."""

    def __init__(self, size: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        count = size // TILE
        places = np.arange(count)
        weights = np.exp(-0.5 * np.square((places[:, None] - places[None]) / 1.5))
        maps = weights @ rng.standard_normal((_NUM_MAPS, count, count)) @ weights
        self._maps = (maps / maps.std()).astype(np.float32)

    def __call__(self, images: Any) -> Any:
        """Returns the importance, [batch, rows, columns]."""
        pixels = tf.cast(tf.round(images * 255), tf.int32)
        factors = np.arange(np.prod(images.shape[1:])).reshape(images.shape[1:]) % 251 + 1
        return tf.gather(self._maps, tf.reduce_sum(pixels * factors, (1, 2, 3)) % _NUM_MAPS)


class Doubt:
    """Importance of a whole image: how little a first pass prefers its class to the next.

    With the first pass' bits for the unimportant, `threshold=-margin` computes again, at full
    precision, the images whose margin is at most that, and the others as the first pass did.

    Args:
        first_pass: A network with softmax outputs.
        mean: What is subtracted from an image before it is read.
    """

    def __init__(self, first_pass: Any, mean: np.ndarray | float):
        self._first_pass = first_pass
        self._mean = mean

    def __call__(self, images: Any) -> Any:
        """Returns the importance, [batch, 1, 1]: minus the margin in logits."""
        probabilities = self._first_pass(images - self._mean, training=False)
        greatest, _ = tf.math.top_k(tf.math.log(tf.maximum(probabilities, 1e-20)), 2)
        return (greatest[:, 1] - greatest[:, 0])[:, None, None]


def make_predictor(size: int) -> Any:
    """Returns a small network: images -> importance of each tile, [batch, rows, columns]."""
    layers = tf_keras.layers
    images = x = tf_keras.Input((size, size, 3))
    for filters, stride in ((16, 2), (32, 2), (32, 1)):
        x = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    # What the whole image tells (how hard it is) is the same at each tile.
    whole = layers.Dense(16, activation="relu")(layers.GlobalAveragePooling2D()(x))
    tiles = layers.Conv2D(1, 1)(x)
    x = layers.Add()([tiles, layers.Reshape((1, 1, 1))(layers.Dense(1)(whole))])
    return tf_keras.Model(images, layers.Reshape(tuple(tiles.shape[1:3]))(x), name="predictor")


def train_predictor(
    predictor: Any, images: np.ndarray, log_tiles: np.ndarray, epochs: int, seed: int
) -> float:
    """Trains the predictor on sensitivities; half of the images are mirrored.

    Args:
        predictor: From `make_predictor`.
        images: Training images in [0, 1].
        log_tiles: Their sensitivities, [images, rows, columns].
        epochs: How long.
        seed: Of the order, and of which are mirrored.

    Returns:
        The correlation with the sensitivities of the last 1,000 images, which it does not see.
    """
    rng = np.random.default_rng(seed)
    targets = (log_tiles - log_tiles.mean()) / log_tiles.std()
    count, held_out, batch = len(images) - 1000, slice(-1000, None), 128
    steps = epochs * (count // batch)
    schedule = tf_keras.optimizers.schedules.CosineDecay(3e-3, steps)
    predictor.compile(tf_keras.optimizers.Adam(schedule), "huber")

    def batches() -> Any:
        while True:
            for chosen in rng.permutation(count)[: count // batch * batch].reshape(-1, batch):
                step = rng.choice([-1, 1])
                yield images[chosen][:, :, ::step], targets[chosen][:, :, ::step]

    predictor.fit(batches(), steps_per_epoch=count // batch, epochs=epochs, verbose=2)
    predicted = predictor.predict(images[held_out], batch_size=500, verbose=0)
    return float(np.corrcoef(predicted.ravel(), targets[held_out].ravel())[0, 1])


def num_macs(predictor: Any) -> int:
    """Returns the multiply-accumulates of a predictor for one image."""
    total = 0
    for layer in predictor.layers:
        if isinstance(layer, tf_keras.layers.Conv2D):
            _, height, width, _ = layer.output_shape
            total += height * width * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, tf_keras.layers.Dense):
            total += int(np.prod(layer.kernel.shape))
    return total
