"""What SCALE-Sim 3.0.0 reports for a file that we wrote (GEMM mode, no stalls), run once.

Its writes of an output stationary array are left out: it counts more than there are outputs.
"""

from __future__ import annotations

import pytest

from wrpn_tf.accelerator import SystolicArray, from_gemm_csv, to_gemm_csv

TEXT = "Layer, M, N, K,\nconv, 20, 9, 30,\nsmall, 7, 3, 5,\nwide, 64, 40, 100,\n"
# Array -> for each line: total cycles, mapping efficiency in %, SRAM reads of IFMAP and filter,
# SRAM writes of OFMAP, DRAM reads of IFMAP and filter, in words.
REPORTS = {
    SystolicArray(8, 8, "os"): [
        (263, 46.875, 1200, 810, None, 600, 270),
        (18, 32.8125, 35, 15, None, 35, 15),
        (4559, 100.0, 32000, 32000, None, 6400, 4000),
    ],
    SystolicArray(8, 8, "ws"): [
        (335, 52.734375, 1200, 270, 720, 600, 270),
        (28, 23.4375, 35, 15, 21, 35, 15),
        (5589, 96.15384615384616, 32000, 4000, 33280, 6400, 4000),
    ],
    SystolicArray(4, 6, "os"): [
        (379, 75.0, 1200, 1350, None, 600, 270),
        (25, 43.75, 35, 30, None, 35, 15),
        (12095, 95.23809523809523, 44800, 64000, None, 6400, 4000),
    ],
    SystolicArray(4, 6, "ws"): [
        (511, 70.3125, 1200, 270, 1440, 600, 270),
        (37, 31.25, 35, 15, 42, 35, 15),
        (13299, 95.2380952380951, 44800, 4000, 64000, 6400, 4000),
    ],
}


def test_the_file_is_what_was_run():
    assert to_gemm_csv(from_gemm_csv(TEXT)) == TEXT


@pytest.mark.parametrize("array", REPORTS)
def test_traces_are_scale_sims_figures(array):
    for (_, gemm), report in zip(from_gemm_csv(TEXT), REPORTS[array], strict=True):
        cycles, mapped, activations, weights, writes, dram_activations, dram_weights = report
        trace = array.trace(gemm.M, gemm.K, gemm.N)
        assert array.cycles(gemm.M, gemm.K, gemm.N, "scalesim") == cycles
        # It adds up a share for each fold, and loses some of float64's 16 digits.
        assert 100 * trace.mapping_efficiency == pytest.approx(mapped, rel=1e-14 * trace.folds)
        assert trace.sram.activation_reads == 8 * activations
        assert trace.sram.weight_reads == 2 * weights
        assert writes is None or trace.sram.accumulator_writes == 32 * writes
        assert trace.dram.activation_reads == 8 * dram_activations
        assert trace.dram.weight_reads == 2 * dram_weights
