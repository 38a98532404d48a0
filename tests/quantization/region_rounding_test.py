"""Rounding by rank: every level at every rank, against the integer rule, and the gradient."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from wrpn_tf.quantization import ObservedQuantizer, WRPNActivationQuantizer
from wrpn_tf.quantization.region_rounding import round_by_rank

UNSIGNED = WRPNActivationQuantizer(8), {"range": tf.constant(1.952)}
SIGNED = WRPNActivationQuantizer(8, signed=True), {"range": tf.constant(0.371)}
FOUR_BITS = WRPNActivationQuantizer(4), {"range": tf.constant(6.0)}
OBSERVED = (
    ObservedQuantizer(8),
    {"smallest": tf.constant(-0.45), "largest": tf.constant(0.62)},
)


@pytest.fixture(params=["rows", "portable"])
def path(request, monkeypatch) -> str:
    """TensorFlow's selection of rows, and what another backend would run."""
    if request.param == "portable":
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    return request.param


def levels_of(quantizer, variables):
    grid = quantizer.grid(variables) if callable(quantizer.grid) else quantizer.grid
    return grid, np.arange(grid.low, grid.high + 1)


@pytest.mark.parametrize(
    ("rounding", "bits"),
    [
        (UNSIGNED, (4, 8)),
        (UNSIGNED, (0, 1, 2, 4, 8)),
        (UNSIGNED, (2, 2, 8)),
        (UNSIGNED, (2, 4)),
        (FOUR_BITS, (0, 2, 4)),
        (FOUR_BITS, (2, 8)),
        (SIGNED, (0, 2, 4, 8)),
        (OBSERVED, (0, 2, 4, 8)),
    ],
)
def test_each_rank_has_the_levels_of_its_bits(path, rounding, bits):
    quantizer, variables = rounding
    grid, levels = levels_of(quantizer, variables)
    values = (levels * quantizer.scale(variables)).astype(np.float32)
    values = np.tile(values, (1, len(bits), 1, 1))  # [1, ranks, 1, levels]
    ranks = np.arange(len(bits), dtype=np.float32).reshape(1, -1, 1, 1)
    found = round_by_rank(tf.constant(values), tf.constant(ranks), bits, *rounding)
    integers = quantizer.to_int(found.numpy(), variables)
    for rank, own in enumerate(bits):
        expected = levels if own >= quantizer.num_bits else grid.coarsen(levels, own)
        np.testing.assert_array_equal(integers[0, rank, 0], expected)
    # The way to integers and back loses nothing but the last bit of a float.
    np.testing.assert_allclose(found, integers * quantizer.scale(variables), rtol=2e-7)


def test_important_values_are_the_same_to_the_bit():
    quantizer, variables = UNSIGNED
    values = quantizer(tf.random.uniform((2, 3, 3, 5), -1, 3, seed=1), False, variables)
    ranks = tf.ones((2, 3, 3, 1))
    found = round_by_rank(values, ranks, (2, 8), quantizer, variables)
    np.testing.assert_array_equal(found, values)


def test_gradients_pass_but_at_no_bits():
    quantizer, variables = UNSIGNED
    values = tf.random.uniform((1, 2, 2, 3), 0.1, 1.9, seed=1)
    ranks = tf.constant([[0.0, 1.0], [2.0, 0.0]])[None, ..., None]
    upstream = tf.random.normal(values.shape, seed=2)
    with tf.GradientTape() as tape:
        tape.watch(values)
        found = round_by_rank(values, ranks, (0, 4, 8), quantizer, variables)
        total = tf.reduce_sum(found * upstream)
    gradient = tape.gradient(total, values)
    np.testing.assert_array_equal(gradient, upstream * np.float32(ranks > 0))


def test_a_learned_range_learns_as_without_regions():
    quantizer = WRPNActivationQuantizer(8, learned=True)
    limit = tf.Variable(1.0)
    values = tf.constant([[[[0.3, 0.8, 1.7]]]])

    def gradient(round_them):
        with tf.GradientTape() as tape:
            fine = quantizer(values, True, {"range": limit})
            total = tf.reduce_sum(round_them(fine) * tf.constant([2.0, 3.0, 5.0]))
        return tape.gradient(total, limit).numpy()

    ranks = tf.zeros((1, 1, 1, 1))
    coarse = gradient(lambda x: round_by_rank(x, ranks, (4, 8), quantizer, {"range": limit}))
    assert coarse == gradient(lambda x: x) == 5  # of the value beyond the range


def test_values_of_a_range_never_observed_pass():
    quantizer = ObservedQuantizer(8)
    variables = {"smallest": tf.constant(0.0), "largest": tf.constant(0.0)}
    values = tf.constant([[[[-0.3, 0.123]]]])
    found = round_by_rank(values, tf.zeros((1, 1, 1, 1)), (4, 8), quantizer, variables)
    np.testing.assert_array_equal(found, values)
