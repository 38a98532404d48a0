"""The array: step by step, functional and closed form, against each other and NumPy's product."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf.accelerator import ProcessingElement, SystolicArray

DATAFLOWS = ("os", "ws")
SHAPES = [(1, 1, 1), (8, 8, 8), (1, 40, 1), (17, 1, 9), (5, 23, 3), (16, 9, 24), (9, 16, 17)]
ARRAYS = [(8, 8), (1, 1), (3, 5), (7, 2), (1, 6), (4, 1)]


def random_operands(generator, M, K, N):
    a = generator.integers(0, 256, (M, K), dtype=np.uint8)
    b = generator.integers(-1, 2, (K, N), dtype=np.int8)
    return a, b


def adversarial_operands(M, K, N):
    """Extremes, alternating signs, and operands that tell each position apart."""
    most = np.full((M, K), 255, np.uint8)
    ones = np.ones((K, N), np.int8)
    alternating = np.where(np.add.outer(np.arange(K), np.arange(N)) % 2, 1, -1).astype(np.int8)
    counting = (np.arange(M * K) % 256).astype(np.uint8).reshape(M, K)
    one_weight = np.zeros((K, N), np.int8)
    one_weight[-1, -1] = -1
    for a in (most, np.zeros_like(most), counting):
        for b in (ones, -ones, alternating, np.zeros_like(ones), one_weight):
            yield a, b


def assert_three_levels_agree(array, a, b):
    expected = a.astype(np.int64) @ b.astype(np.int64)
    M, K, N = *a.shape, b.shape[1]
    steps = array.step_by_step(a, b)
    product, trace = array.matmul(a, b)
    assert steps.product.dtype == product.dtype == np.int32
    np.testing.assert_array_equal(steps.product, expected)
    np.testing.assert_array_equal(product, expected)
    assert steps.cycles == trace.cycles == array.cycles(M, K, N, "drain")
    assert steps.compute_cycles == array.cycles(M, K, N, "compute")


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize(("rows", "cols"), ARRAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_levels_agree_on_random_operands(dataflow, rows, cols, shape):
    array = SystolicArray(rows, cols, dataflow)
    assert_three_levels_agree(array, *random_operands(np.random.default_rng(1), *shape))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 11, 10)])
def test_levels_agree_on_adversarial_operands(dataflow, shape):
    for a, b in adversarial_operands(*shape):
        assert_three_levels_agree(SystolicArray(4, 6, dataflow), a, b)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lengths=st.tuples(*[st.integers(1, 20)] * 3),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dataflow=st.sampled_from(DATAFLOWS),
    seed=st.integers(0, 2**32 - 1),
)
def test_levels_agree(lengths, size, dataflow, seed):
    operands = random_operands(np.random.default_rng(seed), *lengths)
    assert_three_levels_agree(SystolicArray(*size, dataflow), *operands)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_levels_agree_on_a_layer_of_a_resnet(dataflow):
    operands = random_operands(np.random.default_rng(2), 64, 9 * 32, 64)
    assert_three_levels_agree(SystolicArray(8, 8, dataflow), *operands)


@pytest.mark.parametrize("M", [1, 112, 113, 114, 226, 227, 1000, 8000])
def test_products_that_are_made_in_pieces(M):
    """The functional level cuts 144 x 16 weights' products into pieces of 113 rows."""
    a, b = random_operands(np.random.default_rng(6), M, 144, 16)
    product, _ = SystolicArray().matmul(a, b)
    np.testing.assert_array_equal(product, a.astype(np.int64) @ b)


def test_one_engine_makes_what_a_processing_element_makes():
    a, b = random_operands(np.random.default_rng(3), 1, 50, 1)
    engine = ProcessingElement()
    sums = [engine.step(int(x), int(w)) for x, w in zip(a[0], b[:, 0], strict=True)]
    seen = []
    SystolicArray(1, 1).step_by_step(a, b, lambda state: seen.append(state.accumulators[0, 0]))
    assert seen == [*sums, 0]  # the drain empties it


