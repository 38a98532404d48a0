"""Activations on fixed, learned and observed ranges: values, integers, ranges that move."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf import grid
from wrpn_tf.quantization import (
    ObservedQuantizer,
    Quantizer,
    WRPNActivationQuantizer,
    WRPNQuantizeConfig,
    WRPNWeightQuantizer,
)
from wrpn_tf.quantization import quantizers as quantizers_lib


def built(flavor, quantizer):
    """The quantizer's variables, made on a layer of the flavour."""
    layer = flavor.layers.Layer()
    return quantizer.build((None, 4), "output", layer), layer


def ranged(reach):
    return {"range": tf.Variable(np.float32(reach))}


def ends(smallest, largest):
    return {
        "smallest": tf.Variable(np.float32(smallest)),
        "largest": tf.Variable(np.float32(largest)),
    }


ACTIVATIONS = np.random.default_rng(0).normal(0, 2, 4000).astype(np.float32)


@pytest.mark.parametrize("reach", [1.0, 0.3, 4.215])
@pytest.mark.parametrize(
    ("num_bits", "signed"), [(k, s) for k in range(1, 9) for s in (False, True) if k > 1 or not s]
)
def test_activations_are_scale_times_integers_exactly(num_bits, signed, reach):
    quantizer = WRPNActivationQuantizer(num_bits, signed=signed)
    variables = ranged(reach)
    integers, scale = quantizer.to_int(ACTIVATIONS, variables), quantizer.scale(variables)
    assert (integers.dtype, scale.dtype) == (np.int32, np.float32)
    levels = 2 ** (num_bits - 1) - 1 if signed else 2**num_bits - 1
    low = -levels - 1 if signed else 0
    # The kernel divides the rounded span by 2^k - 1 steps: two more roundings in float32.
    np.testing.assert_allclose(scale, reach / levels, rtol=3 * 2.0**-24)
    by_hand = np.floor(np.clip(ACTIVATIONS.astype(np.float64) / reach * levels, low, levels) + 0.5)
    near_tie = np.abs(ACTIVATIONS / reach * levels % 1 - 0.5) < 1e-4  # float32 against float64
    np.testing.assert_array_equal(integers[~near_tie], by_hand[~near_tie])
    expected = scale * integers.astype(np.float32)
    np.testing.assert_array_equal(quantizer(tf.constant(ACTIVATIONS), False, variables), expected)
    graph = tf.function(lambda x: quantizer(x, True, variables))
    np.testing.assert_array_equal(graph(tf.constant(ACTIVATIONS)), expected)


@pytest.mark.parametrize(
    ("value", "two_bits"),
    [(-1.0, 0), (0.0, 0), (1 / 6, 1 / 3), (0.5, 2 / 3), (0.9, 1), (1.0, 1), (7.0, 1)],
)
def test_the_papers_two_bit_activations(value, two_bits):
    rounded = WRPNActivationQuantizer(2)(tf.constant([value]), False, ranged(1))
    np.testing.assert_allclose(rounded, [two_bits], rtol=1e-6)


@pytest.mark.parametrize("num_bits", range(2, 9))
@pytest.mark.parametrize("low_high", [(-1.0, 1.0), (0.0, 3.7), (-5.0, 0.0), (-0.2, 9.0)])
def test_observed_values_are_scale_times_integers_exactly(num_bits, low_high):
    quantizer, variables = ObservedQuantizer(num_bits), ends(*low_high)
    integers, scale = quantizer.to_int(ACTIVATIONS, variables), quantizer.scale(variables)
    assert quantizer.grid(variables) == grid.affine_grid(num_bits, *low_high)[0]
    expected = scale * integers.astype(np.float32)
    np.testing.assert_array_equal(quantizer(tf.constant(ACTIVATIONS), False, variables), expected)
    graph = tf.function(lambda x: quantizer(x, False, variables))
    np.testing.assert_array_equal(graph(tf.constant(ACTIVATIONS)), expected)


def test_the_range_is_a_variable_that_trains_if_learned(flavor):
    for learned in (False, True):
        variables, layer = built(flavor, WRPNActivationQuantizer(4, 2.5, learned=learned))
        assert list(variables) == ["range"]
        assert float(variables["range"]) == 2.5
        assert len(layer.trainable_variables) == learned
        assert len(layer.variables) == 1


def test_observed_ends_are_variables_that_do_not_train(flavor):
    variables, layer = built(flavor, ObservedQuantizer(8))
    assert sorted(variables) == ["largest", "smallest"]
    assert not layer.trainable_variables
    assert len(layer.variables) == 2


def range_gradient(quantizer, variables, values):
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(quantizer(tf.constant(values), True, variables))
    return float(tape.gradient(total, variables["range"]))


