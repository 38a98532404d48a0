"""Folding against a float64 reference, and `adopt` as its inverse."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.small_models import chain, make_images, randomize
from tflite_export.batch_norm_folding import Origin, adopt, fold
from tflite_export.graph_reader import fold_model
from wrpn_tf import calibrate, quantize_model
from wrpn_tf.quantization import WRPNWeightQuantizer

CHANNELS = 5
# A float32 keeps 24 bits of what is adopted; the sums in float64 lose nothing beside that.
FLOAT32 = 2.0**-23


def make_norm(flavor, gamma=(0.5, -2.0, 1.0, -0.25, 3.0), **options):
    norm = flavor.layers.BatchNormalization(epsilon=1e-2, **options)
    norm.build((None, 4, 4, CHANNELS))
    generator = np.random.default_rng(3)
    if norm.gamma is not None:
        norm.gamma.assign(gamma)
    if norm.beta is not None:
        norm.beta.assign(generator.normal(size=CHANNELS))
    norm.moving_mean.assign(generator.normal(size=CHANNELS))
    norm.moving_variance.assign(generator.uniform(0.1, 4, CHANNELS))
    return norm


def make_bias(flavor):
    variable = flavor.layers.Dense(CHANNELS)
    variable.build((None, 2))
    variable.bias.assign(np.random.default_rng(5).normal(size=CHANNELS))
    return variable.bias


def make_slopes(flavor, values):
    layer = flavor.layers.PReLU(shared_axes=[1, 2] if len(values) > 1 else [1, 2, 3])
    layer.build((None, 4, 4, CHANNELS))
    layer.alpha.assign(np.reshape(values, layer.alpha.shape))
    return layer.alpha


def float64(variable, default):
    return np.full(CHANNELS, default) if variable is None else variable.numpy().astype(np.float64)


def integers():
    return np.random.default_rng(1).integers(-7, 8, (CHANNELS, 3, 3, 2)).astype(np.int8)


STEP = np.array([0.1, 0.2, 0.3, 0.4, 0.5])


def real_values(folded, sums, signs):
    """What a folded kernel makes of sums of its unturned integers."""
    return folded.scale * sums * signs + folded.bias


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}, None],
    ids=["norm", "no scale", "no center", "neither", "no norm"],
)
def test_the_folded_map_is_the_layers_in_float64(flavor, options, with_bias):
    norm = None if options is None else make_norm(flavor, **options)
    bias = make_bias(flavor) if with_bias else None
    folded = fold(integers(), 4, 0, Origin(STEP, bias=bias, batch_norm=norm))
    sums = np.linspace(-100, 100, CHANNELS)
    values = STEP * sums + float64(bias, 0.0)
    signs = np.ones(CHANNELS)
    if norm is not None:
        gamma, beta = float64(norm.gamma, 1.0), float64(norm.beta, 0.0)
        mean, variance = float64(norm.moving_mean, 0), float64(norm.moving_variance, 0)
        values = gamma * (values - mean) / np.sqrt(variance + norm.epsilon) + beta
        signs = np.sign(gamma)
    np.testing.assert_allclose(real_values(folded, sums, signs), values, rtol=1e-13, atol=1e-12)
    assert (folded.scale > 0).all()
    turned = integers() * signs.astype(np.int8)[:, None, None, None]
    np.testing.assert_array_equal(folded.integers, turned)


def test_a_channel_of_gamma_zero_is_its_beta_alone(flavor):
    norm = make_norm(flavor, gamma=(1.0, 0.0, 1.0, -0.0, 1.0))
    folded = fold(integers(), 4, 0, Origin(STEP, batch_norm=norm))
    assert not folded.integers[[1, 3]].any()
    assert folded.integers[[0, 2, 4]].any()
    np.testing.assert_array_equal(folded.scale[[1, 3]], STEP[[1, 3]])
    np.testing.assert_array_equal(folded.bias[[1, 3]], norm.beta.numpy().astype(float)[[1, 3]])


def test_the_signs_turn_along_the_channel_axis_of_depthwise_weights(flavor):
    weights = np.ones((1, 3, 3, CHANNELS), np.int8)
    folded = fold(weights, 2, -1, Origin(STEP, batch_norm=make_norm(flavor)))
    np.testing.assert_array_equal(folded.integers[0, 1, 1], [1, -1, 1, -1, 1])


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}],
    ids=["norm", "no scale", "no center", "neither"],
)
def test_what_is_adopted_is_what_folding_finds(flavor, options, with_bias):
    bias = make_bias(flavor) if with_bias else None
    origin = Origin(STEP, bias=bias, batch_norm=make_norm(flavor, **options))
    before = fold(integers(), 4, 0, origin)
    scale = before.scale * [1.01, 1.0, 0.97, 1.002, 0.9]
    offset = before.bias + [0.01, 0.3, -0.2, 0.0, 0.05]
    adopt(before, scale, offset)
    after = fold(integers(), 4, 0, origin)
    np.testing.assert_array_equal(after.integers, before.integers)
    np.testing.assert_allclose(after.scale, scale, rtol=4 * FLOAT32)
    # The mean's or beta's rounding; means of some units pass through gains of some units.
    np.testing.assert_allclose(after.bias, offset, atol=100 * FLOAT32)


def test_slopes_are_scales_that_are_adopted_up_to_1(flavor):
    slope = make_slopes(flavor, [0.25, -0.5, 0.0, 1.0, 0.125])
    before = fold(np.ones((1, 1, 1, CHANNELS), np.int8), 2, -1, Origin(np.ones(5), slope=slope))
    np.testing.assert_array_equal(before.integers[0, 0, 0], [1, -1, 0, 1, 1])
    np.testing.assert_array_equal(before.scale, [0.25, 0.5, 1.0, 1.0, 0.125])
    adopt(before, before.scale * [1.01, 0.9, 1.0, 1.25, 1.0], before.bias)
    expected = np.float32([0.2525, -0.45, 0.0, 1.0, 0.125])
    np.testing.assert_array_equal(slope.numpy().reshape(-1), expected)


def test_a_slope_that_channels_share_is_adopted_for_all(flavor):
    slope = make_slopes(flavor, [0.25])
    before = fold(np.ones((1, 1, 1, CHANNELS), np.int8), 2, -1, Origin(np.ones(5), slope=slope))
    np.testing.assert_array_equal(before.scale, np.full(CHANNELS, 0.25))
    adopt(before, before.scale * 1.5, before.bias)
    assert slope.numpy().item() == 0.375


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_channels_that_do_not_move_keep_their_variables_to_the_bit(flavor, options):
    norm = make_norm(flavor, **options)
    folded = fold(integers(), 4, 0, Origin(STEP, batch_norm=norm))
    before = [variable.numpy() for variable in norm.weights]
    moved = np.array([False, True, False, True, False])
    adopt(folded, np.where(moved, folded.scale * 1.1, folded.scale), folded.bias)
    for old, variable in zip(before, norm.weights, strict=True):
        np.testing.assert_array_equal(variable.numpy()[~moved], old[~moved])
    assert any(
        (v.numpy()[moved] != o[moved]).all() for o, v in zip(before, norm.weights, strict=True)
    )


def test_without_a_norm_the_bias_is_adopted(flavor):
    bias = make_bias(flavor)
    before = bias.numpy()
    folded = fold(integers(), 4, 0, Origin(STEP, bias=bias))
    adopt(folded, folded.scale, folded.bias + [0, 0.25, 0, 0, 0])
    np.testing.assert_array_equal(bias.numpy(), before + np.float32([0, 0.25, 0, 0, 0]))


WEIGHT_RULES = [
    *((bits, rule) for bits in (2, 3, 4, 8) for rule in ("mean", "max")),
    *((bits, f"{rule}_per_channel") for bits in (2, 3, 4, 8) for rule in ("mean", "max")),
    (1, "mean"),
    (1, "none"),
    (1, "mean_per_channel"),
]


@pytest.mark.parametrize(("bits", "rule"), WEIGHT_RULES)
@pytest.mark.parametrize("kind", ["Dense", "Conv2DTranspose"])
def test_weights_scaled_by_a_factor_keep_their_integers(flavor, kind, bits, rule):
    if kind == "Dense":
        layer, shape, axis = flavor.layers.Dense(6), (None, 40), -1
    else:
        layer, shape, axis = flavor.layers.Conv2DTranspose(6, 3), (None, 4, 4, 5), -2
    layer.build(shape)
    quantizer = WRPNWeightQuantizer(bits, rule, (axis,))
    kernel = layer.kernel
    before, step = quantizer.to_int(kernel), np.ravel(quantizer.scale(kernel))
    origin = Origin(np.broadcast_to(step, 6).astype(float), (kernel, quantizer), layer.bias)
    assert origin.scale_freedom == ("channel" if rule.endswith("channel") else "layer")
    folded = fold(np.zeros((6, 40), np.int8), bits, 0, origin)
    factors = np.float64(1.03) if len(step) == 1 else np.array([1.03, 0.9, 1.0, 1.2, 0.97, 1.01])
    adopt(folded, folded.scale * factors, folded.bias)
    np.testing.assert_array_equal(quantizer.to_int(kernel), before)
    # A mean of 40 or more float32: each rounds, and so does the sum of them.
    np.testing.assert_allclose(np.ravel(quantizer.scale(kernel)), step * factors, rtol=2e-6)


@pytest.mark.parametrize("rule", ["none", "initializer", 0.7])
def test_a_step_that_does_not_follow_the_weights_is_fixed(flavor, rule):
    origin = Origin(STEP, ("kernel", WRPNWeightQuantizer(2, rule)))
    assert origin.scale_freedom == "none"


def test_a_model_computes_what_its_folded_kernel_says(flavor):
    """The whole way: a layer, its norm and its ReLU, against the folded integers."""
    L = flavor.layers
    model = chain(flavor, L.Conv2D(5, 3, name="conv"), L.BatchNormalization(), L.ReLU())
    randomize(model)
    model = quantize_model(model, first_layer=4, last_layer=4)
    images = make_images(model)
    calibrate(model, images, verbose=False)
    folded = fold_model(model)
    (operation,) = folded.operations
    source, output = (folded.tensors[name] for name in (operation.inputs[0], operation.output))
    levels = np.clip(np.floor(images / source.scale + 0.5), source.low, source.high)
    windows = np.lib.stride_tricks.sliding_window_view(levels, (3, 3), (1, 2))
    sums = np.einsum("nyxcij,oijc->nyxo", windows, operation.kernel.integers.astype(float))
    real = operation.kernel.scale * float(source.scale) * sums + operation.kernel.bias
    wanted = np.clip(np.floor(real / float(output.scale) + 0.5), output.low, output.high)
    got = np.asarray(model(images)) / output.scale
    # Keras computes in float32, and may miss a threshold by an ulp: by one level, and rarely.
    assert np.abs(got - wanted).max() < 1.01
    assert (np.abs(got - wanted) > 0.01).mean() < 1e-3