def test_output_stationary_registers_of_every_cycle():
    """Engine (r, c) sees operand k at cycle k + r + c, and sums the operands seen."""
    a, b = random_operands(np.random.default_rng(4), 3, 5, 4)
    states = []
    SystolicArray(3, 4).step_by_step(a, b, lambda state: states.append(copied(state)))
    for cycle, state in enumerate(states[: 3 + 4 + 5 - 2]):
        assert state.cycle == cycle + 1
        for row in range(3):
            for col in range(4):
                k = cycle - row - col
                inside = 0 <= k < 5
                assert state.valid[row, col] == inside
                assert state.activations[row, col] == (a[row, k] if inside else 0)
                assert state.weights[row, col] == (b[k, col] if inside else 0)
                done = slice(0, max(0, k + 1))
                expected = a[row, done].astype(int) @ b[done, col].astype(int)
                assert state.accumulators[row, col] == expected
    product = a.astype(int) @ b.astype(int)
    for shift, state in enumerate(states[3 + 4 + 5 - 2 :], start=1):
        expected = np.vstack([np.zeros((shift, 4), int), product[: 3 - shift]])
        np.testing.assert_array_equal(state.accumulators, expected)


def test_weight_stationary_registers_of_every_cycle():
    """Engine (r, c) sees row m at cycle R + m + r + c, and adds to the sum from above."""
    a, b = random_operands(np.random.default_rng(5), 5, 3, 4)
    states = []
    SystolicArray(3, 4, "ws").step_by_step(a, b, lambda state: states.append(copied(state)))
    for cycle, state in enumerate(states[:3]):
        loaded = np.zeros((3, 4), int)
        loaded[: cycle + 1] = b[2 - cycle :]
        np.testing.assert_array_equal(state.weights, loaded)
    for cycle, state in enumerate(states[3:]):
        np.testing.assert_array_equal(state.weights, b)
        for row in range(3):
            for col in range(4):
                m = cycle - row - col
                inside = 0 <= m < 5
                assert state.valid[row, col] == inside
                assert state.activations[row, col] == (a[m, row] if inside else 0)
                above = slice(0, row + 1)
                expected = a[m, above].astype(int) @ b[above, col].astype(int) if inside else 0
                assert state.accumulators[row, col] == expected


def copied(state):
    arrays = ("activations", "weights", "accumulators", "valid")
    return dataclasses.replace(state, **{name: getattr(state, name).copy() for name in arrays})


def test_registers_cannot_be_changed_from_outside():
    def spoil(state):
        state.accumulators[0, 0] = 1

    with pytest.raises(ValueError, match="read-only"):
        SystolicArray().step_by_step(np.ones((1, 1), np.uint8), np.ones((1, 1), np.int8), spoil)


def test_array_is_frozen_and_compares_by_value():
    array = SystolicArray()
    assert array == SystolicArray(rows=8, cols=8, dataflow="os")
    assert hash(array) == hash(SystolicArray())
    with pytest.raises(dataclasses.FrozenInstanceError):
        array.rows = 9


@pytest.mark.parametrize("name", ["rows", "cols"])
@pytest.mark.parametrize("length", [0, -1])
def test_length_below_one_is_refused(name, length):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got {length}"):
        SystolicArray(**{name: length})


@pytest.mark.parametrize("length", [8.0, "8", True])
def test_length_that_is_no_int_is_refused(length):
    with pytest.raises(TypeError, match="`rows` must be an int"):
        SystolicArray(rows=length)


def test_unknown_dataflow_is_refused():
    with pytest.raises(ValueError, match="`dataflow` must be one of .*'os', 'ws'.* got 'is'"):
        SystolicArray(dataflow="is")


A = np.ones((2, 3), np.uint8)
B = np.ones((3, 4), np.int8)


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (A.astype(np.int32), B, TypeError, "`a` must be an array of uint8, got int32"),
        (A.tolist(), B, TypeError, "`a` must be an array of uint8, got list"),
        (A, B.astype(np.float32), TypeError, "`b` must be an array of int8, got float32"),
        (A[0], B, ValueError, r"`a` must be a matrix with entries, got shape \(3,\)"),
        (A, B[..., np.newaxis], ValueError, r"`b` must be a matrix .* got shape \(3, 4, 1\)"),
        (A[:0], B, ValueError, r"`a` must be a matrix with entries, got shape \(0, 3\)"),
        (A, B[:2], ValueError, "`b` must have as many rows as `a` has columns, 3, got 2"),
        (A, 2 * B, ValueError, r"`b` must hold -1, 0 and 1, got 2..2"),
        (A, -2 * B, ValueError, r"`b` must hold -1, 0 and 1, got -2..-2"),
    ],
)
@pytest.mark.parametrize("method", ["matmul", "step_by_step"])
def test_operands_that_do_not_fit_are_refused(method, a, b, error, message):
    with pytest.raises(error, match=message):
        getattr(SystolicArray(), method)(a, b)
