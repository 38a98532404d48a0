"""The requantization unit: half up, clamped, per channel, against exact fractions."""

from __future__ import annotations

import fractions
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf.accelerator import Requantizer, requantize


@pytest.mark.parametrize(
    ("accumulator", "scale", "offset", "level"),
    [
        (1, 0.5, 0.0, 1),  # ties go up
        (-1, 0.5, 0.0, 0),
        (3, 0.5, 0.0, 2),
        (-3, 0.5, 0.0, -1),
        (-5, 0.5, 0.0, -2),
        (1, 0.25, 0.25, 1),
        (1, 0.25, 0.25 - 2**-50, 0),
        (10, -0.25, 0.0, -2),
        (10, -0.25, 1e300, 7),
        (0, 1.0, 0.0, 0),
        (7, 1.0, 0.49, 7),
        (8, 1.0, 0.0, 7),
        (2**31 - 1, 1.0, 0.0, 7),
        (-8, 1.0, 0.0, -8),
        (-9, 1.0, 0.0, -8),
        (-(2**31), 1.0, 0.0, -8),
    ],
)
def test_levels(accumulator, scale, offset, level):
    assert requantize(np.array(accumulator), scale, offset, -8, 7) == level


def test_each_channel_has_its_own_scale_and_offset():
    accumulators = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    levels = requantize(accumulators, [1.0, 0.5, -1.0], [0.0, 0.25, 9.0], 0, 5)
    assert levels.dtype == np.int32
    np.testing.assert_array_equal(levels, [[1, 1, 5], [4, 3, 3]])


def test_one_scale_with_an_offset_for_each_channel():
    levels = requantize(np.array([[10, 20]]), 0.1, [1.0, 2.0], 0, 255)
    np.testing.assert_array_equal(levels, [[2, 4]])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    accumulator=st.integers(-(2**20), 2**20),
    numerator=st.integers(-1023, 1023),
    offset=st.integers(-1000, 1000),
)
def test_exact_where_float64_holds_all(accumulator, numerator, offset):
    """Scales and offsets of few bits: nothing is lost, so that the rule holds to the last tie."""
    scale, shift = fractions.Fraction(numerator, 2**12), fractions.Fraction(offset, 8)
    expected = math.floor(accumulator * scale + shift + fractions.Fraction(1, 2))
    level = requantize(np.array([accumulator]), float(scale), float(shift), -128, 127)
    assert level.item() == min(max(expected, -128), 127)


def test_unit_keeps_its_settings():
    unit = Requantizer([0.5], 1, 0, 3)
    np.testing.assert_array_equal(unit(np.array([[2], [9]])), [[2], [3]])
    with pytest.raises(ValueError, match="read-only"):
        unit.scale[0] = 2.0


def test_later_changes_of_an_array_do_not_reach_the_unit():
    scale = np.array([1.0])
    unit = Requantizer(scale, 0.0, 0, 9)
    scale[0] = 2.0
    assert unit(np.array([3])).item() == 3


@pytest.mark.parametrize("name", ["scale", "offset"])
@pytest.mark.parametrize("value", [np.nan, np.inf, [[1.0]]])
def test_setting_that_is_no_finite_number_is_refused(name, value):
    arguments = {"scale": 1.0, "offset": 0.0} | {name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be one finite number or one for each"):
        requantize(np.array([1]), **arguments, low=0, high=1)


def test_wrong_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"`scale` has 2 channels, .* shape \(4, 3\)"):
        requantize(np.zeros((4, 3), np.int32), [1.0, 2.0], 0.0, 0, 1)


def test_empty_range_is_refused():
    with pytest.raises(ValueError, match="`low` must be in .*..1, got 2"):
        Requantizer(1.0, 0.0, 2, 1)


def test_level_that_is_no_int_is_refused():
    with pytest.raises(TypeError, match="`high` must be an int, got float 2.5"):
        Requantizer(1.0, 0.0, 0, 2.5)


def test_accumulators_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="`accumulators` must hold integers, got float64"):
        requantize(np.array([1.0]), 1.0, 0.0, 0, 1)
