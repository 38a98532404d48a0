"""Replicated weights: what the widened model computes, and what noise does to it."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies

from tests.widening import networks
from wrpn_tf import keras_flavor
from wrpn_tf.widening import widen_model

# In float64 only the order of the sums differs: some 1e3 terms of 1e-16 each.
FLOAT64_TOLERANCE = 1e-11


@pytest.fixture
def double(flavor):
    """Builds layers in float64, where replication is exact but for the last bits."""
    policy = flavor.keras.mixed_precision
    for dtype in ("float64", "float32"):
        flavor.keras.backend.set_floatx(dtype)
        policy.set_global_policy(dtype)
        if dtype == "float64":
            yield flavor


def _outputs(model, seed=3):
    """The outputs for random inputs, flattened."""
    rng = np.random.default_rng(seed)
    inputs = []
    for tensor in model.inputs:
        shape = (5, *tensor.shape[1:])
        integers = "int" in str(tensor.dtype)
        inputs.append(rng.integers(0, 11, shape) if integers else rng.normal(size=shape))
    results = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    results = results.values() if isinstance(results, dict) else [results]
    return [np.asarray(result) for result in results]


def _assert_equal_functions(model, wide, tolerance):
    for expected, got in zip(_outputs(model), _outputs(wide), strict=True):
        assert expected.std() > 1e-3  # Otherwise a wrong net could agree.
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("build", networks.REPLICABLE)
@pytest.mark.parametrize("multiplier", [2, 1.3])
def test_outputs_are_equal(double, build, multiplier):
    model = build(double)
    # Without rounding to multiples of 8, the small widths differ at every multiplier.
    wide = widen_model(model, width_multiplier=multiplier, divisor=1, preserve_function=True)
    assert wide.count_params() > model.count_params()
    _assert_equal_functions(model, wide, FLOAT64_TOLERANCE)


@pytest.mark.parametrize("build", networks.REPLICABLE)
def test_outputs_are_equal_for_the_first_layers(double, build):
    model = build(double)
    wide = widen_model(model, layer_fraction=0.4, preserve_function=True)
    _assert_equal_functions(model, wide, FLOAT64_TOLERANCE)


def test_statistics_over_channels_are_equal_for_integer_multipliers(double):
    model = networks.normalized(double)
    wide = widen_model(model, width_multiplier=3, preserve_function=True)
    assert wide.count_params() > 3 * model.count_params()
    _assert_equal_functions(model, wide, FLOAT64_TOLERANCE)


def test_outputs_are_equal_in_float32(flavor):
    model = networks.residual(flavor)
    wide = widen_model(model, width_multiplier=1.3, divisor=1, preserve_function=True)
    # Each of the four convolutions and dense layers rounds its sums to 2**-24 of their size.
    _assert_equal_functions(model, wide, 1e-5)


def test_replicated_weights_of_a_known_case(flavor):
    inputs = flavor.keras.Input((2,))
    x = flavor.layers.Dense(2, name="hidden")(inputs)
    model = flavor.keras.Model(inputs, flavor.layers.Dense(1, name="out")(x))
    values = [[[1.0, 2.0], [3.0, 4.0]], [5.0, 6.0], [[7.0], [8.0]], [9.0]]
    model.set_weights([np.array(value) for value in values])
    wide = widen_model(model, width_multiplier=1.5, divisor=1, preserve_function=True)
    kernel, bias, out_kernel, out_bias = wide.get_weights()
    np.testing.assert_array_equal(kernel, [[1, 2, 1], [3, 4, 3]])
    np.testing.assert_array_equal(bias, [5, 6, 5])
    np.testing.assert_array_equal(out_kernel, [[7 / 2], [8], [7 / 2]])
    np.testing.assert_array_equal(out_bias, [9])


def test_noise_parts_the_copies_only(flavor):
    model = networks.residual(flavor)
    wide = widen_model(model, preserve_function=True, noise=0.05, seed=1)
    plain = widen_model(model, preserve_function=True)
    noisy_kernel = wide.get_layer("stem").get_weights()[0]
    kernel = plain.get_layer("stem").get_weights()[0]
    np.testing.assert_array_equal(noisy_kernel[..., :10], kernel[..., :10])
    difference = noisy_kernel[..., 10:] - kernel[..., 10:]
    assert np.all(difference != 0)
    # 270 draws: the standard deviation is known to 4 %.
    assert np.std(difference) == pytest.approx(0.05 * np.std(kernel), rel=0.2)
    before, after = _outputs(model)[0], _outputs(wide)[0]
    assert 0 < np.abs(before - after).max() < 0.5 * np.abs(before).max()


def test_seed_fixes_the_noise(flavor):
    model = networks.residual(flavor)
    first, second, other = (
        widen_model(model, preserve_function=True, noise=0.05, seed=seed).get_weights()
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_copies_stay_equal_in_training_without_noise_and_part_with_it(flavor):
    model = networks.residual(flavor)
    images = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype("float32")
    for noise in (0.0, 0.05):
        wide = widen_model(model, preserve_function=True, noise=noise, seed=1)
        wide.compile("sgd", "mse")
        wide.fit(images, np.ones((8, 4)), epochs=2, verbose=0)
        kernel = wide.get_layer("inner").get_weights()[0]
        apart = np.abs(kernel[..., :7] - kernel[..., 7:]).max()
        # Equal copies may drift apart by rounding, far less than by noise.
        assert (apart > 1e-3) == (noise > 0)


def test_layers_unknown_to_the_package_pass_if_they_treat_copies_alike(flavor):
    class Swish(flavor.layers.Layer):
        """Works on each number by itself."""

        def call(self, inputs):
            import tensorflow as tf

            return inputs * tf.sigmoid(inputs)

    inputs = flavor.keras.Input((3,))
    x = Swish()(flavor.layers.Dense(4)(inputs))
    model = flavor.keras.Model(inputs, flavor.layers.Dense(2)(x))
    wide = widen_model(model, preserve_function=True)
    assert wide.layers[1].units == 8
    _assert_equal_functions(model, wide, 1e-5)


@hypothesis.given(data=strategies.data())
@hypothesis.settings(max_examples=20, deadline=None)
def test_random_networks_keep_their_function(data):
    flavor = keras_flavor.get_flavor(data.draw(strategies.sampled_from(["keras", "tf_keras"])))
    model = _random_network(flavor, data)
    multiplier = data.draw(strategies.sampled_from([1.5, 1.7, 2, 3]))
    fraction = data.draw(strategies.sampled_from([0.3, 0.7, 1.0]))
    divisor = data.draw(strategies.sampled_from([1, 8]))
    try:
        wide = widen_model(
            model,
            width_multiplier=multiplier,
            layer_fraction=fraction,
            divisor=divisor,
            preserve_function=True,
        )
    except ValueError as error:  # Channels that cannot be compared were added, all over the net.
        if "must have a layer whose width can change" not in str(error):
            raise
        hypothesis.reject()
    assert wide.output_shape == model.output_shape
    # Ten layers of float32.
    for expected, got in zip(_outputs(model), _outputs(wide), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def _random_network(flavor, data):
    """Up to eight random layers on a growing list of maps, joined by a pool and a dense layer."""
    layers = flavor.layers
    inputs = flavor.keras.Input((4, 4, 2))
    maps = [layers.Conv2D(4, 3, padding="same")(inputs)]
    kinds = ["conv", "grouped", "depthwise", "add", "multiply", "concatenate"]
    kinds += ["norm", "gate", "pad", "part"]
    for kind in data.draw(strategies.lists(strategies.sampled_from(kinds), max_size=8)):
        x = maps[data.draw(strategies.integers(0, len(maps) - 1))]
        alike = [other for other in maps if other.shape[-1] == x.shape[-1]]
        other = alike[data.draw(strategies.integers(0, len(alike) - 1))]
        width = data.draw(strategies.sampled_from([2, 4, 6]))
        maps.append(_random_layer(flavor, kind, x, other, width))
    pooled = layers.GlobalAveragePooling2D()(layers.Concatenate()([maps[0], maps[-1]]))
    model = flavor.keras.Model(inputs, layers.Dense(3)(pooled))
    networks.randomize(model)
    return model


def _random_layer(flavor, kind, x, other, width):
    layers = flavor.layers
    if kind == "pad":
        return networks.pad_channels(flavor, x, (width - 2, 2))
    if kind == "part" and x.shape[-1] > 2:
        changed = layers.Conv2D(width, 3, padding="same", activation="relu")(x[..., 2:])
        return layers.Concatenate()([changed, x[..., :-2]])
    if kind == "conv":
        return layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    if kind == "grouped":
        return layers.Conv2D(width, 3, padding="same", groups=2)(x)
    if kind == "depthwise":
        return layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    if kind == "add":
        return layers.Add()([x, other])
    if kind == "multiply":
        return x * other
    if kind == "concatenate":
        return layers.Concatenate()([x, other])
    if kind == "norm":
        return layers.BatchNormalization()(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(other)
    return layers.Multiply()([x, layers.Activation("sigmoid")(gate)])


def own_activation(x):
    return x * tf.nn.sigmoid(x)


def test_the_users_own_classes_and_functions_keep_their_function(flavor):
    class Filters(flavor.layers.Conv2D):
        pass

    inputs = flavor.keras.Input((6, 6, 3))
    x = flavor.layers.Conv2D(4, 3, activation=own_activation)(Filters(4, 3)(inputs))
    model = flavor.keras.Model(inputs, flavor.layers.Conv2D(2, 1)(x))
    wide = widen_model(model, preserve_function=True)
    assert wide.layers[1].filters == wide.layers[2].filters == 8
    _assert_equal_functions(model, wide, 1e-5)  # of float32


def test_layers_that_look_words_up_keep_what_they_learned(word_model):
    model, words = word_model
    wide = widen_model(model, preserve_function=True)
    np.testing.assert_allclose(wide(words), model(words), rtol=1e-5, atol=1e-6)
