"""Closed-form cycles: SCALE-Sim's figures, and schedules that are laid out event by event."""

from __future__ import annotations

import itertools

import pytest

from wrpn_tf.accelerator import SystolicArray

# What SCALE-Sim 3.0.0 reports in GEMM mode on 8 x 8 engines.
SCALE_SIM = [
    # M, N, K, output stationary, weight stationary
    (8, 8, 8, 21, 29),
    (64, 16, 27, 655, 687),
    (1024, 16, 27, 10495, 8367),
    (64, 64, 576, 37759, 49535),
    (10, 10, 10, 95, 127),
]


@pytest.mark.parametrize(("M", "N", "K", "os", "ws"), SCALE_SIM)
def test_scalesim_mode_is_what_scale_sim_reports(M, N, K, os, ws):
    assert SystolicArray(8, 8, "os").cycles(M, K, N, "scalesim") == os
    assert SystolicArray(8, 8, "ws").cycles(M, K, N, "scalesim") == ws


@pytest.mark.parametrize(
    ("dataflow", "mode", "expected"),
    [
        # M = 10, K = 9, N = 13 on 4 rows x 6 columns.
        ("os", "compute", 3 * 3 * (4 + 6 + 9 - 2)),
        ("os", "drain", 3 * 3 * (2 * 4 + 6 + 9 - 2)),
        ("os", "pipelined", (3 * 3 - 1) * 9 + 2 * 4 + 6 + 9 - 2),
        ("os", "scalesim", 3 * 3 * (4 + 6 + 9 - 2) - 1),
        ("ws", "compute", 3 * 3 * (2 * 4 + 6 + 10 - 2)),
        ("ws", "drain", 3 * 3 * (2 * 4 + 6 + 10 - 1)),
        ("ws", "pipelined", (3 * 3 - 1) * 10 + 2 * 4 + 6 + 10 - 1),
        ("ws", "scalesim", 3 * 3 * (2 * 4 + 6 + 10 - 2) - 1),
    ],
)
def test_every_mode(dataflow, mode, expected):
    assert SystolicArray(4, 6, dataflow).cycles(10, 9, 13, mode) == expected


def test_one_product_on_one_engine():
    array = SystolicArray(1, 1)
    assert array.cycles(1, 1, 1, "compute") == 1
    assert array.cycles(1, 1, 1, "drain") == 2
    assert SystolicArray(1, 1, "ws").cycles(1, 1, 1, "drain") == 3  # load, multiply, leave


def test_drain_is_the_default():
    array = SystolicArray()
    assert array.cycles(20, 30, 40) == array.cycles(20, 30, 40, "drain")


def occupied_once(events):
    """No register or wire is used for two things in one cycle."""
    assert len(events) == len(set(events))
    return events


def output_stationary_overlapped(rows, cols, depth, folds):
    """Cycles with two accumulators per engine, every use of an engine and a wire laid out."""
    interval = max(rows, depth)
    multiplies, leavings, busy = [], [], {}
    for fold, row, col in itertools.product(range(folds), range(rows), range(cols)):
        start = fold * interval + row + col
        multiplies += [(row, col, start + k) for k in range(depth)]
        # A column's bottom engine finishes last; then one value a cycle leaves, the bottom first.
        finished = fold * interval + (rows - 1) + col + depth - 1
        leave = finished + 1 + (rows - 1 - row)
        leavings.append((col, leave))
        # On its way down a value stands in the accumulators of the rows below, of the same bank.
        spans = [(row, start, finished)]
        spans += [(row + i, finished + 1 + i, finished + 1 + i) for i in range(rows - row)]
        for place, first, last in spans:
            busy.setdefault((place, col, fold % 2), []).append((first, last, fold))
    occupied_once(multiplies)
    occupied_once(leavings)
    for spans in busy.values():
        for (a_first, a_last, a), (b_first, b_last, b) in itertools.combinations(spans, 2):
            assert a == b or a_last < b_first or b_last < a_first
    return max(cycle for _, cycle in leavings) + 1


def weight_stationary_overlapped(rows, cols, length, folds):
    """Cycles with a second weight register, every use of an engine and a wire laid out."""
    interval = max(rows, length)
    wires, multiplies, leavings = [], [], []
    for fold, row, col in itertools.product(range(folds), range(rows), range(cols)):
        first = rows + fold * interval  # when the fold's first activation enters row 0
        enters = first + col - 1 - row  # the bottom row's weight first, one a cycle and column
        wires += [(place, col, enters + place) for place in range(row + 1)]
        arrives = enters + row
        swapped_in = first + row + col
        last_swap = swapped_in - interval if fold else -1
        assert max(0, last_swap) <= arrives < swapped_in
        multiplies += [(row, col, swapped_in + m) for m in range(length)]
        if row == rows - 1:
            leavings += [(col, swapped_in + m + 1) for m in range(length)]
    occupied_once(wires)
    occupied_once(multiplies)
    occupied_once(leavings)
    return max(cycle for _, cycle in leavings) + 1


SHAPES = [
    (1, 1, 1, 3),
    (2, 3, 1, 4),
    (5, 2, 5, 4),
    (4, 2, 3, 5),
    (3, 3, 3, 4),
    (4, 4, 9, 3),
    (2, 5, 30, 2),
]


@pytest.mark.parametrize(("rows", "cols", "stream", "folds"), SHAPES)
def test_overlapped_output_stationary_folds_can_be_laid_out(rows, cols, stream, folds):
    cycles = SystolicArray(rows, cols).cycles(rows * folds, stream, cols, "pipelined")
    assert output_stationary_overlapped(rows, cols, stream, folds) == cycles


@pytest.mark.parametrize(("rows", "cols", "stream", "folds"), SHAPES)
def test_overlapped_weight_stationary_folds_can_be_laid_out(rows, cols, stream, folds):
    cycles = SystolicArray(rows, cols, "ws").cycles(stream, rows * folds, cols, "pipelined")
    assert weight_stationary_overlapped(rows, cols, stream, folds) == cycles


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="`mode` must be one of .*'drain'.* got 'fast'"):
        SystolicArray().cycles(1, 1, 1, "fast")


@pytest.mark.parametrize("lengths", [(0, 1, 1), (1, 0, 1), (1, 1, -3)])
def test_length_below_one_is_refused(lengths):
    with pytest.raises(ValueError, match="must be at least 1, got"):
        SystolicArray().cycles(*lengths)


def test_length_that_is_no_int_is_refused():
    with pytest.raises(TypeError, match="`K` must be an int, got float 2.0"):
        SystolicArray().cycles(1, 2.0, 1)
