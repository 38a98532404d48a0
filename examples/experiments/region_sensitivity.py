"""How much a low-bit net's decision depends on the precision of each layer and tile.

Rounding a tensor a to b bits moves the decision margin, the two greatest outputs' difference in
logits, by g * (coarse(a, b) - a) at each value to first order, with g the margin's gradient. As if
these were independent, their squares add up; over the squared margin they say how likely the
decision is to turn. Ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

import wrpn_tf
from wrpn_tf.keras_flavor import flavor_of
from wrpn_tf.quantization import region_plan
from wrpn_tf.quantization.quantized_layers import output_quantizer

BITS = (4, 2)
TILE = 4
_LEAST_MARGIN = 0.1  # Logits are rounded too: ties are common.
_EVERYTHING_BITS = 8


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Sensitivities of a network's decisions on some images.

    Attributes:
        layers: Names of the layers whose output is rounded, without "quant_".
        shares: Of each layer's readers in the network's multiply-accumulates, [layers].
        by_layer: Squared relative moves of the margin, of each image at most 1, averaged:
            [layers, len(BITS)].
        log_tiles: Logarithms of the squared relative moves by tile at 4 bits, of all layers
            together: float32 [images, rows, columns].
    """

    layers: tuple[str, ...]
    shares: np.ndarray
    by_layer: np.ndarray
    log_tiles: np.ndarray


def measure_sensitivity(model: Any, images: np.ndarray, batch_size: int = 250) -> Sensitivity:
    """Measures sensitivities of a quantized model's decisions.

    Args:
        model: The quantized model, with softmax outputs; images of whole tiles at each layer.
        images: What it reads.
        batch_size: Divides the number of images.
    """
    exact, wrappers = _with_regions(model)
    function = _moves(exact, wrappers, images.shape[1] // TILE)
    batches = []
    for start in range(0, len(images), batch_size):
        batches.append([x.numpy() for x in function(images[start : start + batch_size])])
    margins, tiles, by_layer = (np.concatenate(x) for x in zip(*batches, strict=True))
    squares = np.square(np.maximum(margins, _LEAST_MARGIN))
    plan = region_plan(exact)
    names = [wrapper.layer.name for wrapper in wrappers]
    shares = np.zeros(len(names))
    for read in plan.reads:
        shares[names.index(read.source)] += plan.macs_at(read).sum() / plan.macs
    return Sensitivity(
        tuple(name.removeprefix("quant_") for name in names),
        shares,
        np.minimum(by_layer / squares[:, None, None], 1).mean(0),
        np.log(tiles / squares[:, None, None] + 1e-9).astype(np.float32),
    )


class Oracle:
    """A metric that cannot be had: the sensitivity of each tile, from the net's own gradients.

    It costs some three times what the network does, and says what the best map might reach.

    Args:
        model: The quantized model.
        mean: What is subtracted from an image before it is read.
        within: Whether to compare the tiles of an image only: not to know how doubtful it is.
    """

    def __init__(self, model: Any, mean: np.ndarray, within: bool):
        self._function = _moves(*_with_regions(model), mean.shape[0] // TILE)
        self._mean = mean
        self._within = within

    def __call__(self, images: Any) -> Any:
        """Returns the importance, [batch, rows, columns]."""
        margins, tiles, _ = self._function(images - self._mean)
        if self._within:
            scales = tf.reduce_sum(tiles, (1, 2))
        else:
            scales = tf.square(tf.maximum(margins, _LEAST_MARGIN))
        return tf.math.log(tiles / (scales[:, None, None] + 1e-20) + 1e-9)


def _with_regions(model: Any) -> tuple[Any, list[Any]]:
    """The model with regions, all important, and its layers that round."""
    exact = wrpn_tf.apply_regions(model, wrpn_tf.RegionPrecision("center", (8, 4), kept=1.0))
    return exact, [x for x in exact.layers if type(x).__name__ == "RegionWrapper"]


def _moves(exact: Any, wrappers: list[Any], tiles: int) -> Any:
    """Images -> margin, squared moves at 4 bits by tile, squared moves by layer and bits."""
    network = flavor_of(exact).keras.Model(
        exact.input, [exact.output, *(w.output[1] for w in wrappers)]
    )
    quantizers = [output_quantizer(wrapper.layer) for wrapper in wrappers]

    @tf.function
    def function(images: Any) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            probabilities, *tensors = network(images, training=False)
            greatest, _ = tf.math.top_k(probabilities, 2)
            logits = tf.math.log(tf.maximum(greatest, 1e-20))
            margin = logits[:, 0] - logits[:, 1]
        by_tile, by_layer = 0.0, []
        gradients = tape.gradient(margin, tensors)
        for x, gradient, (quantizer, variables) in zip(tensors, gradients, quantizers, strict=True):
            side = x.shape[1] // tiles
            squares = []
            for bits in BITS:
                moves = tf.square(gradient * (quantizer.coarsen(x, bits, variables) - x))
                pooled = tf.nn.avg_pool2d(moves, side, side, "VALID") * side**2
                squares.append(tf.reduce_sum(pooled, -1))
            by_tile += squares[0]
            by_layer.append(tf.stack([tf.reduce_sum(x, (1, 2)) for x in squares], -1))
        return margin, by_tile, tf.stack(by_layer, 1)

    return function


def uniform_mix(sensitivity: Sensitivity, saved: float) -> Mapping[str, int]:
    """Chooses one precision per layer, the same everywhere: the strongest uniform control.

    From 8 bits everywhere on, the next layer to lose bits is the one whose decision-turning moves
    grow least for what it saves.

    Args:
        sensitivity: From training images.
        saved: The least share of activation bits to save.

    Returns:
        Layer -> bits.
    """
    bits = dict.fromkeys(sensitivity.layers, _EVERYTHING_BITS)
    moves = {x: (0.0, *row) for x, row in zip(bits, sensitivity.by_layer, strict=True)}
    shares = dict(zip(bits, sensitivity.shares, strict=True))
    ladder = (_EVERYTHING_BITS, *BITS)

    def price(layer: str) -> float:
        step = ladder.index(bits[layer])
        gain = shares[layer] * (ladder[step] - ladder[step + 1])
        return (moves[layer][step + 1] - moves[layer][step]) / gain

    while saved_by(bits, shares) < saved:
        candidates = [layer for layer, b in bits.items() if b != ladder[-1]]
        if not candidates:
            raise ValueError(f"`saved` must be at most {saved_by(bits, shares):.3f}, got {saved}.")
        layer = min(candidates, key=price)
        bits[layer] = ladder[ladder.index(bits[layer]) + 1]
    return bits


def saved_by(bits: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """Returns the share of activation bits that bits by layer save."""
    return sum(shares[x] * (1 - b / _EVERYTHING_BITS) for x, b in bits.items())
