"""Costs by the bits of each position, against loops, and against an array that moves every bit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf.accelerator import (
    ConvolutionShape,
    SystolicArray,
    bit_operations,
    group_bit_operations,
    serial_cycles,
)


def starts_of_windows(length, kernel, stride, dilation, padding):
    """Where windows begin along an axis, by TensorFlow's and Keras' documentation of padding."""
    reach = dilation * (kernel - 1) + 1
    if padding == "valid":
        return [start for start in range(0, length, stride) if start + reach <= length]
    outputs = math.ceil(length / stride)
    if padding == "causal":
        return [index * stride - reach + 1 for index in range(outputs)]
    before = max((outputs - 1) * stride + reach - length, 0) // 2
    return [index * stride - before for index in range(outputs)]


def bits_of_windows(bits, shape):
    """One image's windows, in order: the bits at their taps, padding's those of the nearest."""
    axes = list(zip(bits.shape, shape.kernel_size, shape.strides, shape.dilation, strict=True))
    starts = [starts_of_windows(*axis, shape.padding) for axis in axes]
    windows = []
    for corner in itertools.product(*starts):
        taps = []
        for tap in itertools.product(*map(range, shape.kernel_size)):
            place = (
                min(max(corner[i] + tap[i] * shape.dilation[i], 0), bits.shape[i] - 1)
                for i in range(2)
            )
            taps.append(int(bits[tuple(place)]))
        windows.append(taps)
    return windows


def grouped(windows, size):
    return [windows[start : start + size] for start in range(0, len(windows), size)]


@st.composite
def maps_and_shapes(draw):
    small = st.tuples(st.integers(1, 3), st.integers(1, 3))
    padding = draw(st.sampled_from(["same", "valid", "causal"]))
    kernel, dilation = draw(small), draw(small)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = reach if padding == "valid" else [1, 1]
    size = [draw(st.integers(least[i], least[i] + 6)) for i in range(2)]
    seed = draw(st.integers(0, 2**16))
    bits = np.random.default_rng(seed).choice([0, 1, 2, 4, 8], (2, *size))
    shape = ConvolutionShape(kernel, draw(small), dilation, padding, *draw(small), draw(st.just(2)))
    return bits, shape


@given(maps_and_shapes(), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_counts_are_those_of_loops(drawn, rows, planes):
    bits, shape = drawn
    channels = shape.input_channels * shape.output_channels * shape.groups
    own, group, cycles = [], [], []
    for image in bits:
        windows = bits_of_windows(image, shape)
        assert len(windows) == shape.num_windows(*image.shape)
        own.append(channels * sum(map(sum, windows)))
        folds = grouped(windows, rows)
        group.append(
            channels
            * sum(len(fold) * max(tap) for fold in folds for tap in zip(*fold, strict=True))
        )
        streamed = [
            shape.input_channels * sum(max(tap) for tap in zip(*fold, strict=True))
            for fold in folds
        ]
        passes = planes * shape.groups * math.ceil(shape.output_channels / 2)
        cycles.append(passes * sum(2 * rows + 2 - 2 + t for t in streamed if t))
    assert bit_operations(bits, shape).tolist() == own
    assert group_bit_operations(bits, shape, rows).tolist() == group
    assert serial_cycles(bits, shape, SystolicArray(rows, 2), planes).tolist() == cycles
    assert shape.macs(*bits.shape[1:]) == channels * sum(map(len, windows))


@given(maps_and_shapes(), st.integers(1, 8), st.integers(1, 9))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_uniform_maps_cost_their_bits_times_the_macs(drawn, num_bits, rows):
    bits, shape = drawn
    uniform = np.full(bits.shape, num_bits)
    size = bits.shape[1:]
    expected = [num_bits * shape.macs(*size)] * 2
    assert bit_operations(uniform, shape).tolist() == expected
    assert group_bit_operations(uniform, shape, rows).tolist() == expected
    # The array's own closed form, with as many operands to stream as there are bits.
    array = SystolicArray(rows, 3)
    M, K, N = shape.num_windows(*size), shape.depth, shape.output_channels
    serial = shape.groups * array.cycles(M, num_bits * K, N)
    assert serial_cycles(uniform, shape, array).tolist() == [serial] * 2


@pytest.mark.parametrize(
    ("bits", "size", "expected"),
    [
        ([8, 4, 4, 4], 4, 4 * 8),
        ([8, 4, 4, 4], 2, 2 * 8 + 2 * 4),
        ([8, 4, 4, 4], 1, 8 + 4 + 4 + 4),
        ([0, 4, 2, 0, 1], 3, 3 * 4 + 2 * 1),
        ([0, 0, 1, 0], 2, 0 + 2 * 1),
    ],
)
def test_a_group_costs_its_maximum(bits, size, expected):
    assert group_bit_operations([[bits]], ConvolutionShape(), size).tolist() == [expected]


def one_fold_bit_by_bit(levels, bits, weights, rows, cols):
    """Moves every register of a bit-serial fold; returns its sums, and the cycles it took.

    Args:
        levels: b-bit levels m, [up to rows, K].
        bits: b, the same shape.
        weights: [K, up to cols].
    """
    streams = [[] for _ in range(rows)]  # what enters each row: s * 2^j where bit j is set
    weight_streams = [[] for _ in range(cols)]
    for k in range(levels.shape[1]):
        for j in range(bits[:, k].max()):
            for row in range(rows):
                value = 0
                if row < len(levels) and levels[row, k] >> j & 1:
                    value = 255 // (2 ** bits[row, k] - 1) << j
                streams[row].append(value)
            for col in range(cols):
                weight_streams[col].append(weights[k, col] if col < weights.shape[1] else 0)
    length = len(streams[0])
    if not length:
        return np.zeros((rows, cols), int), 0
    activation, weight, sums = (np.zeros((rows, cols), int) for _ in range(3))
    met = np.zeros((rows, cols), int)
    valid = np.zeros((rows, cols), bool)
    cycle = 0
    while met.min() < length:
        for register in (activation, valid):
            register[:, 1:] = register[:, :-1]
        weight[1:] = weight[:-1]
        for row in range(rows):
            inside = 0 <= cycle - row < length
            activation[row, 0] = streams[row][cycle - row] if inside else 0
            valid[row, 0] = inside
        for col in range(cols):
            inside = 0 <= cycle - col < length
            weight[0, col] = weight_streams[col][cycle - col] if inside else 0
        sums += activation * weight
        met += valid
        cycle += 1
    left = []
    for _ in range(rows):  # one row of sums leaves at the bottom in a cycle
        left.append(sums[-1].copy())
        sums[1:] = sums[:-1].copy()
        cycle += 1
    return np.stack(left[::-1]), cycle


@pytest.mark.parametrize(
    ("rows", "cols", "channels", "filters"),
    [(1, 1, 1, 1), (3, 2, 2, 5), (4, 3, 1, 3), (8, 8, 2, 9)],
)
def test_an_array_that_moves_every_bit_takes_as_long_and_sums_right(rows, cols, channels, filters):
    generator = np.random.default_rng(rows)
    shape = ConvolutionShape((2, 3), (1, 2), (1, 1), "valid", channels, filters)
    bits = generator.choice([0, 1, 2, 4, 8], (1, 5, 8), p=[0.4, 0.1, 0.2, 0.2, 0.1])
    bits[0, :2] = 0  # folds that have nothing to do
    levels = generator.integers(0, 2 ** bits[0, ..., np.newaxis], (5, 8, channels))
    weights = generator.integers(-1, 2, (2, 3, channels, filters))
    step_sizes = np.where(bits[0] > 0, 255 // np.maximum(2 ** bits[0] - 1, 1), 0)
    full_levels = levels * step_sizes[..., np.newaxis]
    corners = [(y, x) for y in range(4) for x in range(0, 6, 2)]

    def patches(values):
        return np.stack([values[y : y + 2, x : x + 3].ravel() for y, x in corners])

    matrix = weights.reshape(-1, filters)
    window_bits = patches(np.repeat(bits[0, ..., np.newaxis], channels, axis=2))
    sums = np.zeros((len(corners), filters), int)
    cycles = 0
    for top, left in itertools.product(range(0, len(corners), rows), range(0, filters, cols)):
        part = slice(top, top + rows)
        fold, taken = one_fold_bit_by_bit(
            patches(levels)[part], window_bits[part], matrix[:, left : left + cols], rows, cols
        )
        place = sums[part, left : left + cols]
        place[:] = fold[: place.shape[0], : place.shape[1]]
        cycles += taken
    np.testing.assert_array_equal(sums, patches(full_levels) @ matrix)
    assert serial_cycles(bits, shape, SystolicArray(rows, cols)).tolist() == [cycles]


def test_lock_step_saves_no_more_than_each_value_alone():
    generator = np.random.default_rng(0)
    bits = generator.choice([0, 4, 8], (5, 12, 12))
    shape = ConvolutionShape(3, padding="same", input_channels=2, output_channels=9)
    energies = [group_bit_operations(bits, shape, size) for size in (1, 2, 4, 8)]
    assert energies[0].tolist() == bit_operations(bits, shape).tolist()
    for fine, coarse in itertools.pairwise(energies):  # groups of one are inside those of the next
        assert (fine < coarse).all()


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        ([[[8.0]]], TypeError, "`bits` must hold integers, got float64"),
        ([[8]], ValueError, r"`bits` must be \[images, height, width\], got shape \(1, 1\)"),
        (np.zeros((0, 2, 2), int), ValueError, "must be .images.*got shape"),
        ([[[9]]], ValueError, "`bits` must be in 0..8, got 9..9"),
        ([[[0, -1]]], ValueError, "`bits` must be in 0..8, got -1..0"),
    ],
)
def test_maps_that_are_none_are_refused(bits, error, message):
    with pytest.raises(error, match=message):
        bit_operations(bits, ConvolutionShape())


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`bits` must hold a window of 5 positions, got 4"):
        bit_operations(np.zeros((1, 4, 9), int), ConvolutionShape(3, dilation=2))


def test_a_weight_stationary_array_is_refused():
    with pytest.raises(ValueError, match="`array` must be output stationary, 'os', got 'ws'"):
        serial_cycles([[[8]]], ConvolutionShape(), SystolicArray(dataflow="ws"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": 0}, "`strides` must be at least 1, got 0"),
        ({"padding": "full"}, "`padding` must be one of .*got 'full'"),
        ({"groups": 0}, "`groups` must be at least 1, got 0"),
    ],
)
def test_shapes_that_are_none_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ConvolutionShape(3, **settings)
