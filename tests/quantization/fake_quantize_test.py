"""Rounding inside a network: values and gradients, on the fused path and on the portable one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from wrpn_tf import grid
from wrpn_tf.quantization import fake_quantize


@pytest.fixture(params=["fused", "portable"])
def path(request, monkeypatch) -> str:
    """TensorFlow's kernels, and what another backend would run, both on TensorFlow's tensors."""
    if request.param == "portable":
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    return request.param


def value_and_gradients(function, *arguments, weights=1.0):
    """The function's value, and the gradients of sum(value * weights) for each argument."""
    tensors = [tf.constant(a, tf.float32) for a in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
        total = tf.reduce_sum(value * weights)
    return value.numpy(), [gradient.numpy() for gradient in tape.gradient(total, tensors)]


def sample(largest, seed=0):
    """Values inside, outside and at the ends of +-largest, and 0."""
    generator = np.random.default_rng(seed)
    inside = generator.uniform(-1.5, 1.5, 500).astype(np.float32) * np.float32(largest)
    ends = np.array([largest, -largest], np.float32)
    zeros = np.array([0.0, 1e-30, -1e-30], np.float32)
    beside = [np.nextafter(ends, np.float32(2 * x)) for x in (largest, -largest)]
    return np.concatenate([inside, ends, *beside, zeros])


GRIDS = [grid.activation_grid(k) for k in range(1, 9)]
GRIDS += [grid.activation_grid(k, signed=True) for k in range(2, 9)]


@pytest.mark.parametrize("levels", GRIDS, ids=str)
@pytest.mark.parametrize("largest", [1.0, 0.37, 4.215])
def test_value_and_gradients_between_zero_or_minus_range_and_range(path, levels, largest):
    x = sample(largest)
    weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    value, (gradient, range_gradient) = value_and_gradients(
        lambda x, largest: fake_quantize.fake_quantize(x, levels, largest),
        x,
        np.float32(largest),
        weights=weights,
    )
    smallest = fake_quantize.smallest_level(levels, np.float32(largest))
    scale = (np.float32(largest) - smallest) / np.float32(levels.high - levels.low)
    np.testing.assert_array_equal(value, levels.quantize(x, scale))
    above, below = x > levels.high * scale, x < levels.low * scale
    np.testing.assert_array_equal(gradient, np.where(above | below, 0, weights))
    expected = weights[above].sum() + weights[below].sum() * levels.low / levels.high
    np.testing.assert_allclose(range_gradient, expected, rtol=1e-4, atol=1e-4)  # order of sums


@pytest.mark.parametrize("num_bits", range(2, 9))
@pytest.mark.parametrize("ends", [(-1.0, 1.0), (0.0, 3.0), (-2.0, 0.0), (-0.31, 5.7)])
def test_value_and_gradients_between_two_ends(path, num_bits, ends):
    x = sample(max(ends) or -min(ends))
    levels, scale = grid.affine_grid(num_bits, *ends)
    low, high = np.float32(levels.low) * scale, np.float32(levels.high) * scale
    x = np.concatenate([x, [low, high]]).astype(np.float32)
    value, (gradient, low_gradient, high_gradient) = value_and_gradients(
        lambda x, a, b: fake_quantize.fake_quantize_affine(x, num_bits, a, b), x, *ends
    )
    np.testing.assert_array_equal(value, levels.quantize(x, scale))
    np.testing.assert_array_equal(gradient, ((x >= low) & (x <= high)).astype(np.float32))
    assert low_gradient == (x < low).sum()
    assert high_gradient == (x > high).sum()


@pytest.mark.parametrize("num_bits", range(2, 9))
def test_value_and_gradient_of_rounding_to_integers(path, num_bits):
    levels = grid.weight_grid(num_bits)
    ties = np.arange(levels.low - 1, levels.high + 1) + 0.5
    x = np.concatenate([sample(levels.high), ties]).astype(np.float32)
    value, (gradient,) = value_and_gradients(
        lambda x: fake_quantize.round_to_integers(x, levels), x
    )
    np.testing.assert_array_equal(value, levels.to_int(x, 1.0))
    np.testing.assert_array_equal(gradient, (np.abs(x) <= levels.high).astype(np.float32))


def test_value_and_gradient_of_signs(path):
    value, (gradient,) = value_and_gradients(
        lambda x: fake_quantize.round_to_integers(x, grid.SignGrid()), [-3.0, -1e-9, 0.0, 2.0]
    )
    np.testing.assert_array_equal(value, [-1, -1, 1, 1])
    np.testing.assert_array_equal(gradient, [1, 1, 1, 1])


def test_the_ends_of_the_range_are_inside(path):
    _, (gradient, _) = value_and_gradients(
        lambda x, largest: fake_quantize.fake_quantize(x, grid.activation_grid(8), largest),
        [-0.001, 0.0, 1.0, 1.001],
        1.0,
    )
    np.testing.assert_array_equal(gradient, [0, 1, 1, 0])


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3, 4, 5)])
def test_any_shape(path, shape):
    x = tf.random.normal(shape)
    assert fake_quantize.fake_quantize(x, grid.activation_grid(4), tf.constant(1.0)).shape == shape
