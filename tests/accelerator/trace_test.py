"""Traces, against a count of every operand that a loop over tiles touches."""

from __future__ import annotations

import collections
import functools
import itertools
import operator

import numpy as np
import pytest

from wrpn_tf.accelerator import (
    Gemm,
    SystolicArray,
    bit_planes,
    conv2d,
    conv2d_transpose,
    dense,
    depthwise_conv2d,
)

ARRAYS = [SystolicArray(3, 4, "os"), SystolicArray(3, 4, "ws"), SystolicArray(8, 8, "os")]


def tiles(length, size):
    return [range(start, min(start + size, length)) for start in range(0, length, size)]


class Count:
    """Walks through products operand by operand; an output is an address, or None if cut off."""

    def __init__(self, array):
        self.array = array
        self.numbers = collections.Counter()
        self.written = set()

    def run(self, depth, outputs):
        M, N = len(outputs), len(outputs[0])
        array = self.array
        if array.dataflow == "os":
            for rows, cols in itertools.product(tiles(M, array.rows), tiles(N, array.cols)):
                self._fold(len(rows) * len(cols), len(rows) * depth, len(cols) * depth, depth)
                self._add(outputs[m][n] for m in rows for n in cols)
        else:
            for rows, cols in itertools.product(tiles(depth, array.rows), tiles(N, array.cols)):
                self._fold(len(rows) * len(cols), len(rows) * M, len(rows) * len(cols), M)
                self._add(outputs[m][n] for m in range(M) for n in cols)
        operands = np.zeros((M, depth), np.uint8), np.zeros((depth, N), np.int8)
        self.numbers["cycles"] += array.step_by_step(*operands).cycles

    def _fold(self, engines, activations, weights, steps):
        self.numbers["folds"] += 1
        self.numbers["used_engines"] += engines
        self.numbers["activations"] += activations
        self.numbers["weights"] += weights
        self.numbers["macs"] += engines * steps

    def _add(self, addresses):
        for address in addresses:
            if address is not None:
                self.numbers["reads"] += address in self.written
                self.numbers["writes"] += 1
                self.written.add(address)

    def check(self, trace):
        engines = self.array.rows * self.array.cols
        numbers = self.numbers
        assert trace.cycles == numbers["cycles"]
        assert trace.macs == numbers["macs"]
        assert trace.folds == numbers["folds"]
        assert trace.utilisation == numbers["macs"] / (numbers["cycles"] * engines)
        assert trace.mapping_efficiency == numbers["used_engines"] / (numbers["folds"] * engines)
        assert trace.sram.activation_reads == 8 * numbers["activations"]
        assert trace.sram.weight_reads == 2 * numbers["weights"]
        assert trace.sram.accumulator_reads == 32 * numbers["reads"]
        assert trace.sram.accumulator_writes == 32 * numbers["writes"]


def check_dram(trace, activations, weights, outputs):
    assert trace.dram.activation_reads == 8 * activations
    assert trace.dram.weight_reads == 2 * weights
    assert trace.dram.accumulator_reads == 0
    assert trace.dram.accumulator_writes == 32 * outputs
    assert trace.dram.reads == 8 * activations + 2 * weights
    assert trace.dram.writes == 32 * outputs