def test_a_learned_range_gets_the_gradient_of_the_clipped_values():
    quantizer = WRPNActivationQuantizer(4, learned=True)
    assert range_gradient(quantizer, ranged(1), [-3.0, 0.5, 1.0, 1.5, 2.0]) == 2
    signed = WRPNActivationQuantizer(4, learned=True, signed=True)
    gradient = range_gradient(signed, ranged(1), [-3.0, -1.1, 0.5, 0.9, 1.5, 2.0])
    assert gradient == pytest.approx(2 - 8 / 7, rel=1e-6)  # float32


def test_a_range_below_zero_acts_as_a_small_one_and_can_come_back():
    quantizer, variables = WRPNActivationQuantizer(4, learned=True), ranged(-2)
    rounded = quantizer(tf.constant([-1.0, 0.5]), True, variables).numpy()
    assert 0 < rounded[1] < 0.01
    assert quantizer.scale(variables) * 15 == pytest.approx(rounded[1])
    assert range_gradient(quantizer, variables, [-1.0, 0.5]) == 1


def test_a_range_never_exceeds_its_maximum_and_can_come_back():
    quantizer, variables = WRPNActivationQuantizer(4, learned=True, max_range=6.0), ranged(9)
    np.testing.assert_array_equal(quantizer(tf.constant([8.0, 6.0]), True, variables), [6.0, 6.0])
    assert quantizer.scale(variables) == np.float32(6) / np.float32(15)
    assert range_gradient(quantizer, variables, [7.0, 1.0]) == 1


def test_a_range_starts_at_its_maximum_at_most(flavor):
    variables, _ = built(flavor, WRPNActivationQuantizer(8, 7.0, max_range=6.0))
    assert float(variables["range"]) == 6.0


def test_a_learned_range_stays_positive_under_training():
    quantizer, variables = WRPNActivationQuantizer(2, learned=True), ranged(0.1)
    for _ in range(5):
        variables["range"].assign_sub(0.1 * range_gradient(quantizer, variables, [0.5, 3.0]))
        assert quantizer.scale(variables) > 0


def test_set_range_covers_the_values():
    variables = ranged(1)
    WRPNActivationQuantizer(8).set_range(variables, -5.0, 3.0)
    assert variables["range"].numpy() == 3
    WRPNActivationQuantizer(8, signed=True).set_range(variables, -5.0, 3.0)
    assert variables["range"].numpy() == np.float32(5 * 127 / 128)


def test_set_range_refuses_an_empty_range():
    with pytest.raises(ValueError, match="`range` must be a positive number, got 0"):
        WRPNActivationQuantizer(8).set_range(ranged(1), 0.0, 0.0)


def test_observed_set_range_includes_zero():
    variables = ends(0, 0)
    ObservedQuantizer(8).set_range(variables, 2.0, 3.0)
    assert (variables["smallest"].numpy(), variables["largest"].numpy()) == (0, 3)


def test_observed_set_range_refuses_an_empty_range():
    variables = ends(-1, 1)
    with pytest.raises(ValueError, match="span a range"):
        ObservedQuantizer(8).set_range(variables, 0.0, 0.0)
    assert variables["largest"].numpy() == 1


