"""Thresholds from data: the target is met on the images, and training moves towards it."""

from __future__ import annotations

import numpy as np
import pytest

import wrpn_tf
from wrpn_tf import RegionPrecision, apply_regions, calibrate_regions
from wrpn_tf.quantization import region_maps
from wrpn_tf.quantization.region_reading import region_layers


@pytest.fixture(scope="module")
def images():
    """Noise whose strength grows from left to right and from image to image."""
    strength = np.linspace(0.02, 1, 24)[:, None, None, None] * np.linspace(0.1, 1, 16)[:, None]
    noise = np.random.default_rng(0).uniform(size=(24, 16, 16, 3))
    return (0.5 + strength * (noise - 0.5)).astype(np.float32)


@pytest.fixture
def make_model(flavor, images):
    """Returns a function: bits and target -> a calibrated net with regions."""
    L = flavor.layers

    def make(bits, **settings):
        inputs = x = L.Input((16, 16, 3))
        for strides in (1, 1, 2):
            x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, strides, padding="same")(x)))
        x = L.Dense(2)(L.GlobalAveragePooling2D()(x))
        model = wrpn_tf.quantize_model(flavor.keras.Model(inputs, x))
        wrpn_tf.calibrate(model, images, verbose=False)
        settings = {"metric": "gradient", **settings}
        return apply_regions(model, RegionPrecision(bits=bits, value_range=(0, 1), **settings))

    return make


@pytest.mark.parametrize(("bits", "target"), [((8, 4), 6.0), ((8, 4, 0), 3.5)])
def test_the_target_is_reached_on_the_images(make_model, images, bits, target):
    model = make_model(bits, target_bits=target)
    before = np.asarray(region_maps(model)(images)["mean_bits"])
    np.testing.assert_allclose(before, before[0], rtol=1e-6)  # everything is important yet
    reached = calibrate_regions(model, images, verbose=False)
    mean_bits = np.asarray(region_maps(model)(images)["mean_bits"])
    assert reached == pytest.approx(mean_bits.mean(), rel=1e-6)
    # One tile more or less of one image's 16 is 1/400 of all; three resolutions see it.
    assert reached == pytest.approx(target, abs=0.1)
    assert mean_bits.std() > 0.1  # images differ: that is the point


def test_training_moves_the_thresholds_to_the_target(flavor, make_model, images):
    model = make_model((8, 4), target_bits=6.0)
    _, layer = region_layers(model)
    model.compile(flavor.keras.optimizers.SGD(1e-3), "mse")
    assert np.asarray(layer.thresholds) == -np.inf
    model.fit(images, np.ones((24, 2)), batch_size=24, epochs=30, verbose=0)
    mean_bits = np.asarray(region_maps(model)(images)["mean_bits"])
    assert mean_bits.mean() == pytest.approx(6.0, abs=0.15)
    thresholds = np.asarray(layer.thresholds)
    model.evaluate(images, np.ones((24, 2)), verbose=0)
    model.predict(images, verbose=0)
    np.testing.assert_array_equal(layer.thresholds, thresholds)


def test_a_target_that_is_missed_is_said(make_model, images):
    # All of the inside has the same importance.
    model = make_model((8, 4), metric="border_crop", target_bits=5.6)
    with pytest.warns(UserWarning, match=r"nearest to `target_bits` = 5.6 .* is \d\.\d\d"):
        assert calibrate_regions(model, images, verbose=False) > 6


def test_models_without_a_target_are_refused(make_model, images):
    with pytest.raises(
        ValueError, match="`model` must have regions with `target_bits`, got .*kept"
    ):
        calibrate_regions(make_model((8, 4)), images, verbose=False)
    plain = wrpn_tf.drop_regions(make_model((8, 4)))
    with pytest.raises(ValueError, match="`model` must have regions, got"):
        calibrate_regions(plain, images, verbose=False)
    with pytest.raises(ValueError, match="`dataset` must hold at least one batch"):
        calibrate_regions(make_model((8, 4), target_bits=6.0), iter(()), verbose=False)
    with pytest.raises(ValueError, match="`dataset` must give inputs of shape"):
        calibrate_regions(make_model((8, 4), target_bits=6.0), images[..., :1], verbose=False)
