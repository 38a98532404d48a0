"""32-bit accumulators: a sum that does not fit is an error that names the layer, never a wrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf.accelerator import (
    SystolicArray,
    bit_planes,
    conv2d,
    conv2d_transpose,
    dense,
    exact_sums,
)

LIMIT = 2**31
# 255 * 8421504 == 2^31 - 128: the longest sum of largest products that fits.
LONGEST = 8421504


def ternary_sum(array, last, weight):
    a = np.full((1, LONGEST + 1), 255, np.uint8)
    a[0, -1] = last
    return array.matmul(a, np.full((LONGEST + 1, 1), weight, np.int8), name="long")


@pytest.mark.parametrize("dataflow", ["os", "ws"])
@pytest.mark.parametrize(("last", "weight"), [(127, 1), (128, -1)])
def test_largest_sums_that_fit(dataflow, last, weight):
    product, trace = ternary_sum(SystolicArray(2**20, 1, dataflow), last, weight)
    assert product.item() == (LIMIT - 1 if weight == 1 else -LIMIT)
    assert {trace.smallest, trace.largest} == {0, product.item()}


@pytest.mark.parametrize("dataflow", ["os", "ws"])
@pytest.mark.parametrize(("last", "weight", "found"), [(128, 1, LIMIT), (129, -1, -LIMIT - 1)])
def test_smallest_sums_that_do_not_fit(dataflow, last, weight, found):
    with pytest.raises(OverflowError, match=f"^long: an accumulator would be {found}, outside"):
        ternary_sum(SystolicArray(2**20, 1, dataflow), last, weight)


def test_step_by_step_refuses_as_well():
    a = np.full((1, LONGEST + 1), 255, np.uint8)
    with pytest.raises(OverflowError, match=r"^long: .* outside int32"):
        SystolicArray().step_by_step(a, np.ones((LONGEST + 1, 1), np.int8), name="long")


# The longest sum of largest products of 8-bit weights that fits has 66311 of them.
@pytest.mark.parametrize("level", [-255, 255])
def test_dense_layer_of_eight_bits(level):
    low = min(level, 0)
    q = np.full((1, 66312), level)
    n = np.full((66312, 1), 127)
    options = {"num_bits": 8, "array": SystolicArray(), "low": low, "name": "logits"}
    out, _ = dense(q[:, :66311], n[:66311], **options)
    assert out.item() == 127 * level * 66311
    with pytest.raises(OverflowError, match="^logits: "):
        dense(q, n, **options)


def test_small_levels_may_have_a_large_bound():
    q = np.ones((1, 200_000), int)
    out, _ = dense(q, np.full((200_000, 1), 127), num_bits=8, array=SystolicArray())
    assert out.item() == 127 * 200_000


def test_correction_that_does_not_fit():
    """Stored levels of 0 sum up to 0; the levels themselves, -255, do not fit."""
    q = np.full((1, 66312), -255)
    with pytest.raises(OverflowError, match="^first: an accumulator would be -2147514120"):
        dense(
            q, np.full((66312, 1), 127), num_bits=8, array=SystolicArray(), low=-255, name="first"
        )


@pytest.fixture
def narrow(monkeypatch):
    """Accumulators of -1000..999, so that small operands overflow."""
    monkeypatch.setattr(exact_sums, "ACCUMULATOR_MIN", -1000)
    monkeypatch.setattr(exact_sums, "ACCUMULATOR_MAX", 999)


def test_intermediate_overflow_is_refused(narrow):
    a = np.array([[250, 250, 250, 250, 250, 250]], np.uint8)
    b = np.array([[1], [1], [1], [1], [-1], [-1]], np.int8)
    with pytest.raises(OverflowError, match="would be 1000"):
        SystolicArray().matmul(a, b)
    np.testing.assert_array_equal(SystolicArray().matmul(a, b[[0, 4, 1, 5, 2, 3]])[0], [[500]])


def test_what_an_accumulator_holds_depends_on_the_dataflow(narrow):
    """Sums of three leave a weight stationary array: 750, then -250; one accumulator has 1000."""
    a = np.full((1, 6), 250, np.uint8)
    b = np.array([[1], [1], [1], [1], [-1], [-1]], np.int8)
    product, _ = SystolicArray(3, 1, "ws").matmul(a, b)
    assert product.item() == 500
    with pytest.raises(OverflowError, match="would be 1000"):
        SystolicArray(3, 1, "os").matmul(a, b)


def test_conv2d_names_the_layer(narrow):
    q = np.full((1, 4, 4, 2), 200)
    with pytest.raises(OverflowError, match=r"^block/conv: an accumulator would be 1600"):
        conv2d(
            q,
            np.ones((2, 2, 2, 1), int) * 2,
            num_bits=3,
            array=SystolicArray(),
            name="block/conv",
        )


def test_overlapping_windows_that_do_not_fit(narrow):
    q = np.full((1, 3, 3, 1), 200)
    n = np.ones((3, 3, 1, 1), int)
    with pytest.raises(OverflowError, match="^up: an accumulator would be 1000"):
        conv2d_transpose(q, n, num_bits=2, array=SystolicArray(), name="up")


def sums_held(a, n, num_bits, fold_length):
    """Every value that an accumulator takes for one row and column, one product at a time."""
    total = 0
    for shift, plane in enumerate(bit_planes(n, num_bits)):
        for start in range(0, len(a), fold_length):
            inner = 0
            for k in range(start, min(start + fold_length, len(a))):
                inner += int(a[k]) * int(plane[k])
                yield inner
            total += inner * 2**shift
            yield total


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    num_bits=st.integers(2, 4),
    rows=st.sampled_from([None, 1, 2, 3]),
    M=st.integers(1, 3),
    K=st.integers(1, 9),
    N=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_exactly_the_sums_that_are_held_are_checked(num_bits, rows, M, K, N, seed):
    generator = np.random.default_rng(seed)
    largest = 2 ** (num_bits - 1) - 1
    u = generator.integers(0, 256, (M, K), dtype=np.uint8)
    n = generator.integers(-largest, largest + 1, (K, N))
    held = [
        value
        for m in range(M)
        for i in range(N)
        for value in sums_held(u[m], n[:, i], num_bits, rows or K)
    ]
    fits = all(-1000 <= value <= 999 for value in held)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_sums, "ACCUMULATOR_MIN", -1000)
        patch.setattr(exact_sums, "ACCUMULATOR_MAX", 999)
        patch.setattr(exact_sums, "_EXACT_CHECK_SIZE", 8)
        if fits:
            exact_sums.check_partial_sums(u, n, num_bits, rows, "layer")
        else:
            with pytest.raises(OverflowError, match="^layer: "):
                exact_sums.check_partial_sums(u, n, num_bits, rows, "layer")
