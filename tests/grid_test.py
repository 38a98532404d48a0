"""The grids: every level, every tie, the paper's formulas, and TensorFlow's kernel, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf import grid

BITS = range(1, 9)
_RANGES = np.array([0.0371, 0.1, 1 / 3, 1.0, 1.952, math.pi, 6.0, 1234.5], np.float32)


def with_neighbours(values):
    """The values and the two floats on either side of each."""
    values = np.asarray(values, np.float32)
    infinity = np.float32(np.inf)
    above = np.nextafter(values, infinity)
    below = np.nextafter(values, -infinity)
    return np.concatenate(
        [values, above, below, np.nextafter(above, infinity), np.nextafter(below, -infinity)]
    )


@pytest.mark.parametrize(
    ("num_bits", "low", "high"),
    [(1, -1, 1), (2, -1, 1), (3, -3, 3), (4, -7, 7), (5, -15, 15), (6, -31, 31), (7, -63, 63)]
    + [(8, -127, 127)],
)
def test_integers_of_weights(num_bits, low, high):
    weights = grid.weight_grid(num_bits)
    assert (weights.low, weights.high) == (low, high)


@pytest.mark.parametrize(
    ("num_bits", "low", "high"),
    [(2, -2, 1), (3, -4, 3), (4, -8, 7), (5, -16, 15), (6, -32, 31), (7, -64, 63), (8, -128, 127)],
)
def test_integers_of_signed_activations(num_bits, low, high):
    assert grid.activation_grid(num_bits, signed=True) == grid.Grid(low, high)


def test_signed_activations_have_no_single_bit():
    with pytest.raises(ValueError, match="2..8 for signed values, got 1"):
        grid.activation_grid(1, signed=True)


@pytest.mark.parametrize(
    ("num_bits", "high"),
    [(1, 1), (2, 3), (3, 7), (4, 15), (5, 31), (6, 63), (7, 127), (8, 255)],
)
def test_integers_of_unsigned_activations(num_bits, high):
    assert grid.activation_grid(num_bits) == grid.Grid(0, high)


GRIDS = [grid.weight_grid(k) for k in BITS] + [grid.activation_grid(k) for k in BITS]
GRIDS += [grid.activation_grid(k, signed=True) for k in BITS if k > 1]


@pytest.mark.parametrize("levels", GRIDS, ids=str)
@pytest.mark.parametrize("scale", [1.0, 0.1, 1 / 255, 2.5])
def test_the_whole_grid_is_a_fixed_point(levels, scale):
    integers = np.arange(levels.low, levels.high + 1, dtype=np.int32)
    if isinstance(levels, grid.SignGrid):
        integers = np.array([-1, 1], np.int32)
    np.testing.assert_array_equal(levels.to_int(levels.to_real(integers, scale), scale), integers)


TERNARY = [(-9.0, -1), (-1.0, -1), (-0.75, -1), (-0.5, 0), (-0.25, 0), (0.0, 0), (0.25, 0)]
TERNARY += [(0.5, 1), (0.75, 1), (1.0, 1), (9.0, 1)]
# Each tie, what lies beyond the ends, and both sides of +-1/2.
WEIGHTS_3_BITS = [(-4.0, -3), (-3.0, -3), (-2.5, -2), (-1.5, -1), (-0.5, 0), (0.5, 1), (1.5, 2)]
WEIGHTS_3_BITS += [(2.5, 3), (3.0, 3), (3.5, 3), (0.499999, 0), (-0.500001, -1)]
ACTIVATIONS_2_BITS = [(-0.5, 0), (0.0, 0), (0.5, 1), (1.5, 2), (2.5, 3), (3.0, 3), (3.5, 3)]
SIGNS = [(-2.0, -1), (-1e-30, -1), (-0.0, 1), (0.0, 1), (1e-30, 1), (2.0, 1)]


@pytest.mark.parametrize(
    ("levels", "table"),
    [
        (grid.weight_grid(2), TERNARY),
        (grid.weight_grid(3), WEIGHTS_3_BITS),
        (grid.activation_grid(2), ACTIVATIONS_2_BITS),
        (grid.weight_grid(1), SIGNS),
        (grid.activation_grid(1), [(-1.0, 0), (0.49, 0), (0.5, 1), (1.0, 1), (2.0, 1)]),
    ],
)
def test_ties_go_up_and_values_beyond_the_ends_to_the_ends(levels, table):
    reals, integers = np.array(table).T
    np.testing.assert_array_equal(levels.to_int(reals, 1.0), integers.astype(np.int32))


@pytest.mark.parametrize("num_bits", range(2, 9))
def test_weights_are_rounded_as_in_the_paper(num_bits):
    weights = np.random.default_rng(num_bits).uniform(-1.3, 1.3, 5000).astype(np.float32)
    levels = 2 ** (num_bits - 1) - 1
    expected = np.round(levels * np.clip(weights, -1, 1).astype(np.float64)) / levels
    quantized = grid.weight_grid(num_bits).quantize(weights, 1 / levels)
    np.testing.assert_allclose(quantized, expected, atol=1e-6)  # float32 against float64


@pytest.mark.parametrize("num_bits", BITS)
def test_activations_are_rounded_as_in_the_paper(num_bits):
    activations = np.random.default_rng(num_bits).uniform(-0.3, 1.3, 5000).astype(np.float32)
    levels = 2**num_bits - 1
    expected = np.round(levels * np.clip(activations, 0, 1).astype(np.float64)) / levels
    quantized = grid.activation_grid(num_bits).quantize(activations, 1 / levels)
    np.testing.assert_allclose(quantized, expected, atol=1e-6)  # float32 against float64


def kernel_cases():
    """Grid, the kernel's bits and narrow range, for all that the fused kernel can do."""
    for num_bits in range(2, 9):
        yield pytest.param(grid.weight_grid(num_bits), num_bits, True, id=f"signed{num_bits}")
        yield pytest.param(
            grid.activation_grid(num_bits), num_bits, False, id=f"unsigned{num_bits}"
        )


