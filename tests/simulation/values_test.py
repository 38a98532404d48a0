"""Folding and rounding, against the formulas element by element."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.grid import Grid
from wrpn_tf.simulation.values import Joined, Levels, Pending, real, rectified, rounded, scaled

UNSIGNED = Grid(0, 15)
SIGNED = Grid(-8, 7)


def column(*integers):
    return np.array(integers, np.int32)[:, None]


@pytest.mark.parametrize(
    ("halves", "grid", "expected"),
    [
        ([-3, -1, 0, 1, 3, 29, 30, 31, 99], UNSIGNED, [0, 0, 0, 1, 2, 15, 15, 15, 15]),
        ([-99, -17, -16, -15, -3, -1, 1, 3, 13, 15], SIGNED, [-8, -8, -8, -7, -1, 0, 1, 2, 7, 7]),
    ],
)
def test_ties_go_up_and_ends_clamp(halves, grid, expected):
    value = Pending(((column(*halves), 0.5),))
    levels = rounded(value, 1.0, grid)
    assert levels.dtype == np.int32
    np.testing.assert_array_equal(levels[:, 0], expected)


def test_scale_and_offset_are_per_channel():
    accumulators = np.array([[3, 3, 3]], np.int32)
    value = Pending(((accumulators, np.array([1.0, 2.0, -1.0])),), offset=np.array([0.5, -2, 5]))
    np.testing.assert_array_equal(real(value), [[3.5, 4.0, 2.0]])
    np.testing.assert_array_equal(rounded(value, 1.0, UNSIGNED), [[4, 4, 2]])


@pytest.mark.parametrize("count", [6, 9, 49, 98, 100])
@pytest.mark.parametrize("scale", [0.1, 1 / 3, 0.7, 1.0])
def test_a_mean_halfway_between_levels_goes_up(count, scale):
    # An odd multiple of count / 2 is the sum whose mean is a tie; odd counts have none.
    scale = float(np.float32(scale))
    sums = np.arange(15 * count + 1, dtype=np.int32)[:, None]
    expected = (2 * sums + count) // (2 * count)
    levels = rounded(Pending(((sums, scale),), divisor=float(count)), scale, UNSIGNED)
    np.testing.assert_array_equal(levels, expected)


def test_batch_norm_behind_a_relu_moves_its_limits():
    """Negative and zero gammas among them; the expected values follow the layers one by one."""
    rng = np.random.default_rng(0)
    accumulators = rng.integers(-50, 50, (200, 4)).astype(np.int32)
    factor, shift = np.array([0.5, -0.25, 0.0, 1.0]), np.array([1.0, -2.0, 3.0, -4.0])
    value = scaled(rectified(Pending(((accumulators, 0.25),)), 6.0), factor, shift)
    value = rectified(scaled(value, factor, shift), np.inf)
    expected = np.clip(accumulators * 0.25, 0, 6) * factor + shift
    expected = np.maximum(expected * factor + shift, 0)
    np.testing.assert_array_equal(real(value), expected)


def test_an_unlimited_value_times_zero_is_the_shift():
    value = scaled(Pending(((column(5), 1.0),)), np.zeros(1), np.full(1, 2.0))
    np.testing.assert_array_equal(real(value), [[2.0]])


def test_a_sum_is_rounded_once():
    value = Pending(((column(1, 1, 2), 0.25), (column(0, 1, 1), 0.25)))
    np.testing.assert_array_equal(rounded(value, 1.0, UNSIGNED)[:, 0], [0, 1, 1])


def test_joined_parts_are_each_rounded_to_the_common_grid():
    fine = Levels(column(1, 2, 3), 0.5, Grid(0, 255), "fine")
    signed = Levels(column(-1, 4, 99), 1.0, Grid(-128, 127), "signed")
    joined = Joined((fine, Joined((signed, Pending(((column(-9, 9, 2), 0.25),))), 1)), 1)
    np.testing.assert_array_equal(rounded(joined, 1.0, SIGNED), [[1, -1, -2], [1, 4, 2], [2, 7, 1]])
    np.testing.assert_array_equal(
        rounded(rectified(joined, 6.0), 1.0, SIGNED), [[1, 0, 0], [1, 4, 2], [2, 6, 1]]
    )


def test_levels_of_the_same_scale_are_only_clamped():
    levels = Levels(column(-3, 0, 20), float(np.float32(0.1)), Grid(-128, 127), "x")
    np.testing.assert_array_equal(rounded(levels, levels.scale, UNSIGNED)[:, 0], [0, 0, 15])
