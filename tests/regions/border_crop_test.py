"""Border cropping: the paper's strips, and strips by the gradient."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from wrpn_tf.regions.border_crop import SIDES, BorderCrop, all_crops, border_strips
from wrpn_tf.regions.metrics import deserialize_metric, serialize_metric


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_there_are_16_different_crops():
    assert len(set(all_crops())) == 16
    assert all_crops()[0] == ()
    assert all_crops()[-1] == SIDES == ("top", "bottom", "left", "right")


@pytest.mark.parametrize(
    ("size", "width"), [(224, 25), (32, 4), (28, 3), (33, 4), (112, 13), (5, 1)]
)
def test_strips_are_25_of_224_pixels_rounded_halves_up(size, width):
    top, bottom, left, right = border_strips(size, 64, 25 / 224)
    assert top[:width].all()
    assert not top[width:].any()
    np.testing.assert_array_equal(bottom, top[::-1])
    np.testing.assert_array_equal(border_strips(64, size, 25 / 224)[2], top.T)
    np.testing.assert_array_equal(border_strips(64, size, 25 / 224)[3], bottom.T)
    assert left.shape == right.shape == (size, 64)


@pytest.mark.parametrize("sides", all_crops())
def test_a_crop_is_unimportant_in_its_strips_only(sides):
    importance = array(BorderCrop(sides, fraction=0.25)(np.zeros((3, 8, 12, 3), "float32")))
    expected = np.ones((8, 12), "float32")
    if "top" in sides:
        expected[:2] = 0
    if "bottom" in sides:
        expected[6:] = 0
    if "left" in sides:
        expected[:, :3] = 0
    if "right" in sides:
        expected[:, 9:] = 0
    np.testing.assert_array_equal(importance, np.broadcast_to(expected, (3, 8, 12)))


def test_a_strip_by_its_gradient_is_compared_with_its_image():
    images = np.random.default_rng(0).random((4, 20, 30, 3)).astype("float32")
    images[:, :6] *= np.array([0.0, 0.1, 0.5, 1.0]).reshape(4, 1, 1, 1)
    importance = array(BorderCrop(fraction=0.1)(images))
    squares = [np.square(np.gradient(images.astype(float), axis=axis)).sum(-1) for axis in (1, 2)]
    gradient = np.sqrt(sum(squares))
    top, bottom = gradient[:, :2].mean((1, 2)), gradient[:, -2:].mean((1, 2))
    left, right = gradient[:, :, :3].mean((1, 2)), gradient[:, :, -3:].mean((1, 2))
    strips = np.stack([top, bottom, left, right]) / gradient.mean((1, 2))
    strips = strips / (1 + strips)
    expected = np.ones((4, 20, 30))
    for strip, index in zip(
        strips,
        [np.s_[:, :2], np.s_[:, -2:], np.s_[:, :, :3], np.s_[:, :, -3:]],
        strict=True,
    ):
        expected[index] = np.minimum(expected[index], strip[:, None, None])
    # Means of 600 float32 values of about 0.5, a ratio below 1.
    np.testing.assert_allclose(importance, expected, rtol=0, atol=1e-6)
    assert importance[0, 0, 15] == 0.0  # No gradient in the first image's top.


def test_the_interior_is_the_most_important_however_busy_the_border():
    images = np.zeros((1, 40, 40, 1), "float32")
    images[0, ::2, :2] = 1.0
    importance = array(BorderCrop()(images))[0]
    assert importance[5:-5, 5:-5].min() == 1.0
    assert 0.5 < importance[20, 0] < 1.0
    assert importance[0, 0] == importance[0, 20] < importance[20, 0]  # The smaller of two strips.


def test_strips_of_a_constant_image_are_as_busy_as_the_image():
    importance = array(BorderCrop()(np.full((1, 32, 32, 3), 0.7, "float32")))
    np.testing.assert_array_equal(np.unique(importance), [0.5, 1.0])


@pytest.mark.parametrize("sides", ["auto", (), ["right", "top"]])
def test_sides_are_kept_in_one_order(sides):
    metric = BorderCrop(sides)
    assert metric.sides == ("auto" if sides == "auto" else tuple(s for s in SIDES if s in sides))
    assert deserialize_metric(json.loads(json.dumps(serialize_metric(metric)))) == metric


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BorderCrop("top"), "`sides` must be .* got 'top'"),
        (lambda: BorderCrop(("up",)), r"`sides` must be .* got \('up',\)"),
        (lambda: BorderCrop(("top", "top")), "each at most once"),
        (lambda: BorderCrop(fraction=0.5), r"`fraction` must be in \(0, 0.5\), got 0.5"),
        (lambda: BorderCrop()(np.zeros((1, 4, 9, 1))), "0 of 4 positions in images of 4 x 9"),
        (lambda: BorderCrop(fraction=0.49)(np.zeros((1, 9, 4, 1))), "2 of 4 positions"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
