"""Compute cost by both models, on networks small enough to be counted by hand."""

from __future__ import annotations

import pytest

import wrpn_tf
from wrpn_tf import applications
from wrpn_tf.analysis import (
    ModelProfile,
    compute_cost,
    layer_costs,
    mac_cost,
    relative_cost,
    uniform_cost,
    with_bits,
)

# Multiply-accumulates of `small_model`.
_FIRST = 6 * 6 * 3 * 3 * 2 * 4
_MIDDLE = 6 * 6 * 4 * 8
_LAST = 6 * 6 * 8 * 5


def small_model(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, name="first")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    x = layers.Conv2D(8, 1, name="middle")(x)
    x = layers.Dense(5, activation="softmax", name="last")(layers.Flatten()(x))
    return flavor.keras.Model(inputs, x)


@pytest.fixture
def profile(flavor):
    return ModelProfile(small_model(flavor))


@pytest.mark.parametrize(
    ("bits", "model", "expected"),
    [
        ((32, 32), "sum", 1.0),
        ((32, 32), "product", 1.0),
        ((8, 2), "sum", 10 / 64),
        ((8, 2), "product", 16 / 1024),
        ((1, 1), "sum", 2 / 64),
        ((1, 1), "product", 1 / 1024),
        ((32, 1), "sum", 33 / 64),
    ],
)
def test_one_multiply_accumulate(bits, model, expected):
    assert mac_cost(*bits, model=model) == expected


def test_a_float_model_costs_its_multiply_accumulates(profile):
    assert compute_cost(profile) == _FIRST + _MIDDLE + _LAST
    assert compute_cost(profile, model="product") == _FIRST + _MIDDLE + _LAST


def test_low_bits_everywhere_or_between_float_ends(profile):
    low = with_bits(profile, num_bits_weight=2, num_bits_activation=8)
    every = _FIRST + _MIDDLE + _LAST
    assert compute_cost(low) == every * (8 + 2) / 64
    assert compute_cost(low, model="product") == every * 8 * 2 / 1024
    ends = {"first_and_last": "float"}
    assert compute_cost(low, **ends) == _FIRST + _MIDDLE * (8 + 2) / 64 + _LAST
    assert compute_cost(low, model="product", **ends) == _FIRST + _MIDDLE / 64 + _LAST
    assert layer_costs(low, **ends) == {
        "first": _FIRST,
        "middle": _MIDDLE * 10 / 64,
        "last": _LAST,
    }
    assert relative_cost(low, profile) == 10 / 64


def test_low_bits_are_those_of_kernels_and_not_of_biases(profile):
    low = with_bits(profile, num_bits_weight=2, num_bits_activation=8)
    kernels = 3 * 3 * 2 * 4 + 4 * 8 + 6 * 6 * 8 * 5
    assert low.num_bytes == kernels * 2 // 8 + 4 * (4 + 8 + 5 + 4 * 4)
    assert low.num_parameters == profile.num_parameters
    assert {bits for row in low.layers for bits in row.num_bits_output} == {8}
    assert profile.num_bytes == 4 * profile.num_parameters  # unchanged


def test_a_quantized_models_cost_is_that_of_its_own_bits(flavor):
    model = applications.ResNet8(keras_flavor=flavor.name, input_shape=(8, 8, 1))
    quantized = ModelProfile(wrpn_tf.quantize_model(model, num_bits_activation=4))
    macs = quantized.macs_by_bits
    assert compute_cost(quantized) == (macs[8, 8] * 16 + macs[4, 2] * 6) / 64
    assert compute_cost(quantized, first_and_last="float") == macs[8, 8] + macs[4, 2] * 6 / 64
    assert relative_cost(quantized, ModelProfile(model)) == quantized.cost / (
        64 * quantized.num_macs
    )


def test_first_and_last_of_branches_and_of_separable_layers(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((6, 6, 2))
    left = layers.SeparableConv2D(3, 3, padding="same", name="left")(inputs)
    right = layers.Conv2D(3, 1, name="right")(layers.MaxPooling2D(1)(inputs))
    x = layers.Conv2D(4, 1, name="middle")(layers.Add()([left, right]))
    x = layers.SeparableConv2D(2, 1, name="end")(layers.ReLU()(x))
    profile = ModelProfile(flavor.keras.Model(inputs, layers.ReLU()(x)))
    macs = [(row.path, mac) for row in profile.layers for mac in row.macs]
    first = {(path, mac.weight) for path, mac in macs if mac.is_first}
    last = {(path, mac.weight) for path, mac in macs if mac.is_last}
    assert first == {("left", "depthwise_kernel"), ("right", "kernel")}
    assert last == {("end", "pointwise_kernel")}


def test_no_network_is_needed_for_a_uniform_cost():
    published = {(4, 4): 0.5, (4, 2): 0.375, (2, 2): 0.25, (1, 1): 0.125}  # BN-Inception
    for bits, cost in published.items():
        assert uniform_cost(*bits, width_multiplier=2) == cost
    assert uniform_cost(4, 8, width_multiplier=2, model="product") == 4 * 32 / 1024


def test_unknown_multiply_accumulates_are_an_error_that_names_the_layer(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((5, 3))
    x = layers.Dense(2, name="head")(layers.LSTM(4, name="memory")(inputs))
    profile = ModelProfile(flavor.keras.Model(inputs, x))
    with pytest.raises(ValueError, match="`profile` must have known .* 'memory': LSTM has weights"):
        compute_cost(profile)
    with pytest.raises(ValueError, match="`baseline` must have known"):
        relative_cost(ModelProfile(small_model(flavor)), profile)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: compute_cost(p, model="bops"), ValueError, "`model` must be"),
        (lambda p: compute_cost(p, first_and_last=8), ValueError, "`first_and_last` must be"),
        (lambda p: compute_cost("resnet"), TypeError, "`profile` must be a ModelProfile"),
        (lambda p: mac_cost(0, 2), ValueError, "`num_bits_activation` must be in 1..32"),
        (lambda p: mac_cost(2, 33), ValueError, "`num_bits_weight` must be in 1..32"),
        (lambda p: mac_cost(2.0, 2), TypeError, "`num_bits_activation` must be an integer"),
        (lambda p: mac_cost(2, 2, model=""), ValueError, "`model` must be"),
        (
            lambda p: with_bits(p, num_bits_weight=True, num_bits_activation=8),
            TypeError,
            "`num_bits_weight` must be an integer",
        ),
        (lambda p: with_bits(None, num_bits_weight=2, num_bits_activation=8), TypeError, "profile"),
        (lambda p: uniform_cost(2, 2, width_multiplier=0), ValueError, "`width_multiplier` must"),
    ],
)
def test_bad_input_is_refused(call, error, message, flavor):
    with pytest.raises(error, match=message):
        call(ModelProfile(small_model(flavor)))


def test_a_baseline_without_multiply_accumulates_is_refused(flavor):
    inputs = flavor.keras.Input((4,))
    empty = flavor.keras.Model(inputs, flavor.keras.layers.BatchNormalization()(inputs))
    with pytest.raises(ValueError, match="`baseline` must have multiply-accumulates"):
        relative_cost(ModelProfile(small_model(flavor)), ModelProfile(empty))
