"""The metrics against scikit-image and NumPy, on images of many sizes; and what they refuse."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.ndimage
import skimage.feature
import skimage.filters.rank

from wrpn_tf.regions.center import Center, center_nearness
from wrpn_tf.regions.entropy import Entropy, grey_bins
from wrpn_tf.regions.gradient import ColorGradient
from wrpn_tf.regions.image_values import grey_values, scale_images
from wrpn_tf.regions.metrics import (
    METRICS,
    Combined,
    deserialize_metric,
    get_metric,
    serialize_metric,
    z_scores,
)
from wrpn_tf.regions.points_of_interest import PointsOfInterest, shi_tomasi_response
from wrpn_tf.regions.tiles import exact_parts

# height, width, channels
SIZES = [(28, 28, 1), (32, 32, 3), (33, 47, 3), (224, 224, 3)]
LUMA = np.array([0.299, 0.587, 0.114])


def colors(height, width, channels=3, batch=2):
    """8-bit images with flat and busy parts."""
    generator = np.random.default_rng(height * width)
    noise = generator.integers(0, 256, (batch, height, width, channels))
    smooth = scipy.ndimage.gaussian_filter(noise.astype(float), (0, 3, 3, 0))
    half = np.arange(width)[None, None, :, None] < width // 2
    return np.where(half, noise, smooth).astype(np.uint8)


def scaled(images):
    return scale_images(images, (0, 255))


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def bins_of(images, bins):
    """The histogram's bins, in whole numbers."""
    if images.shape[-1] == 3:
        return np.minimum(images.astype(int) @ [299, 587, 114] * bins // 255000, bins - 1)
    return np.minimum(images.astype(int).sum(-1) * bins // (255 * images.shape[-1]), bins - 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "window"), [(1, 9), (4, 9), (5, 5), (3, 21)])
def test_entropy_is_that_of_scikit_image_at_the_tiles_centres(size, tile, window):
    images = colors(*size)
    entropy = array(Entropy(window=window, tile=tile)(scaled(images)))
    for image, computed in zip(bins_of(images, 16).astype(np.uint8), entropy, strict=True):
        expected = skimage.filters.rank.entropy(image, np.ones((window, window)))
        centres = expected[tile // 2 :: tile, tile // 2 :: tile]
        rows, columns = centres.shape
        # 17 counts, each rounded by half of 2^-22 of N log2 N at most; and float32's division.
        np.testing.assert_allclose(computed[:rows, :columns], centres, rtol=0, atol=3e-5)


@pytest.mark.parametrize("bins", [2, 4, 8, 16, 32])
def test_8_bit_colors_are_binned_as_whole_numbers(bins):
    random = np.random.default_rng(bins).integers(0, 256, (20000, 3))
    on_edges = np.stack(np.mgrid[0:256:5, 0:256:5, 0:256:5], -1).reshape(-1, 3)
    on_edges = on_edges[on_edges @ [299, 587, 114] * bins % 255000 == 0]
    assert len(on_edges) > 2  # More than black and white.
    pixels = np.concatenate([random, on_edges])[None, None].astype(np.uint8)
    np.testing.assert_array_equal(array(grey_bins(scaled(pixels), bins)), bins_of(pixels, bins))


def test_a_window_larger_than_the_image_sees_all_of_it():
    images = colors(28, 28, batch=1)
    shares = np.bincount(bins_of(images, 16).ravel()) / (28 * 28)
    expected = -sum(share * math.log2(share) for share in shares if share)
    # As above; log2 N is 9.6.
    np.testing.assert_allclose(array(Entropy(window=57)(scaled(images))), expected, rtol=3e-5)


def test_entropy_of_a_constant_image_is_exactly_zero():
    for value in (0.0, 0.1, 0.5, 1.0):
        assert not array(Entropy()(np.full((2, 30, 30, 3), value, "float32"))).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("tile", "window"), [(1, 1), (4, 9)])
def test_gradient_is_the_windows_mean_of_numpys(size, tile, window):
    images = colors(*size).astype(float) / 255
    squares = [np.square(np.gradient(images, axis=axis)).sum(-1) for axis in (1, 2)]
    magnitude = np.sqrt(sum(squares))
    expected = np.zeros((len(images), math.ceil(size[0] / tile), math.ceil(size[1] / tile)))
    for row, column in np.ndindex(expected.shape[1:]):
        centre = np.array([row, column]) * tile + tile // 2
        (top, left), (bottom, right) = np.maximum(centre - window // 2, 0), centre + window // 2 + 1
        expected[:, row, column] = magnitude[:, top:bottom, left:right].mean((1, 2))
    # Differences of values below 1 in float32 err by a few 6e-8.
    np.testing.assert_allclose(
        array(ColorGradient(window, tile)(scaled(images * 255))), expected, rtol=0, atol=5e-7
    )


@pytest.mark.parametrize("size", SIZES)
def test_corner_response_is_that_of_scikit_image(size):
    images = colors(*size)
    grey = (images @ LUMA if size[2] == 3 else images[..., 0]) / 255
    response = array(shi_tomasi_response(scaled(images), 1.5))
    for image, computed in zip(grey, response, strict=True):
        tensor = skimage.feature.structure_tensor(image, 1.5, mode="nearest", order="rc")
        expected = skimage.feature.structure_tensor_eigenvalues(tensor)[1]
        # Float32's 6e-8 of the larger eigenvalue, which is at most 2 * 4^2.
        np.testing.assert_allclose(computed, expected, rtol=0, atol=1e-5)
        interior = slice(7, -7)  # Out of reach of the border: 4 sigma, and 1 for the derivative.
        np.testing.assert_allclose(
            computed[interior, interior],
            skimage.feature.corner_shi_tomasi(image, 1.5)[interior, interior],
            rtol=0,
            atol=1e-5,
        )


def test_points_of_interest_are_each_tiles_largest_corner_response():
    images = scaled(colors(33, 47))
    response = array(shi_tomasi_response(images))
    interest = array(PointsOfInterest(tile=5)(images))
    assert interest.shape == (2, 7, 10)
    for row, column in np.ndindex(7, 10):
        tile = response[:, row * 5 : row * 5 + 5, column * 5 : column * 5 + 5]
        np.testing.assert_array_equal(interest[:, row, column], tile.max((1, 2)))


def test_a_corner_is_more_interesting_than_an_edge():
    image = np.zeros((1, 32, 32, 1), "float32")
    image[0, 9:, 9:] = 1.0
    interest = array(PointsOfInterest()(image))[0]
    assert interest.argmax() == 2 * 8 + 2  # The tile of the corner at 9, 9.
    assert interest[2, 6] < 1e-6 < interest[2, 2]


def test_center_falls_from_the_middle_to_the_corners():
    nearness = center_nearness(33, 47, 1)
    assert nearness[16, 23] == 1.0
    assert nearness[0, 0] == nearness[-1, -1] == 0.0
    assert (np.diff(nearness[:17], axis=0) > 0).all()
    # Tiles 0..3, 4..7, 8 of 9 pixels: their middles are 2.5, -1.5 and -4 of at most 4 away.
    expected = 1 - np.abs(np.array([1.5, 5.5, 8]) - 4) / 4 / math.sqrt(2)
    np.testing.assert_allclose(center_nearness(9, 1, 4)[:, 0], expected, rtol=1e-6)


def test_z_scores_are_of_each_map_by_itself():
    maps = np.random.default_rng(0).normal(5, 2, (3, 8, 9)).astype("float32")
    maps[1] = 0.1  # Not a float32 number: its mean errs.
    maps[2] *= 1e30  # Its square is beyond float32.
    scores = array(z_scores(maps))
    deviations = np.array([maps[0].std(), 1, maps[2].astype(float).std()])[:, None, None]
    expected = (maps - maps.mean((1, 2), keepdims=True, dtype=float)) / deviations
    expected[1] = 0.0
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)  # Float32 sums of 72 values.
    assert not scores[1].any()


def test_combined_adds_weighted_z_scores_on_the_finest_tiles():
    images = scaled(colors(33, 47))
    fine, coarse = Entropy(tile=2), PointsOfInterest(tile=6)
    combined = Combined([fine, coarse], [1.0, -0.5])
    assert combined.tile == 2
    repeated = array(z_scores(coarse(images))).repeat(3, 1).repeat(3, 2)[:, :17, :24]
    np.testing.assert_allclose(
        array(combined(images)), array(z_scores(fine(images))) - 0.5 * repeated, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_grey_is_luma_of_three_channels_and_the_mean_of_others(channels):
    images = colors(28, 28, channels=channels)
    weights = LUMA if channels == 3 else np.full(channels, 1 / channels)
    np.testing.assert_allclose(
        array(grey_values(scaled(images))), images @ weights / 255, rtol=0, atol=3e-7
    )


@pytest.mark.parametrize(
    ("dtype", "value_range", "offset", "factor"),
    [
        ("uint8", (0, 255), 0, 255),
        ("int16", (-255, 0), -255, 255),
        ("float32", (-1.0, 1.0), -1, 2),
        ("float64", "auto", -123.5, 7.25),
    ],
)
def test_images_of_any_range_are_scaled_to_0_to_1(dtype, value_range, offset, factor):
    wanted = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3)) / 255
    wanted[:, 0, 0, 0], wanted[:, 0, 0, 1] = 0, 1
    images = (wanted * factor + offset).astype(dtype)
    if np.issubdtype(dtype, np.integer):
        images = np.round(wanted * factor + offset).astype(dtype)
    scaled_images = scale_images(images, value_range)
    assert keras.backend.standardize_dtype(scaled_images.dtype) == "float32"
    # Values of up to 130 in float32 err by 8e-6; a range of 7.25 makes 2e-6 of that, twice.
    np.testing.assert_allclose(array(scaled_images), wanted, rtol=0, atol=4e-6)


def test_values_beyond_the_range_are_clipped():
    scaled_images = scale_images(np.array([-5.0, 0.5, 7.0]).reshape(1, 1, 3, 1), (0.0, 1.0))
    np.testing.assert_array_equal(array(scaled_images).ravel(), [0.0, 0.5, 1.0])


def test_auto_scales_each_image_by_itself():
    images = colors(28, 28).astype("float32")
    images[1] = 0.7
    scaled_images = array(scale_images(images, "auto"))
    np.testing.assert_array_equal(scaled_images[:1], array(scale_images(images[:1], "auto")))
    assert scaled_images[0].min() == 0.0
    assert scaled_images[0].max() == 1.0
    assert not scaled_images[1].any()


@pytest.mark.parametrize("size", [(8, 9), (24, 24), (32, 32), (45, 38)])
@pytest.mark.parametrize("name", METRICS)
def test_a_map_does_not_depend_on_the_rest_of_the_batch(name, size):
    import tensorflow as tf

    height, width = size
    images = scaled(colors(height, width, batch=9))
    metric = get_metric(name)
    importance = array(metric(images))
    assert importance.dtype == np.float32
    assert importance.shape == (9, math.ceil(height / metric.tile), math.ceil(width / metric.tile))
    compiled = tf.function(metric, input_signature=[tf.TensorSpec((None, height, width, 3))])
    assert compiled.get_concrete_function().output_shapes[1:] == importance.shape[1:]
    np.testing.assert_array_equal(array(compiled(images)), importance)
    for index in range(9):
        alone = array(metric(images[index : index + 1]))
        np.testing.assert_array_equal(alone[0], importance[index])


@pytest.mark.parametrize("pixels", [1, 81, 1000, 50176])
def test_float32_holds_the_sums_of_exact_parts(pixels):
    values = np.random.default_rng(pixels).uniform(0, 2.4, pixels).astype(np.float32)
    parts = [array(part) for part in exact_parts(values, 2.4, pixels)]
    for part in parts:
        assert part.astype(np.float64).sum() == np.cumsum(part, dtype=np.float32)[-1]
    # The finer part is rounded: by half of its step, which is 2^-23 of a sum of coarse steps.
    coarse_step = 2.0 ** (np.ceil(np.log2(2.4 * pixels)) - 23)
    atol = 2.0 ** (np.ceil(np.log2(coarse_step * pixels)) - 24)
    np.testing.assert_allclose(parts[0].astype(np.float64) + parts[1], values, rtol=0, atol=atol)


ON_JAX = """
import sys
import jax, keras, numpy as np
from wrpn_tf.regions.metrics import METRICS, get_metric
assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
expected = np.load(sys.argv[1])
for name in METRICS:
    importance = jax.jit(get_metric(name))(expected["images"])
    # Sums in another order: float32's 6e-8 of values up to 32, and z-scores' of a mean of 3.
    np.testing.assert_allclose(importance, expected[name], rtol=0, atol=2e-5, err_msg=name)
    assert name != "entropy" or (importance == expected[name]).all()
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed.")
def test_maps_under_jax_are_those_under_tensorflow(tmp_path):
    images = scaled(colors(33, 47))
    maps = {name: array(get_metric(name)(images)) for name in METRICS}
    np.savez(tmp_path / "maps.npz", images=array(images), **maps)
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, tmp_path / "maps.npz"],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_maps_of_constant_images_are_finite(name, value):
    assert np.isfinite(get_metric(name)(np.full((1, 29, 31, 1), value, "float32"))).all()


@pytest.mark.parametrize(
    "metric",
    [
        *(metric_class() for metric_class in METRICS.values()),
        Entropy(bins=8, window=5, tile=2),
        Combined([ColorGradient(tile=2), Combined(["center"])], [2.0, -1.0]),
    ],
)
def test_a_metric_is_its_configuration(metric):
    saved = json.loads(json.dumps(serialize_metric(metric)))
    assert deserialize_metric(saved) == metric
    assert hash(deserialize_metric(saved)) == hash(metric)


def test_a_callable_is_a_metric():
    def brightness(images):
        return images[..., 0]

    assert get_metric(brightness) is brightness
    assert get_metric("entropy") == Entropy()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: get_metric("edges"), "must be one of 'entropy', 'gradient', .*got 'edges'"),
        (lambda: get_metric(3), "got 3"),
        (lambda: serialize_metric(len), "one of Entropy, .*got <built-in"),
        (lambda: deserialize_metric({"metric": "edges"}), "got 'edges'"),
        (lambda: Entropy(bins=1), "`bins` must be a whole number >= 2, got 1"),
        (lambda: Entropy(bins=16.0), "`bins` must be a whole number >= 2, got 16.0"),
        (lambda: Entropy(tile=0), "`tile` must be a whole number >= 1, got 0"),
        (lambda: Entropy(window=8), "`window` must be an odd whole number .* got 8"),
        (lambda: ColorGradient(window=3, tile=4), ">= `tile` = 4, got 3"),
        (lambda: PointsOfInterest(sigma=0.0), "`sigma` must be > 0 and finite, got 0.0"),
        (lambda: Center(tile=True), "`tile` must be .* got True"),
        (lambda: Combined([]), "`metrics` must be a sequence of metrics, got "),
        (lambda: Combined("entropy"), "`metrics` must be a sequence"),
        (lambda: Combined([len]), "must be metrics of wrpn_tf.regions, got <built-in"),
        (lambda: Combined(["center"], [1.0, 2.0]), "`weights` must be 1 finite numbers"),
        (lambda: Combined(["center"], [math.nan]), "`weights` must be 1 finite numbers"),
        (lambda: Combined([Center(2), Center(3)]), r"2, divides, got \[2, 3\]"),
        (lambda: scale_images(np.zeros((1, 2, 2, 1)), "own"), "`value_range` must .* got 'own'"),
        (lambda: scale_images(np.zeros((1, 2, 2, 1)), 255), r"low < high, got 255"),
        (lambda: scale_images(np.zeros((1, 2, 2, 1)), (1, 1)), r"low < high, got \(1, 1\)"),
        (lambda: scale_images(np.zeros((2, 2, 1)), (0, 1)), r"`images` .*got \(2, 2, 1\)"),
        (lambda: Entropy()(keras.Input((None, 32, 3))), r"known height.*got \(None, None, 32, 3\)"),
        (lambda: Entropy()(colors(28, 28)), r"floats in \[0, 1\], got uint8"),
        (lambda: Center()(np.zeros((1, 8, 8, 0))), r"got \(1, 8, 8, 0\)"),
        (lambda: Center(9)(np.zeros((1, 8, 12, 1))), "tiles of 9 x 9 for images of 8 x 12"),
        (lambda: ColorGradient(1, 1)(np.zeros((1, 1, 5, 1))), "2 x 2 pixels .* got 1 x 5"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