def assert_is_the_kernels(levels, scale, low, high, values, num_bits, narrow_range):
    kernel = tf.quantization.fake_quant_with_min_max_vars(
        values, low, high, num_bits=num_bits, narrow_range=narrow_range
    ).numpy()
    ours = levels.quantize(values, scale)
    wrong = np.flatnonzero(kernel != ours)
    report = [(values[i], kernel[i], ours[i]) for i in wrong[:5]]
    assert not wrong.size, f"{wrong.size} of {values.size} differ: {report}"


@pytest.mark.parametrize(("levels", "num_bits", "narrow_range"), list(kernel_cases()))
def test_the_grid_is_tensorflows_kernel_to_the_bit(levels, num_bits, narrow_range):
    generator = np.random.default_rng(num_bits)
    ties = np.arange(levels.low, levels.high) + np.float32(0.5)
    ranges = np.concatenate([_RANGES, generator.lognormal(0, 2, 30).astype(np.float32)])
    for largest in ranges:
        scale = largest / np.float32(levels.high)
        special = with_neighbours(np.concatenate([ties * scale, [largest, -largest, 0]]))
        values = np.concatenate([special, generator.normal(0, largest, 200).astype(np.float32)])
        low = -largest if levels.low else np.float32(0)
        assert_is_the_kernels(levels, scale, low, largest, values, num_bits, narrow_range)


@pytest.mark.parametrize("num_bits", range(2, 9))
def test_the_affine_grid_is_tensorflows_kernel_to_the_bit(num_bits):
    generator = np.random.default_rng(num_bits)
    ends = [(-1, 1), (0, 1), (-1, 0), (-0.3, 5), (-100, 1e-3), *generator.lognormal(0, 2, (40, 2))]
    for low, high in ends:
        low, high = -abs(np.float32(low)), np.float32(high)
        levels, scale = grid.affine_grid(num_bits, low, high)
        ties = (np.arange(levels.low, levels.high) + np.float32(0.5)) * scale
        special = with_neighbours(np.concatenate([ties, [low, high, 0, levels.low * scale]]))
        values = np.concatenate([special, generator.normal(0, 1, 200) * (high - low)])
        values = values.astype(np.float32)
        assert_is_the_kernels(levels, scale, low, high, values, num_bits, False)


