"""Scales of sums at which all kernels add alike."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_export.addition import add
from tflite_export.integer_model import Tensor
from tflite_export.requantization import ALL_KERNELS
from tflite_export.snapping_sum import check_sum, snap_sum

FREE = [f for f in itertools.product((True, False), repeat=3) if (f[0] or f[1]) and sum(f) >= 2]


def tensor(scale, low, high):
    return Tensor("t", (1,), np.float32(scale), low, high)


def grids(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def snapped(addends, output, free, sign=1):
    scales = snap_sum(addends, output, free=free, sign=sign)
    moved = [tensor(s, t.low, t.high) for s, t in zip(scales, (*addends, output), strict=True)]
    return scales, tuple(moved[:2]), moved[2]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.floats(0.002, 0.05)] * 3),
    st.tuples(*[st.integers(2, 8)] * 3),
    st.tuples(*[st.booleans()] * 3),
    st.sampled_from(FREE),
    st.sampled_from((1, -1)),
)
def test_snapped_sums_are_exact_and_stay_where_they_are(scales, bits, signed, free, sign):
    tensors = [tensor(s, *grids(b, n)) for s, b, n in zip(scales, bits, signed, strict=True)]
    result, addends, output = snapped(tuple(tensors[:2]), tensors[2], free, sign)
    found = check_sum(addends, output, sign=sign)
    assert found.exact
    assert found.margin > 1 / 600
    moves = [float(r) / float(t.scale) - 1 for r, t in zip(result, tensors, strict=True)]
    assert max(map(abs, moves)) < 0.02
    assert all(m == 0 for m, may_move in zip(moves, free, strict=True) if not may_move)
    assert snap_sum(addends, output, free=free, sign=sign) == result


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.floats(0.002, 0.05)] * 2),
    st.floats(20, 5000),
    st.tuples(st.integers(1, 3), st.booleans()),
    st.sampled_from(FREE),
)
def test_coarse_sums_of_fine_levels_stay_where_they_are(scales, coarseness, bits, free):
    """As those that a 2-bit convolution reads: one level may be hundreds of an addend's."""
    addends = tuple(tensor(scale, -110, 145) for scale in scales)
    output = tensor(coarseness * min(scales), *grids(bits[0] + 1, bits[1]))
    result, moved, total = snapped(addends, output, free)
    assert check_sum(moved, total).exact
    for scale, one in zip(result, (*addends, output), strict=True):
        assert float(scale) / float(one.scale) == pytest.approx(1, abs=0.02)
    assert snap_sum(moved, total, free=free) == result


def test_equal_scales_stay():
    addends = tensor(1 / 255, 0, 255), tensor(1 / 255, 0, 255)
    assert (
        snap_sum(addends, tensor(1 / 255, 0, 255), free=(True, True, True))
        == (np.float32(1 / 255),) * 3
    )


def test_a_tie_moves():
    """Half of the sums of q0 + q1 / 2 are ties, which REF and XNNPACK round apart below 0."""
    addends = tensor(0.02, -128, 127), tensor(0.01, -128, 127)
    output = tensor(0.02, -128, 127)
    assert not check_sum(addends, output).exact
    _, moved, result = snapped(addends, output, (False, True, True))
    assert check_sum(moved, result).exact


def test_check_agrees_with_all_pairs_one_by_one():
    addends, output = (tensor(0.0173, -8, 7), tensor(0.0291, 0, 15)), tensor(0.0237, -8, 7)
    found = check_sum(addends, output)
    s0, s1, sy = (float(t.scale) for t in (*addends, output))
    exact, margin = True, np.inf
    for a, b in itertools.product(range(-8, 8), range(16)):
        real = a * (s0 / sy) + b * (s1 / sy)
        rule = min(max(int(np.floor(real + 0.5)), -8), 7)
        margin = min([margin, *(abs(real - (n - 0.5)) for n in range(-7, 8))])
        for kernel in ALL_KERNELS:
            level = add(kernel, a, b, addends[0].scale, addends[1].scale, output.scale)
            exact &= min(max(int(level), -8), 7) == rule
    assert found.exact == exact
    assert found.margin == pytest.approx(margin, abs=1e-12)  # float64 in another order


def test_fixed_scales_are_returned_as_they_are():
    addends = tensor(0.0134159, 0, 255), tensor(0.0215433, -128, 127)
    output = tensor(0.0191717, 0, 255)
    scales = snap_sum(addends, output, free=(False, False, False))
    assert scales == (addends[0].scale, addends[1].scale, output.scale)
    assert not check_sum(addends, output).exact


@pytest.mark.parametrize("free", [(False, False, True), (True, False, False)])
def test_one_free_scale_is_looked_for(free):
    addends = tensor(0.0134159, 0, 15), tensor(0.0215433, 0, 15)
    _, moved, output = snapped(addends, tensor(0.02, 0, 15), free)
    assert check_sum(moved, output).exact
