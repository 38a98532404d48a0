"""Closed forms of what a matrix product costs on the array: cycles, engines used, traffic.

The array has R rows and C columns of engines. An M x K times K x N product is cut into folds; each
takes the whole array, also where its operands fill only a part of it.

| dataflow | rows hold | columns hold | streamed for T cycles | folds |
|---|---|---|---|---|
| output stationary, "os" | M | N | T = K | ceil(M / R) * ceil(N / C) |
| weight stationary, "ws" | K | N | T = M | ceil(K / R) * ceil(N / C) |

Cycles of one fold:

| mode | "os" | "ws" |
|---|---|---|
| "compute": until the last multiply-accumulate | R + C + T - 2 | 2R + C + T - 2 |
| "drain": until the last value has left at the bottom | 2R + C + T - 2 | 2R + C + T - 1 |

An operand that enters at cycle t meets the engine of row r, column c, at cycle t + r + c. Output
stationary accumulators then move down one row a cycle, R cycles for the topmost. Weight stationary
engines first take R cycles to load the weights from the top, and the sum that the bottom row has
made in one cycle leaves in the next.

A product of F folds takes F times that. "pipelined" overlaps the folds: engines have two
accumulators (two weight registers), so that a fold starts as soon as the former's operands are in
and a column's R values leave (R weights arrive) meanwhile: (F - 1) * max(R, T) + one fold's
"drain". "scalesim" is what SCALE-Sim 3.0.0 reports: "compute" of all folds, minus 1.

Source: SCALE-Sim, github.com/scalesim-project/scale-sim-v2; its output stationary figures leave out
the drain (scale-sim-v3, issue 4).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from wrpn_tf.accelerator.trace import (
    ACCUMULATOR_BITS,
    ACTIVATION_BITS,
    WEIGHT_BITS,
    Gemm,
    Trace,
    Traffic,
)

Dataflow = Literal["os", "ws"]
Mode = Literal["compute", "drain", "pipelined", "scalesim"]

DATAFLOWS = ("os", "ws")
MODES = ("compute", "drain", "pipelined", "scalesim")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How a product is spread over the array, for one pass.

    Attributes:
        rows: R.
        cols: C.
        row_length: What the rows hold, in all.
        col_length: What the columns hold, in all.
        stream_length: T, how many operands each row and column streams in a fold.
        load_cycles: Before the first operand enters.
        leave_cycles: Between the last multiply-accumulate and the last value leaving.
    """

    rows: int
    cols: int
    row_length: int
    col_length: int
    stream_length: int
    load_cycles: int
    leave_cycles: int

    @property
    def row_folds(self) -> int:
        """How many tiles the rows' operands are cut into."""
        return -(-self.row_length // self.rows)

    @property
    def col_folds(self) -> int:
        """How many tiles the columns' operands are cut into."""
        return -(-self.col_length // self.cols)

    @property
    def folds(self) -> int:
        """How many tiles the array works through."""
        return self.row_folds * self.col_folds

    @property
    def used_engines(self) -> int:
        """Engines with operands, summed over the folds: each pair of row and column value once."""
        return self.row_length * self.col_length

    def cycles(self, mode: Mode) -> int:
        """Returns the cycles of all folds, as the table of the module says."""
        compute = self.load_cycles + self.rows + self.cols + self.stream_length - 2
        drain = compute + self.leave_cycles
        overlapped = (self.folds - 1) * max(self.rows, self.stream_length) + drain
        return {
            "compute": self.folds * compute,
            "drain": self.folds * drain,
            "pipelined": overlapped,
            "scalesim": self.folds * compute - 1,
        }[mode]


def schedule(rows: int, cols: int, dataflow: Dataflow, gemm: Gemm) -> Schedule:
    """Returns how one pass of `gemm` is spread over an array."""
    if dataflow == "os":
        return Schedule(rows, cols, gemm.M, gemm.N, gemm.K, load_cycles=0, leave_cycles=rows)
    return Schedule(rows, cols, gemm.K, gemm.N, gemm.M, load_cycles=rows, leave_cycles=1)


def gemm_trace(rows: int, cols: int, dataflow: Dataflow, gemm: Gemm, planes: int = 1) -> Trace:
    """Returns what `gemm` costs; `smallest` and `largest` are 0, for no operand was seen.

    Args:
        rows: Of the array.
        cols: Of the array.
        dataflow: Of the array.
        gemm: The product, all its passes.
        planes: How many of the passes, each time, add to the same accumulators.
    """
    plan = schedule(rows, cols, dataflow, gemm)
    cycles = gemm.passes * plan.cycles("drain")
    folds = gemm.passes * plan.folds
    results = gemm.passes // planes * gemm.M * gemm.N
    return Trace(
        gemms=(gemm,),
        cycles=cycles,
        macs=gemm.passes * gemm.M * gemm.N * gemm.K,
        folds=folds,
        used_engines=gemm.passes * plan.used_engines,
        engine_folds=folds * rows * cols,
        engine_cycles=cycles * rows * cols,
        sram=_sram(plan, dataflow, gemm, results),
        dram=Traffic(
            activation_reads=gemm.passes // planes * gemm.M * gemm.K * ACTIVATION_BITS,
            weight_reads=gemm.passes * gemm.K * gemm.N * WEIGHT_BITS,
            accumulator_writes=results * ACCUMULATOR_BITS,
        ),
        smallest=0,
        largest=0,
    )


def _sram(plan: Schedule, dataflow: Dataflow, gemm: Gemm, results: int) -> Traffic:
    """Output stationary streams both operands; weight stationary adds up outside the array."""
    weight_repeats, sums = (plan.row_folds, 1) if dataflow == "os" else (1, plan.row_folds)
    writes = gemm.passes * sums * gemm.M * gemm.N
    return Traffic(
        activation_reads=gemm.passes * plan.col_folds * gemm.M * gemm.K * ACTIVATION_BITS,
        weight_reads=gemm.passes * weight_repeats * gemm.K * gemm.N * WEIGHT_BITS,
        accumulator_reads=(writes - results) * ACCUMULATOR_BITS,
        accumulator_writes=writes * ACCUMULATOR_BITS,
    )