@settings(max_examples=60, deadline=None)
@given(
    num_bits=st.integers(2, 8),
    largest=st.floats(2**-10, 2**14, width=32),
    values=st.lists(st.floats(-2e4, 2e4, width=32), min_size=1, max_size=20),
)
def test_any_values_and_range_round_as_the_kernel_does(num_bits, largest, values):
    levels = grid.activation_grid(num_bits)
    scale = np.float32(largest) / np.float32(levels.high)
    values = np.array(values, np.float32)
    assert_is_the_kernels(levels, scale, 0.0, largest, values, num_bits, False)


@settings(max_examples=60, deadline=None)
@given(
    num_bits=st.integers(1, 8),
    smallest=st.floats(-1e3, 1e3, width=32),
    largest=st.floats(-1e3, 1e3, width=32),
)
def test_the_affine_grid_covers_its_range_with_zero_among_the_levels(num_bits, smallest, largest):
    smallest, largest = sorted([smallest, largest])
    if max(largest, 0) - min(smallest, 0) < 1e-30:
        return  # no range
    levels, scale = grid.affine_grid(num_bits, smallest, largest)
    assert levels.high - levels.low == 2**num_bits - 1
    assert levels.low <= 0 <= levels.high
    # The zero point is rounded, so either end may be off by half a step (and float32's rounding).
    assert levels.low * scale <= min(smallest, 0) + 0.501 * scale
    assert levels.high * scale >= max(largest, 0) - 0.501 * scale


@pytest.mark.parametrize(
    ("smallest", "largest", "low", "scale"),
    [
        (-1.28, 1.27, -128, 0.01),
        (0.0, 255.0, 0, 1.0),
        (10.0, 255.0, 0, 1.0),  # widened to 0
        (-255.0, -3.0, -255, 1.0),
        (-0.5, 254.5, -1, 1.0),  # the zero point's tie goes up
    ],
)
def test_zero_point_and_scale_of_affine_grids(smallest, largest, low, scale):
    levels, found = grid.affine_grid(8, smallest, largest)
    assert levels == grid.Grid(low, low + 255)
    assert found == pytest.approx(scale, rel=1e-6)  # float32


def test_scales_per_channel_broadcast():
    values = np.array([[0.4, 0.4], [-3.0, 1.0]])
    integers = grid.weight_grid(2).to_int(values, np.array([[1.0, 0.5]]))
    np.testing.assert_array_equal(integers, [[0, 1], [-1, 1]])


def mean_squared_error(levels: int, largest: float) -> float:
    """Integral of (x - rounded x)^2 over the half normal distribution, in closed form per cell."""
    points = np.arange(levels + 1) * (largest / levels)
    ends = np.concatenate([[0.0], (points[1:] + points[:-1]) / 2, [40.0]])

    def integral(x, level):  # of (x - level)^2 times the normal density
        density = math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        share = math.erf(x / math.sqrt(2)) / 2
        return (1 + level**2) * share - (x - 2 * level) * density

    cells = zip(points, ends[:-1], ends[1:], strict=True)
    return 2 * sum(integral(b, level) - integral(a, level) for level, a, b in cells)


@pytest.mark.parametrize("levels", [2**k - 1 for k in BITS])
def test_the_optimal_largest_level_has_the_least_error(levels):
    low, high = 0.5, 6.0
    while high - low > 1e-5:  # golden-section search; the error has one minimum
        a, b = high - (high - low) * 0.618, low + (high - low) * 0.618
        if mean_squared_error(levels, a) < mean_squared_error(levels, b):
            high = b
        else:
            low = a
    optimum = grid.Grid(0, levels).optimal_largest_level
    assert optimum == pytest.approx(low, abs=6e-4)  # the table has three decimals


