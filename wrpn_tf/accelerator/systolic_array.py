"""The systolic array: matrix products of 8-bit unsigned activations and ternary weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.checks import check_int
from wrpn_tf.accelerator.engines import (
    Observer,
    StepByStep,
    run_output_stationary,
    run_weight_stationary,
)
from wrpn_tf.accelerator.exact_sums import check_int32, check_partial_sums, matmul_exact
from wrpn_tf.accelerator.timing import (
    DATAFLOWS,
    MODES,
    Dataflow,
    Mode,
    Schedule,
    gemm_trace,
    schedule,
)
from wrpn_tf.accelerator.trace import Gemm, Trace


@dataclasses.dataclass(frozen=True)
class SystolicArray:
    """An array of `ProcessingElement`s, rows x cols.

    Attributes:
        rows: Rows of engines.
        cols: Columns of engines.
        dataflow: What stays in an engine during a fold: "os", its output's accumulator; "ws", its
            weight.

    Raises:
        TypeError: If `rows` or `cols` is not an int.
        ValueError: If one is below 1, or the dataflow is unknown.
    """

    rows: int = 8
    cols: int = 8
    dataflow: Dataflow = "os"

    def __post_init__(self) -> None:
        check_int("rows", self.rows, 1)
        check_int("cols", self.cols, 1)
        if self.dataflow not in DATAFLOWS:
            raise ValueError(f"`dataflow` must be one of {DATAFLOWS}, got {self.dataflow!r}.")

    def cycles(self, M: int, K: int, N: int, mode: Mode = "drain") -> int:
        """Returns the cycles of an M x K times K x N product; the formulas are in `timing`.

        Args:
            M: Rows of the activations and of the result.
            K: Products in each sum.
            N: Columns of the weights and of the result.
            mode: "compute", until the last multiply-accumulate; "drain", until the last value has
                left the array; "pipelined", with the folds overlapped; "scalesim", what SCALE-Sim
                3.0.0 reports.

        Raises:
            TypeError, ValueError: If a length is not a whole number >= 1, or the mode is unknown.
        """
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {MODES}, got {mode!r}.")
        return self._schedule(M, K, N).cycles(mode)

    def trace(self, M: int, K: int, N: int) -> Trace:
        """Returns what an M x K times K x N product costs, without its operands.

        Raises:
            TypeError, ValueError: If a length is not a whole number >= 1.
        """
        self._schedule(M, K, N)
        return gemm_trace(self.rows, self.cols, self.dataflow, Gemm(M=M, N=N, K=K))

    def matmul(
        self, a: npt.NDArray[np.uint8], b: npt.NDArray[np.int8], name: str = ""
    ) -> tuple[npt.NDArray[np.int32], Trace]:
        """Multiplies activations by ternary weights.

        Args:
            a: Activations, uint8 [M, K].
            b: Weights in {-1, 0, 1}, int8 [K, N].
            name: Of the layer, for errors.

        Returns:
            a @ b, int32 [M, N], and what it costs.

        Raises:
            TypeError: If an operand has another type.
            ValueError: If a shape or a weight does not fit.
            OverflowError: If an accumulator leaves int32 at any time.
        """
        check_operands(a, b)
        check_partial_sums(a, b, 2, self.fold_length, name)
        result = check_int32(matmul_exact(a, b), name)
        trace = self.trace(a.shape[0], a.shape[1], b.shape[1])
        return result, with_range(trace, result)

    def step_by_step(
        self,
        a: npt.NDArray[np.uint8],
        b: npt.NDArray[np.int8],
        observe: Observer | None = None,
        name: str = "",
    ) -> StepByStep:
        """Multiplies as `matmul`, but moves every engine's registers cycle by cycle.

        Args:
            a: Activations, uint8 [M, K].
            b: Weights in {-1, 0, 1}, int8 [K, N].
            observe: Called with the registers after each cycle; they are views, copy what to keep.
            name: Of the layer, for errors.

        Returns:
            The product, and the cycles as counted by running.

        Raises:
            TypeError, ValueError, OverflowError: As `matmul`.
        """
        check_operands(a, b)
        check_partial_sums(a, b, 2, self.fold_length, name)
        run = run_output_stationary if self.dataflow == "os" else run_weight_stationary
        return run(a, b, self.rows, self.cols, observe)

    @property
    def fold_length(self) -> int | None:
        """How many products a sum has when it leaves the array; None: all."""
        return None if self.dataflow == "os" else self.rows

    def _schedule(self, M: int, K: int, N: int) -> Schedule:
        for name, length in (("M", M), ("K", K), ("N", N)):
            check_int(name, length, 1)
        return schedule(self.rows, self.cols, self.dataflow, Gemm(M=M, N=N, K=K))


def check_operands(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> None:
    """Checks the operands of `SystolicArray.matmul`.

    Raises:
        TypeError, ValueError: As `SystolicArray.matmul`.
    """
    for name, array, dtype in (("a", a, np.uint8), ("b", b, np.int8)):
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            found = getattr(array, "dtype", type(array).__name__)
            raise TypeError(f"`{name}` must be an array of {np.dtype(dtype)}, got {found}.")
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"`{name}` must be a matrix with entries, got shape {array.shape}.")
    if a.shape[1] != b.shape[0]:
        raise ValueError(
            f"`b` must have as many rows as `a` has columns, {a.shape[1]}, got {b.shape[0]}."
        )
    if b.min() < -1 or b.max() > 1:
        raise ValueError(f"`b` must hold -1, 0 and 1, got {b.min()}..{b.max()}.")


def with_range(trace: Trace, accumulators: npt.NDArray[Any]) -> Trace:
    """Returns the trace with the range of its accumulators, and of the 0 that they start from."""
    return dataclasses.replace(
        trace,
        smallest=min(trace.smallest, int(accumulators.min(initial=0))),
        largest=max(trace.largest, int(accumulators.max(initial=0))),
    )
