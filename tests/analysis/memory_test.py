"""Memory footprints by both rules, on a network whose maps are counted by hand."""

from __future__ import annotations

import pytest

import wrpn_tf
from wrpn_tf.analysis import (
    ModelProfile,
    feature_maps,
    memory_footprint,
    memory_table,
    peak_activation_bytes,
    with_bits,
)

# Values of the maps of `small_model`, for one example.
_INPUT = 10 * 10 * 3
_CONV1 = 8 * 8 * 16
_POOL = 4 * 4 * 16
_CONV2 = 4 * 4 * 8
_DENSE = 5
_CONV_KERNELS = 3 * 3 * 3 * 16 + 16 * 8
_KERNELS = _CONV_KERNELS + 4 * 4 * 8 * 5
_OTHERS = 4 * 16 + 8 + 5  # batch norm, biases


def small_model(flavor, input_shape=(10, 10, 3)):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input(input_shape)
    x = layers.Conv2D(16, 3, use_bias=False, name="conv1")(inputs)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn")(x))
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Conv2D(8, 1, activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D()(x) if None in input_shape else layers.Flatten()(x)
    return flavor.keras.Model(inputs, layers.Dense(5, name="dense")(x))


@pytest.fixture
def profile(flavor):
    return ModelProfile(small_model(flavor))


def footprint_values(profile, **options):
    """Weights, maps and gradients of a float profile, in values."""
    found = memory_footprint(profile, **options)
    return found.weight_bytes / 4, found.activation_bytes / 4, found.gradient_bytes / 4


def test_maps_are_inputs_kernels_outputs_and_pools(profile):
    maps = [(x.path, x.num_values, x.num_bits) for x in feature_maps(profile)]
    assert maps == [
        ("", _INPUT, 32),
        ("conv1", _CONV1, 32),
        ("pool", _POOL, 32),
        ("conv2", _CONV2, 32),
        ("dense", _DENSE, 32),
    ]
    convolutions = feature_maps(profile, counting="convolutions")
    assert [x.path for x in convolutions] == ["", "conv1", "conv2"]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_rule_of_the_figure(profile, batch):
    options = {"rule": "figure", "counting": "kernels", "batch_size": batch}
    everything = _INPUT + _CONV1 + _POOL + _CONV2 + _DENSE
    training = footprint_values(profile, phase="training", **options)
    assert training == (_KERNELS, batch * everything, 0)
    inference = footprint_values(profile, phase="inference", **options)
    assert inference == (_KERNELS, batch * 2 * _CONV1, 0)


def test_the_figure_with_convolutions_only(profile):
    options = {"rule": "figure", "counting": "convolutions"}
    training = footprint_values(profile, phase="training", **options)
    assert training == (_CONV_KERNELS, _INPUT + _CONV1 + _CONV2, 0)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_texts_formula(profile, batch):
    everything = _INPUT + _CONV1 + _POOL + _CONV2 + _DENSE
    weights = _KERNELS + _OTHERS
    training = footprint_values(profile, phase="training", batch_size=batch)
    # The largest map that a layer with kernels reads is the input, the largest it makes conv1's.
    assert training == (weights, batch * everything, batch * (_INPUT + _CONV1))
    assert footprint_values(profile, batch_size=batch) == (weights, batch * (_INPUT + _CONV1), 0)


def test_shares_and_totals(profile):
    found = memory_footprint(profile, batch_size=2)
    assert found.num_bytes == 4 * (_KERNELS + _OTHERS + 2 * (_INPUT + _CONV1))
    assert found.weight_share == 4 * (_KERNELS + _OTHERS) / found.num_bytes


def test_the_table_has_training_then_inference_by_batch(profile):
    rows = memory_table(profile, batch_sizes=(1, 8), rule="figure", counting="kernels")
    assert [(x.phase, x.batch_size) for x in rows] == [
        ("training", 1),
        ("training", 8),
        ("inference", 1),
        ("inference", 8),
    ]
    assert rows[3] == memory_footprint(profile, batch_size=8, rule="figure", counting="kernels")


def test_maps_take_the_bits_at_which_they_are_stored(flavor):
    model = wrpn_tf.quantize_model(small_model(flavor), num_bits_weight=2, num_bits_activation=4)
    profile = ModelProfile(model)
    bits = {x.path: x.num_bits for x in feature_maps(profile)}
    # conv2 reads conv1's map behind batch norm, ReLU and pool; first and last layers read 8 bits.
    assert bits == {"": 8, "conv1": 4, "pool": 4, "conv2": 8, "dense": 8}
    inference = memory_footprint(profile, counting="kernels")
    assert inference.activation_bytes == _INPUT + _CONV1 // 2
    assert inference.weight_bytes == 3 * 3 * 3 * 16 + 16 * 8 * 2 // 8 + 4 * 4 * 8 * 5
    training = memory_footprint(profile, counting="kernels", phase="training")
    assert training.weight_bytes == 4 * _KERNELS  # the float copies
    assert training.activation_bytes == _INPUT + _CONV1 // 2 + _POOL // 2 + _CONV2 + _DENSE
    assert training.gradient_bytes == 4 * (_INPUT + _CONV1)


def test_bits_of_a_count_and_parts_of_bytes(profile):
    low = with_bits(profile, num_bits_weight=1, num_bits_activation=3)
    found = memory_footprint(low, rule="figure", counting="kernels", phase="training")
    maps = (_INPUT, _CONV1, _POOL, _CONV2, _DENSE)
    assert found.activation_bytes == sum(-(-3 * values // 8) for values in maps)


def test_pooling_that_keeps_the_size_is_a_map_of_its_own(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((4, 4, 2))
    x = layers.Conv2D(2, 1, name="conv")(inputs)
    x = layers.AveragePooling2D(3, strides=1, padding="same", name="pool")(x)
    model = flavor.keras.Model(inputs, layers.Conv2D(2, 1, name="end")(x))
    assert [x.path for x in feature_maps(ModelProfile(model))] == ["", "conv", "pool", "end"]


def test_the_peak_counts_what_is_alive_around_a_layer(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((4, 4, 2))
    x = short = layers.ReLU()(layers.Conv2D(3, 1, name="conv1")(inputs))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(5, 1, name="conv2")(x)))
    x = layers.Add()([layers.Conv2D(3, 1, name="conv3")(x), short])
    profile = ModelProfile(flavor.keras.Model(inputs, layers.Flatten()(x)))
    # At conv3: the input, which is kept, the shortcut, what it reads and makes; at the sum as many
    # values but 3 for 5.
    assert peak_activation_bytes(profile) == 4 * 4 * 4 * (2 + 3 + 5 + 3)
    assert peak_activation_bytes(profile, batch_size=7) == 7 * 4 * 4 * 4 * (2 + 3 + 5 + 3)
    low = with_bits(profile, num_bits_weight=2, num_bits_activation=4)
    assert peak_activation_bytes(low) == 4 * 4 * (2 + 3 + 5 + 3) // 2


def test_unknown_sizes_are_refused(flavor):
    profile = ModelProfile(small_model(flavor, (None, None, 3)))
    with pytest.raises(ValueError, match="`profile` must be of a model with known sizes"):
        memory_footprint(profile)
    with pytest.raises(ValueError, match="`profile` must be of a model with known sizes"):
        peak_activation_bytes(profile)


def test_layers_that_are_not_understood_are_refused(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((5, 3))
    x = layers.Dense(2)(layers.LSTM(4, name="memory")(inputs))
    profile = ModelProfile(flavor.keras.Model(inputs, x))
    for count in (memory_footprint, peak_activation_bytes):
        with pytest.raises(ValueError, match="'memory': LSTM has weights"):
            count(profile)


def test_nothing_to_count_is_refused(flavor):
    inputs = flavor.keras.Input((3,))
    profile = ModelProfile(flavor.keras.Model(inputs, flavor.keras.layers.Dense(2)(inputs)))
    with pytest.raises(ValueError, match="must have a layer that counts"):
        memory_footprint(profile, counting="convolutions")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "`batch_size` must be >= 1"),
        ({"batch_size": True}, TypeError, "`batch_size` must be an integer"),
        ({"phase": "serving"}, ValueError, '`phase` must be one of "training"'),
        ({"rule": "table"}, ValueError, '`rule` must be one of "figure"'),
        ({"counting": "all"}, ValueError, '`counting` must be one of "parameters"'),
    ],
)
def test_bad_input_is_refused(profile, options, error, message):
    with pytest.raises(error, match=message):
        memory_footprint(profile, **options)


def test_what_is_no_profile_is_refused():
    with pytest.raises(TypeError, match="`profile` must be a ModelProfile"):
        memory_footprint("resnet")