def test_observed_values_pass_unrounded_until_something_was_seen():
    quantizer, variables = ObservedQuantizer(2), ends(0, 0)
    x = tf.constant([-0.77, 0.123, 5.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x, False, variables)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(tape.gradient(y, x), [1, 1, 1])
    assert variables["largest"].numpy() == 0


def test_an_observed_range_grows_at_once_and_shrinks_by_the_decay():
    quantizer, variables = ObservedQuantizer(8, decay=0.25), ends(0, 0)
    seen = []
    for batch in ([-1.0, 4.0], [-2.0, 2.0], [0.5, 8.0], [1.0, 2.0]):
        quantizer(tf.constant(batch), True, variables)
        seen.append((float(variables["smallest"]), float(variables["largest"])))
    assert seen == [(-1, 4), (-2, 3.5), (-1.5, 8), (-1.125, 6.5)]


def test_without_decay_an_observed_range_keeps_its_extremes():
    quantizer, variables = ObservedQuantizer(8), ends(-3, 5)
    quantizer(tf.constant([-1.0, 1.0]), True, variables)
    assert (float(variables["smallest"]), float(variables["largest"])) == (-3, 5)


def test_evaluation_changes_no_range():
    variables = ends(-3, 5)
    ObservedQuantizer(8, 0.5)(tf.constant([-100.0, 100.0]), False, variables)
    assert (float(variables["smallest"]), float(variables["largest"])) == (-3, 5)


def test_a_batch_of_zeros_passes():
    quantizer, variables = ObservedQuantizer(8), ends(0, 0)
    np.testing.assert_array_equal(quantizer(tf.zeros(3), True, variables), [0, 0, 0])


def test_half_precision_values_keep_their_type():
    for quantizer, variables in (
        (ObservedQuantizer(8), ends(-1, 1)),
        (WRPNActivationQuantizer(8), ranged(1)),
    ):
        assert quantizer(tf.constant([0.3], tf.float16), True, variables).dtype == tf.float16


QUANTIZERS = [
    WRPNWeightQuantizer(1, "mean"),
    WRPNWeightQuantizer(2, "max_per_channel", (-2, -1)),
    WRPNWeightQuantizer(8, 0.5, (-2,)),
    WRPNActivationQuantizer(1),
    WRPNActivationQuantizer(4, 2.5, True, True),
    WRPNActivationQuantizer(8, 4.2, learned=True, max_range=6.0),
    ObservedQuantizer(8),
    ObservedQuantizer(2, 0.01),
]


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_a_quantizer_is_what_its_config_says(quantizer):
    again = type(quantizer).from_config(quantizer.get_config())
    assert again == quantizer
    assert hash(again) == hash(quantizer)
    assert quantizers_lib.deserialize(quantizers_lib.serialize(quantizer)) == quantizer
    assert eval(repr(quantizer), vars(quantizers_lib)) == quantizer
    assert all(quantizer != other for other in QUANTIZERS if other is not quantizer)


def test_a_config_is_what_its_config_says():
    config = WRPNQuantizeConfig({"kernel": QUANTIZERS[1]}, QUANTIZERS[6])
    again = WRPNQuantizeConfig.from_config(config.get_config())
    assert again.weight_quantizers == config.weight_quantizers
    assert again.output_quantizer == config.output_quantizer
    assert WRPNQuantizeConfig.from_config(WRPNQuantizeConfig().get_config()).get_config() == {
        "weight_quantizers": {},
        "output_quantizer": None,
    }


def test_a_config_for_a_weight_that_the_layer_lacks_is_refused(flavor):
    layer = flavor.layers.Dense(2, name="head")
    layer.build((None, 3))
    config = WRPNQuantizeConfig({"kernal": QUANTIZERS[0]})
    with pytest.raises(
        ValueError, match=r"must name weights of 'head' \(kernel, bias\), got kernal"
    ):
        config.get_weights_and_quantizers(layer)


def test_an_unknown_class_is_refused():
    with pytest.raises(
        ValueError, match="`class_name` must be one of WRPNWeightQuantizer, .* got 'X'"
    ):
        quantizers_lib.deserialize({"class_name": "X", "config": {}})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: WRPNActivationQuantizer(0), ValueError, "`num_bits_activation` must be in 1..8"),
        (lambda: WRPNActivationQuantizer(8.0), TypeError, "`num_bits_activation` must be an int"),
        (lambda: WRPNActivationQuantizer(1, signed=True), ValueError, "2..8 for signed values"),
        (lambda: WRPNActivationQuantizer(8, 0.0), ValueError, "`activation_range` must be a pos"),
        (
            lambda: WRPNActivationQuantizer(8, np.nan),
            ValueError,
            "`activation_range` must be a pos",
        ),
        (lambda: WRPNActivationQuantizer(8, True), ValueError, "`activation_range` must be a pos"),
        (lambda: WRPNActivationQuantizer(8, max_range=-6), ValueError, "`max_range` must be a pos"),
        (lambda: ObservedQuantizer(1), ValueError, "2..8 for an observed range, got 1"),
        (lambda: ObservedQuantizer(9), ValueError, "`num_bits_activation` must be in 1..8, got 9"),
        (lambda: ObservedQuantizer(8, 1.0), ValueError, r"`decay` must be in \[0, 1\), got 1.0"),
        (lambda: ObservedQuantizer(8, -0.1), ValueError, r"`decay` must be in \[0, 1\), got -0.1"),
    ],
)
def test_arguments_out_of_range_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_base_class_computes_nothing():
    for use in (
        lambda: Quantizer().build((), "w", None),
        lambda: Quantizer()(0.0, False, {}),
        lambda: Quantizer().get_config(),
    ):
        with pytest.raises(NotImplementedError):
            use()


@settings(max_examples=40, deadline=None)
@given(
    num_bits=st.integers(1, 8),
    reach=st.floats(2**-9, 2**9, width=32),
    values=st.lists(st.floats(-(2**10), 2**10, width=32, allow_subnormal=False), min_size=1),
)
def test_any_activations_are_scale_times_integers_exactly(num_bits, reach, values):
    quantizer, variables = WRPNActivationQuantizer(num_bits), ranged(reach)
    expected = quantizer.scale(variables) * quantizer.to_int(values, variables).astype(np.float32)
    rounded = quantizer(tf.constant(values, tf.float32), False, variables)
    np.testing.assert_array_equal(rounded, expected)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_an_observed_range_leaves_out_what_overflowed(value):
    quantizer, variables = ObservedQuantizer(8, decay=0.5), ends(-1, 2)
    quantizer(tf.constant([value, 1.0]), True, variables)
    assert np.isfinite([float(end) for end in variables.values()]).all()
    quantizer(tf.constant([-4.0, 4.0]), True, variables)
    assert [float(variables[end]) for end in ("smallest", "largest")] == [-4, 4]
