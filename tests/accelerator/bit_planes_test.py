"""k-bit weights as ternary planes."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf import grid
from wrpn_tf.accelerator import SystolicArray, bit_planes, num_planes


@pytest.mark.parametrize("num_bits", range(1, 9))
def test_planes_of_every_weight(num_bits):
    levels = grid.weight_grid(num_bits)
    n = np.array([n for n in range(levels.low, levels.high + 1) if num_bits > 1 or n])
    planes = bit_planes(n, num_bits)
    assert planes.dtype == np.int8
    assert len(planes) == num_planes(num_bits) == max(1, num_bits - 1)
    np.testing.assert_array_equal(sum(plane * 2**i for i, plane in enumerate(planes)), n)
    assert (planes * np.sign(n) >= 0).all()
    assert np.isin(planes, [-1, 0, 1]).all()


@pytest.mark.parametrize("num_bits", range(1, 9))
@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_product_plane_by_plane_on_the_array(num_bits, dataflow):
    generator = np.random.default_rng(num_bits)
    largest = 2 ** num_planes(num_bits) - 1
    n = generator.integers(-largest, largest + 1, (11, 7))
    if num_bits == 1:
        n = np.where(n < 0, -1, 1)
    a = generator.integers(0, 256, (6, 11), dtype=np.uint8)
    array = SystolicArray(3, 4, dataflow)
    passes = [array.step_by_step(a, plane).product for plane in bit_planes(n, num_bits)]
    total = sum(product << shift for shift, product in enumerate(passes))
    np.testing.assert_array_equal(total, a.astype(np.int64) @ n)


@pytest.mark.parametrize(("num_bits", "n"), [(2, 2), (4, -8), (8, -128), (1, 2)])
def test_weight_off_the_grid_is_refused(num_bits, n):
    with pytest.raises(ValueError, match=f"`n` must be in .* for {num_bits} bits, got {n}..{n}"):
        bit_planes([n], num_bits)


def test_zero_of_one_bit_is_refused():
    with pytest.raises(ValueError, match="`n` must be -1 or 1 for 1 bit, got 0"):
        bit_planes([1, 0], 1)


def test_weights_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="`n` must hold integers, got float64"):
        bit_planes([1.0], 2)


@pytest.mark.parametrize("num_bits", [0, 9])
def test_unknown_width_is_refused(num_bits):
    with pytest.raises(ValueError, match=f"`num_bits` must be in 1..8, got {num_bits}"):
        num_planes(num_bits)


def test_width_that_is_no_int_is_refused():
    with pytest.raises(TypeError, match="`num_bits` must be an int, got float 2.0"):
        num_planes(2.0)