def test_one_grid_of_k_bits_has_the_error_that_the_literature_gives():
    # Max (1960), Table II: uniform quantizer of 8 levels, error 0.03744. Ours has 7 levels in the
    # same place, 0 among them, so it must lie between those of 6 (0.05980 > ) and 8 levels.
    error = mean_squared_error(3, grid.weight_grid(3).optimal_largest_level)
    assert 0.03744 < error < 0.0598


@pytest.mark.parametrize("num_bits", [0, 9, -1])
def test_bits_out_of_range_are_refused(num_bits):
    with pytest.raises(ValueError, match=f"`num_bits` must be in 1..8, got {num_bits}"):
        grid.check_num_bits(num_bits)


@pytest.mark.parametrize("num_bits", [True, np.True_, 2.0, "2", None])
def test_bits_that_are_no_integers_are_refused(num_bits):
    with pytest.raises(TypeError, match="`a` must be an int in 1..8, got"):
        grid.check_num_bits(num_bits, "a")


def test_numpy_integers_are_bits():
    assert grid.check_num_bits(np.int64(3)) == 3


@pytest.mark.parametrize("integer", [-2, 2])
def test_integers_outside_the_grid_are_refused(integer):
    with pytest.raises(ValueError, match="`integers` must be in -1..1, got"):
        grid.weight_grid(2).to_real([integer], 1.0)


@pytest.mark.parametrize("ends", [(0.0, 0.0), (-np.inf, 1.0), (0.0, np.nan)])
def test_affine_grids_without_a_range_are_refused(ends):
    with pytest.raises(ValueError, match="must be finite and span a range"):
        grid.affine_grid(8, *ends)


def test_empty_arrays_stay_empty():
    empty = np.zeros((0, 3), np.float32)
    assert grid.weight_grid(2).quantize(empty, 1.0).shape == (0, 3)


@pytest.mark.parametrize(
    ("bits", "coarse", "step"),
    [(8, 4, 17), (8, 2, 85), (8, 1, 255), (4, 2, 5), (4, 1, 15), (2, 1, 3)],
)
def test_nested_grids_hold_what_rounding_to_fewer_bits_at_once_gives(bits, coarse, step):
    fine, nested = grid.activation_grid(bits), grid.activation_grid(coarse)
    assert fine.nested_step(coarse) == step
    # Eighths of a level: every level, every tie, and what lies between.
    reals = np.arange(-8, 8 * (fine.high + 2), dtype=np.float32) / 8
    at_once = nested.to_int(reals, np.float32(step)) * step
    np.testing.assert_array_equal(fine.coarsen(fine.to_int(reals, 1.0), coarse), at_once)


@pytest.mark.parametrize("levels", [grid.Grid(-128, 127), grid.Grid(-100, 155), grid.Grid(-255, 0)])
@pytest.mark.parametrize("coarse", [2, 4])
def test_coarse_levels_of_signed_values_are_the_nearest_multiples_inside(levels, coarse):
    step = 255 // (2**coarse - 1)
    multiples = [m for m in range(-255 * step, 256 * step, step) if levels.low <= m <= levels.high]
    assert 0 in multiples
    assert len(multiples) <= 2**coarse
    values = np.arange(levels.low, levels.high + 1)
    nearest = [min(multiples, key=lambda m, v=v: abs(m - v)) for v in values]
    np.testing.assert_array_equal(levels.coarsen(values, coarse), nearest)


def test_no_bits_are_zero():
    np.testing.assert_array_equal(grid.activation_grid(8).coarsen([0, 9, 255], 0), [0, 0, 0])


@pytest.mark.parametrize(("bits", "coarse"), [(8, 3), (3, 2), (4, 8)])
def test_grids_that_are_not_nested_are_refused(bits, coarse):
    with pytest.raises(ValueError, match=f"`num_bits` must divide the grid's {bits} bits, got"):
        grid.activation_grid(bits).coarsen([0], coarse)
