"""What cropping saves, against a count of the products that read a strip."""

from __future__ import annotations

import itertools

import pytest

from wrpn_tf.accelerator import ConvolutionShape
from wrpn_tf.analysis.crop_energy import (
    SLIDE_WIDTHS,
    VGG16,
    crop_savings,
    crop_table,
    proportional_widths,
)

NO_PADDING = [
    (9, ConvolutionShape((3, 2), padding="valid", input_channels=2, output_channels=3)),
    (4, ConvolutionShape((1, 1), (2, 2), input_channels=5, output_channels=7)),
]
PRODUCTS = [7 * 8 * 3 * 2 * 2 * 3, 2 * 2 * 5 * 7]


def test_savings_are_the_share_of_products_that_read_a_strip():
    savings = crop_savings(NO_PADDING, {9: 2, 4: 1})
    assert len(savings) == 16
    for sides, saving in savings.items():
        read = [0, 0]
        for y, x, i, j in itertools.product(range(7), range(8), range(3), range(2)):
            read[0] += 2 * 3 * is_cropped(y + i, x + j, 9, 2, sides)
        for y, x in itertools.product((0, 2), (0, 2)):
            read[1] += 5 * 7 * is_cropped(y, x, 4, 1, sides)
        assert saving == pytest.approx(sum(read) / sum(PRODUCTS), rel=1e-14)  # one division


def is_cropped(y, x, size, width, sides):
    inside = {
        "top": y < width,
        "bottom": y >= size - width,
        "left": x < width,
        "right": x >= size - width,
    }
    return any(inside[side] for side in sides)


def test_vgg16_is_that_of_the_paper():
    assert sum(shape.macs(size, size) for size, shape in VGG16) == 15_470_264_320
    parameters = sum(shape.depth * shape.output_channels for _, shape in VGG16)
    biases = sum(shape.output_channels for _, shape in VGG16)
    assert parameters + biases == 138_357_544


def test_widths_are_scaled_to_each_map():
    assert proportional_widths() == {224: 25, 112: 12, 56: 6, 28: 3, 14: 1, 7: 0, 1: 0}
    assert list(SLIDE_WIDTHS.values())[:5] == [25, 10, 8, 5, 2]


@pytest.mark.parametrize("widths", [None, SLIDE_WIDTHS])
def test_opposite_sides_save_what_both_save_and_corners_count_once(widths):
    savings = crop_savings(VGG16, widths)
    one = savings["top",]
    assert savings[()] == 0
    assert [savings[side,] for side in ("bottom", "left", "right")] == [one] * 3
    assert savings["top", "bottom"] == pytest.approx(2 * one, rel=1e-12)
    assert one < savings["top", "left"] < 2 * one
    assert savings["top", "left"] < savings["top", "left", "right"]
    assert max(savings.values()) == savings["top", "bottom", "left", "right"]


def test_the_table_has_both_rules():
    lines = crop_table().splitlines()
    assert len(lines) == 1 + 16
    slides = crop_savings(widths=SLIDE_WIDTHS)
    all_sides = ("top", "bottom", "left", "right")
    shares = [f"{crop[all_sides]:.1%}" for crop in (crop_savings(), slides)]
    assert lines[-1].split() == ["top,", "bottom,", "left,", "right", *shares]


def test_a_map_without_a_width_is_refused():
    with pytest.raises(ValueError, match=r"`widths` must have an entry.*none for \[4\]"):
        crop_savings(NO_PADDING, {9: 2})


@pytest.mark.parametrize("width", [-1, 112])
def test_strips_without_an_interior_are_refused(width):
    with pytest.raises(ValueError, match=r"`width` must be in 0\.\.111, got"):
        proportional_widths(width=width)
