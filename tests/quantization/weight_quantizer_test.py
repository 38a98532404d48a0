"""Weights: every scale rule, bit width and axis; forward, gradient, integers and their unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wrpn_tf.quantization import WRPNWeightQuantizer
from wrpn_tf.quantization.weight_scale import RULES, compute_weight_scale

# Largest level -> its best place in standard deviations, from Max (1960); here by bits.
_OPTIMUM = {2: 1.224, 3: 1.952, 4: 2.474, 5: 2.899, 6: 3.270, 7: 3.607, 8: 3.920}
# Kernel shape -> axes of output channels, fan-in by hand.
_KERNELS = {
    "dense": ((12, 5), (-1,), 12),
    "conv1d": ((3, 4, 6), (-1,), 3 * 4),
    "conv2d": ((3, 3, 4, 6), (-1,), 3 * 3 * 4),
    "conv3d": ((2, 3, 3, 4, 6), (-1,), 2 * 3 * 3 * 4),
    "depthwise1d": ((3, 4, 2), (-2, -1), 3),
    "depthwise2d": ((3, 3, 4, 2), (-2, -1), 3 * 3),
    "conv2d_transpose": ((3, 3, 6, 4), (-2,), 3 * 3 * 4),
    "einsum_heads": ((8, 2, 4), (-2, -1), 8),
}


@pytest.fixture(params=_KERNELS, ids=str)
def kernel(request):
    """A kernel with channels of different sizes, its channel axes and its fan-in."""
    shape, axes, fan_in = _KERNELS[request.param]
    generator = np.random.default_rng(len(shape))
    weights = generator.normal(0, 0.1, shape) * (1 + generator.uniform(0, 3, shape[-2:]))
    return weights.astype(np.float32), axes, fan_in


def largest_by_hand(weights, num_bits, rule, axes, fan_in):
    """The table of the documentation, in float64."""
    if not isinstance(rule, str):
        return np.float64(rule)
    reduced = tuple(a for a in range(weights.ndim) if a - weights.ndim not in axes)
    axis = reduced if rule.endswith("_per_channel") else None
    magnitudes = np.abs(weights.astype(np.float64))
    mean = magnitudes.mean(axis=axis, keepdims=axis is not None)
    if num_bits == 1:
        return mean
    return {
        "none": np.float64(1),
        "initializer": np.float64(_OPTIMUM[num_bits] * math.sqrt(2 / fan_in)),
        "mean": _OPTIMUM[num_bits] * math.sqrt(math.pi / 2) * mean,
        "max": magnitudes.max(axis=axis, keepdims=axis is not None),
    }[rule.removesuffix("_per_channel")]


@pytest.mark.parametrize("rule", [*RULES, 0.25])
@pytest.mark.parametrize("num_bits", [1, 2, 3, 8])
def test_the_scale_is_what_the_rule_says(kernel, rule, num_bits):
    weights, axes, fan_in = kernel
    positive_axes = [a % weights.ndim for a in axes]
    scale = np.asarray(compute_weight_scale(tf.constant(weights), num_bits, rule, positive_axes))
    assert scale.dtype == np.float32
    expected = largest_by_hand(weights, num_bits, rule, axes, fan_in)
    assert scale.shape == expected.shape
    np.testing.assert_allclose(scale, expected, rtol=1e-5)  # float32 sums
    step = WRPNWeightQuantizer(num_bits, rule, axes).scale(weights)
    np.testing.assert_allclose(step * max(1, 2 ** (num_bits - 1) - 1), scale, rtol=1e-6)


@pytest.mark.parametrize("rule", [*RULES, 0.25])
@pytest.mark.parametrize("num_bits", [1, 2, 3, 8])
def test_forward_is_scale_times_integers_exactly(kernel, rule, num_bits):
    weights, axes, _ = kernel
    quantizer = WRPNWeightQuantizer(num_bits, rule, axes)
    integers, scale = quantizer.to_int(weights), quantizer.scale(weights)
    assert (integers.dtype, scale.dtype) == (np.int32, np.float32)
    expected = scale * integers.astype(np.float32)
    forward = quantizer(tf.constant(weights), False, {})
    np.testing.assert_array_equal(forward, expected)
    np.testing.assert_array_equal(quantizer(tf.constant(weights), True, {}), expected)


@pytest.mark.parametrize("rule", [*RULES, 0.3])
@pytest.mark.parametrize("num_bits", [1, 2, 4, 8])
def test_graph_optimizers_leave_levels_and_integers_alone(rule, num_bits):
    weights = np.random.default_rng(0).normal(0, 0.1, (3, 3, 8, 12)).astype(np.float32)
    quantizer = WRPNWeightQuantizer(num_bits, rule)
    expected = quantizer.scale(weights) * quantizer.to_int(weights).astype(np.float32)
    in_graph = tf.function(lambda w: quantizer(w, True, {}))(tf.constant(weights))
    np.testing.assert_array_equal(in_graph, expected)


@pytest.mark.parametrize("rule", [*RULES, 0.25])
@pytest.mark.parametrize("num_bits", [2, 3, 5, 8])
def test_forward_is_the_formula(kernel, rule, num_bits):
    weights, axes, fan_in = kernel
    levels = 2 ** (num_bits - 1) - 1
    step = largest_by_hand(weights, num_bits, rule, axes, fan_in) / levels
    expected = step * np.floor(np.clip(weights / step, -levels, levels) + 0.5)
    forward = WRPNWeightQuantizer(num_bits, rule, axes)(tf.constant(weights), False, {}).numpy()
    # float32 against float64 puts a weight that lies within an ulp of a tie on the other side.
    near_tie = np.abs(np.abs(weights / step) % 1 - 0.5) < 1e-4
    np.testing.assert_allclose(forward[~near_tie], expected[~near_tie], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("weights", "integers", "largest"),
    [
        ([0.6, -0.6, 0.1, -0.2], [1, -1, 0, 0], 1.0),
        ([0.5, -0.5, 2.0, -2.0], [1, 0, 1, -1], 1.0),  # ties go up
        ([0.125, -0.125, 0.2, 0.0], [1, 0, 1, 0], 0.25),
    ],
)
def test_ternary_weights_of_a_table(weights, integers, largest):
    quantizer = WRPNWeightQuantizer(2, largest)
    np.testing.assert_array_equal(quantizer.to_int(weights), integers)
    forward = quantizer(tf.constant(weights), False, {})
    np.testing.assert_array_equal(forward, np.float32(largest) * np.float32(integers))


@pytest.mark.parametrize("num_bits", range(2, 9))
def test_the_literal_paper(num_bits):
    levels = 2 ** (num_bits - 1) - 1
    weights = np.random.default_rng(0).uniform(-1.2, 1.2, 1000).astype(np.float32)
    expected = np.floor(levels * np.clip(weights, -1, 1).astype(np.float64) + 0.5) / levels
    quantizer = WRPNWeightQuantizer(num_bits, "none")
    np.testing.assert_allclose(quantizer(tf.constant(weights), False, {}), expected, atol=1e-6)


def test_one_bit_is_the_sign_times_the_mean_magnitude_and_zero_is_positive():
    weights = np.array([[-0.5, 0.0], [0.25, 0.25]], np.float32)
    quantizer = WRPNWeightQuantizer(1, "none")
    assert quantizer.scale(weights) == 0.25
    np.testing.assert_array_equal(quantizer.to_int(weights), [[-1, 1], [1, 1]])
    forward = quantizer(tf.constant(weights), False, {})
    np.testing.assert_array_equal(forward, [[-0.25, 0.25], [0.25, 0.25]])


def test_one_bit_per_channel():
    weights = np.array([[-0.5, 0.0], [0.25, 1.0]], np.float32)
    quantizer = WRPNWeightQuantizer(1, "mean_per_channel")
    np.testing.assert_array_equal(quantizer.scale(weights), [[0.375, 0.5]])


def gradient_of(quantizer, weights):
    weights = tf.constant(weights, tf.float32)
    upstream = tf.random.normal(weights.shape, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        total = tf.reduce_sum(quantizer(weights, True, {}) * upstream)
    return tape.gradient(total, weights).numpy(), upstream.numpy()


@pytest.mark.parametrize("rule", [*RULES, 0.25])
@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_gradient_is_zero_beyond_the_largest_level_of_a_fixed_scale_only(kernel, rule, num_bits):
    weights, axes, _ = kernel
    quantizer = WRPNWeightQuantizer(num_bits, rule, axes)
    gradient, upstream = gradient_of(quantizer, weights)
    levels = np.float32(2 ** (num_bits - 1) - 1)
    inside = np.abs(weights / quantizer.scale(weights)) <= levels
    if rule in ("mean", "mean_per_channel", "max", "max_per_channel"):
        assert num_bits > 2 or rule.startswith("max") or not inside.all()
        inside = np.ones_like(inside)
    # (g * step) / step is g but for two roundings.
    np.testing.assert_allclose(gradient, np.where(inside, upstream, 0), rtol=1e-6)


def test_gradient_at_the_ends_of_the_clip_range():
    gradient, upstream = gradient_of(WRPNWeightQuantizer(2, "none"), [-1.001, -1.0, 1.0, 1.001])
    np.testing.assert_array_equal(gradient, upstream * [0, 1, 1, 0])


def test_one_bit_gradient_is_clipped_at_one():
    gradient, upstream = gradient_of(WRPNWeightQuantizer(1, "mean"), [-1.5, -1.0, 0.0, 1.0, 1.5])
    np.testing.assert_allclose(gradient, upstream * [0, 1, 1, 1, 0], rtol=1e-6)


@pytest.mark.parametrize("rule", [*RULES, 0.25])
@pytest.mark.parametrize("num_bits", [1, 2, 8])
def test_a_kernel_of_zeros_stays_zero_and_trains(rule, num_bits):
    quantizer = WRPNWeightQuantizer(num_bits, rule)
    zeros = np.zeros((4, 3), np.float32)
    np.testing.assert_allclose(quantizer(tf.constant(zeros), True, {}), zeros, atol=0.25)
    assert np.all(quantizer.scale(zeros) > 0)
    gradient, upstream = gradient_of(quantizer, zeros)
    np.testing.assert_allclose(gradient, upstream, rtol=1e-6)


def test_one_output_channel():
    weights = np.array([[0.5], [-0.1]], np.float32)
    quantizer = WRPNWeightQuantizer(2, "max_per_channel")
    np.testing.assert_array_equal(quantizer(tf.constant(weights), False, {}), [[0.5], [0.0]])


def test_reduced_precision_weights_are_quantized_in_float32():
    weights = tf.constant([[0.3, -0.7]], tf.bfloat16)
    quantizer = WRPNWeightQuantizer(2, 0.5)
    forward = quantizer(weights, False, {})
    assert forward.dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(forward, tf.float32), [[0.5, -0.5]])


_FINITE = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)


@settings(max_examples=50, deadline=None)
@given(
    weights=arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=2, max_dims=4), elements=_FINITE
    ),
    num_bits=st.integers(1, 8),
    rule=st.sampled_from([*RULES, 0.7]),
)
def test_any_kernel_is_scale_times_integers_exactly(weights, num_bits, rule):
    quantizer = WRPNWeightQuantizer(num_bits, rule)
    integers = quantizer.to_int(weights)
    assert set(np.unique(integers)) <= set(range(quantizer.grid.low, quantizer.grid.high + 1))
    expected = quantizer.scale(weights) * integers.astype(np.float32)
    np.testing.assert_array_equal(quantizer(tf.constant(weights), False, {}), expected)


@pytest.mark.parametrize("rule", ["median", "", 0, -1.0, float("nan"), float("inf"), True, None])
def test_a_scale_that_is_no_rule_and_no_positive_number_is_refused(rule):
    with pytest.raises(ValueError, match="`weight_scale` must be a positive number or one of"):
        WRPNWeightQuantizer(2, rule)


def test_bits_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`num_bits_weight` must be in 1..8, got 9"):
        WRPNWeightQuantizer(9, "mean")


def test_bits_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="`num_bits_weight` must be an int in 1..8, got float"):
        WRPNWeightQuantizer(2.0, "mean")