def addresses(M, N):
    return [[(m, n) for n in range(N)] for m in range(M)]


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize(("M", "K", "N"), [(1, 1, 1), (3, 3, 4), (10, 9, 13), (2, 20, 5)])
def test_product(array, M, K, N):
    count = Count(array)
    count.run(K, addresses(M, N))
    _, trace = array.matmul(np.zeros((M, K), np.uint8), np.zeros((K, N), np.int8))
    count.check(trace)
    check_dram(trace, M * K, K * N, M * N)
    assert trace == array.trace(M, K, N)
    assert trace.gemms == (Gemm(M=M, N=N, K=K),)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("num_bits", [1, 2, 3, 8])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv2d(array, num_bits, groups):
    q = np.zeros((5, 7, 6, 4), int)
    n = np.ones((3, 2, 4 // groups, 6), int)
    _, trace = conv2d(q, n, num_bits=num_bits, array=array, strides=2, groups=groups)
    positions, depth, width = 3 * 3, 3 * 2 * 4 // groups, 6 // groups
    planes = max(1, num_bits - 1)
    count = Count(array)
    for group, _ in itertools.product(range(groups), range(planes)):
        count.run(depth, [[(group, m, i) for i in range(width)] for m in range(positions)])
    count.check(trace)
    check_dram(trace, 7 * 6 * 4, planes * n.size, positions * 6)
    assert trace.gemms == (Gemm(M=positions, N=width, K=depth, passes=planes * groups),)


@pytest.mark.parametrize("array", ARRAYS)
def test_depthwise_conv2d(array):
    q = np.zeros((2, 5, 5, 3), int)
    n = np.ones((3, 3, 3, 2), int)
    _, trace = depthwise_conv2d(q, n, num_bits=2, array=array, padding="same")
    count = Count(array)
    for channel in range(3):
        count.run(9, [[(channel, m, i) for i in range(2)] for m in range(25)])
    count.check(trace)
    check_dram(trace, 5 * 5 * 3, 3 * 3 * 3 * 2, 5 * 5 * 6)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("shape", [(4, 20), (2, 3, 20)])
def test_dense(array, shape):
    n = np.ones((20, 10), int)
    _, trace = dense(np.zeros(shape, int), n, num_bits=4, array=array)
    rows = int(np.prod(shape[1:-1]))
    count = Count(array)
    for _ in range(3):
        count.run(20, addresses(rows, 10))
    count.check(trace)
    check_dram(trace, rows * 20, 3 * 200, rows * 10)


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("num_bits", [2, 3])
def test_conv2d_transpose(array, padding, stride, num_bits):
    rows, cols, channels, filters, kernel = 3, 2, 5, 2, 3
    q = np.zeros((2, rows, cols, channels), int)
    n = np.ones((kernel, kernel, filters, channels), int)
    options = {"strides": stride, "padding": padding}
    out, trace = conv2d_transpose(q, n, num_bits=num_bits, array=array, **options)
    before = max(kernel - stride, 0) // 2 if padding == "same" else 0
    lands = [
        [
            (y * stride + i - before, x * stride + j - before, f)
            for i, j, f in itertools.product(range(kernel), range(kernel), range(filters))
        ]
        for y, x in itertools.product(range(rows), range(cols))
    ]
    inside = set(np.ndindex(*out.shape[1:]))
    count = Count(array)
    for _ in range(num_bits - 1):
        count.run(channels, [[place if place in inside else None for place in m] for m in lands])
    count.numbers["writes"] += len(inside - count.written)  # outputs that no window meets
    count.check(trace)
    check_dram(trace, rows * cols * channels, (num_bits - 1) * n.size, len(inside))


def test_full_array_is_mapped_fully():
    trace = SystolicArray(4, 4).trace(8, 100, 12)
    assert trace.mapping_efficiency == 1.0
    assert trace.utilisation == 100 / (2 * 4 + 4 + 100 - 2)


def test_range_of_accumulators():
    a = np.array([[3, 5], [0, 255]], np.uint8)
    b = np.array([[1, 0], [-1, 1]], np.int8)
    _, trace = SystolicArray().matmul(a, b)
    assert (trace.smallest, trace.largest) == (-255, 255)
    _, trace = SystolicArray().matmul(a[:1] + 1, np.abs(b))
    assert (trace.smallest, trace.largest) == (0, 10)  # they start from 0


def test_range_covers_all_examples():
    q = np.array([[1, 2], [-7, 3], [4, 4]])
    _, trace = dense(q, np.array([[3], [1]]), num_bits=3, array=SystolicArray(), low=-8)
    assert (trace.smallest, trace.largest) == (-18, 16)


def test_sum_of_planes_is_the_trace_of_all():
    """All but the accumulators: between planes they are read and added to."""
    array = SystolicArray(3, 4)
    n = np.random.default_rng(1).integers(-7, 8, (10, 9))
    q = np.random.default_rng(2).integers(0, 256, (1, 10))
    _, whole = dense(q, n, num_bits=4, array=array)
    parts = [dense(q, plane, num_bits=2, array=array)[1] for plane in bit_planes(n, 4)]
    total = functools.reduce(operator.add, parts)
    for name in ("cycles", "macs", "folds", "used_engines", "engine_folds", "engine_cycles"):
        assert getattr(total, name) == getattr(whole, name)
    assert total.utilisation == whole.utilisation
    assert total.mapping_efficiency == whole.mapping_efficiency
    assert total.sram.activation_reads == whole.sram.activation_reads
    assert total.sram.weight_reads == whole.sram.weight_reads
    assert total.sram.accumulator_writes == whole.sram.accumulator_writes
    assert total.gemms == 3 * (Gemm(M=1, N=9, K=10),)
    assert total.smallest == min(part.smallest for part in parts)
    assert total.largest == max(part.largest for part in parts)
