"""Scales at which products and functions of single values are exact, searched and checked."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_export.integer_model import Tensor
from tflite_export.snapping_function import check_product, check_values, snap_product, snap_values

GRIDS = ((0, 255), (-128, 127), (0, 15), (-8, 7), (0, 3), (0, 1), (-3, 12))
grids = st.sampled_from(GRIDS)
scales = st.floats(1e-4, 10.0)


def made(scale, grid):
    return Tensor("t", (1,), np.float32(scale), *grid)


def levels(real, low, high):
    return np.clip(np.floor(real + 0.5), low, high)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scales, scales, grids, grids, grids, st.floats(0.5, 1.5))
def test_products_are_exact_near_any_scales(first_scale, second_scale, first, second, grid, part):
    """The output's range holds about the largest product, as one that saw data does."""
    a, b = made(first_scale, first), made(second_scale, second)
    reach = max(-first[0], first[1]) * max(-second[0], second[1])
    scale = float(a.scale) * float(b.scale) * reach * part / max(-grid[0], grid[1])
    output = made(scale, grid)
    found = snap_product(a, b, output, low=grid[0], largest=math.inf)
    assert abs(found / output.scale - 1) < 0.02
    snapped = made(found, grid)
    check = check_product(a, b, snapped, low=grid[0])
    assert check.is_safe
    assert snap_product(a, b, snapped, low=grid[0], largest=math.inf) == found
    # Keras multiplies the real values in float32, and divides by the scale.
    x = np.arange(first[0], first[1] + 1).astype(np.float32)[:, None] * a.scale
    z = np.arange(second[0], second[1] + 1).astype(np.float32) * b.scale
    real = np.outer(np.arange(first[0], first[1] + 1), np.arange(second[0], second[1] + 1))
    real = real * (np.float64(a.scale) * np.float64(b.scale) / np.float64(found))
    assert check.margin == pytest.approx(distance(real, *grid))
    np.testing.assert_array_equal(levels(x * z / found, *grid), levels(real, *grid))


def distance(real, low, high):
    """To the nearest threshold between two levels of a grid."""
    thresholds = np.arange(low, high) + 0.5
    return np.abs(real.reshape(-1, 1) - thresholds).min()


def test_a_tie_is_not_exact():
    one, half = made(1.0, (0, 15)), made(0.5, (0, 15))
    check = check_product(one, half, one, low=0)
    assert (check.kind, check.exact, check.margin, check.is_safe) == ("product", False, 0.0, False)
    # Of levels that a ReLU makes 0 no threshold is near.
    signed = made(1.0, (-8, 0))
    assert check_product(signed, half, one, low=0).margin == 0.5


def test_the_largest_scale_is_kept():
    a, b = made(0.1, (0, 255)), made(1 / 255, (0, 255))
    output = made(0.1, (0, 255))
    assert snap_product(a, b, output, low=0, largest=0.1) <= output.scale
    values = np.arange(256) / 2
    output = made(1.0, (0, 255))
    assert snap_values(values, output, low=0, largest=1.0) < output.scale


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scales, grids, grids, st.integers(0, 2**32 - 1))
def test_values_are_rounded_alike_near_any_scale(scale, source, grid, seed):
    count = source[1] - source[0] + 1
    output = made(scale, grid)
    values = np.random.default_rng(seed).normal(0, max(-grid[0], grid[1]) / 3, count) * scale
    found = snap_values(values, output, low=grid[0], largest=math.inf)
    assert abs(found / output.scale - 1) < 0.0101
    snapped = made(found, grid)
    assert check_values(values, snapped, low=grid[0]).is_safe
    assert snap_values(values, snapped, low=grid[0], largest=math.inf) == found
    in_float32 = values.astype(np.float32) / found
    np.testing.assert_array_equal(
        levels(in_float32, *grid), levels(values / np.float64(found), *grid)
    )


def test_ties_of_a_slope_are_moved_away_from():
    """LeakyReLU(0.5) on the input's own scale: every odd negative level is a tie."""
    values = np.where(np.arange(-128, 128) < 0, 0.5, 1.0) * np.arange(-128, 128)
    output = made(1.0, (-128, 127))
    assert not check_values(values, output, low=-128).exact
    found = snap_values(values, output, low=-128, largest=math.inf)
    assert 0 < abs(found - 1) < 0.0101
    assert check_values(values, made(found, (-128, 127)), low=-128).exact
