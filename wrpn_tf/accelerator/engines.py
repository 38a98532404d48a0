"""The array step by step: the registers of every engine, cycle by cycle.

Each class is one array with its registers. `run_fold` lets a tile through and counts the cycles by
running, until the last value has left at the bottom; nothing here knows the formulas of `timing`.
Operands that the tile leaves free are zeros: the array does not know how large its tile is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.processing_element import ternary_product

Integers = npt.NDArray[np.int32]
Tile = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Registers:
    """The registers after a cycle; all arrays [rows, cols], views that the next cycle changes.

    Attributes:
        cycle: Counted from 1 at the start of the product.
        activations: Move right, one column a cycle.
        weights: Output stationary: move down, one row a cycle. Weight stationary: move down while
            they are loaded, then stay.
        accumulators: Output stationary: stay, and move down once finished. Weight stationary: the
            sums of the rows so far, moving down.
        valid: Whether the activation is an operand; it moves along with it.
    """

    cycle: int
    activations: Integers
    weights: Integers
    accumulators: Integers
    valid: npt.NDArray[np.bool_]


Observer = Callable[[Registers], None]


class Engines:
    """What the engines of both dataflows have in common: registers and a clock.

    Attributes:
        cycle: Cycles since the array was made.
        compute_cycles: Those up to the last multiply-accumulate of each fold.
    """

    def __init__(self, rows: int, cols: int, observe: Observer | None) -> None:
        self.cycle = 0
        self.compute_cycles = 0
        self._rows = rows
        self._cols = cols
        self._observe = observe
        self._activations = np.zeros((rows, cols), np.int32)
        self._weights = np.zeros((rows, cols), np.int32)
        self._accumulators = np.zeros((rows, cols), np.int32)
        self._valid = np.zeros((rows, cols), np.bool_)

    def _tick(self) -> None:
        """Ends a cycle."""
        self.cycle += 1
        if self._observe is not None:
            self._observe(
                Registers(
                    self.cycle,
                    _read_only(self._activations),
                    _read_only(self._weights),
                    _read_only(self._accumulators),
                    _read_only(self._valid),
                )
            )

    def _move_activations(self, entering: Integers, valid: npt.NDArray[np.bool_]) -> None:
        """Moves the activations and their valid bits one column to the right."""
        self._activations[:, 1:] = self._activations[:, :-1]
        self._activations[:, 0] = entering
        self._valid[:, 1:] = self._valid[:, :-1]
        self._valid[:, 0] = valid

    def _move_weights(self, entering: Integers) -> None:
        """Moves the weights one row down."""
        self._weights[1:] = self._weights[:-1]
        self._weights[0] = entering


class OutputStationaryEngines(Engines):
    """Each engine makes one output; both operands stream by."""

    def run_fold(self, a: Tile, b: Tile) -> Integers:
        """Returns a @ b of a tile.

        Args:
            a: Activations, [up to rows, K].
            b: Weights, [K, up to cols].

        Returns:
            [rows, cols], as they left at the bottom; zeros beyond the tile.
        """
        depth = a.shape[1]
        entering = _skewed(a.T, self._rows)
        entering_weights = _skewed(b, self._cols)
        entering_valid = _skewed(np.ones((depth, self._rows), np.bool_), self._rows)
        missing = self._rows * self._cols * depth
        self._accumulators[:] = 0
        step = 0
        while missing:
            self._move_activations(_at(entering, step), _at(entering_valid, step))
            self._move_weights(_at(entering_weights, step))
            self._accumulators += ternary_product(self._activations, self._weights)
            missing -= int(np.count_nonzero(self._valid))
            step += 1
            self._tick()
        self.compute_cycles += step
        return self._drain()

    def _drain(self) -> Integers:
        """Moves the accumulators down until all have left; the bottom row leaves first."""
        finished = np.ones((self._rows, self._cols), np.bool_)
        left: list[Integers] = []
        self._valid[:] = False
        while finished.any():
            left.append(self._accumulators[-1].copy())
            self._accumulators[1:] = self._accumulators[:-1]
            self._accumulators[0] = 0
            finished[1:] = finished[:-1]
            finished[0] = False
            self._tick()
        return np.stack(left[::-1])


class WeightStationaryEngines(Engines):
    """Each engine holds one weight; activations stream by, and sums move down."""

    def run_fold(self, a: Tile, b: Tile) -> Integers:
        """Returns a @ b of a tile.

        Args:
            a: Activations, [M, up to rows].
            b: Weights, [up to rows, up to cols].

        Returns:
            [M, cols], as they left at the bottom; zeros beyond the tile.
        """
        start = self.cycle
        self._load(b)
        length = len(a)
        entering = _skewed(a, self._rows)
        entering_valid = _skewed(np.ones((length, self._rows), np.bool_), self._rows)
        out = np.zeros((length, self._cols), np.int32)
        num_left = np.zeros(self._cols, np.int64)
        missing = self._rows * self._cols * length
        step = 0
        while num_left.min() < length:
            self._leave(out, num_left)
            self._move_activations(_at(entering, step), _at(entering_valid, step))
            self._accumulators[1:] = self._accumulators[:-1]
            self._accumulators[0] = 0
            self._accumulators += ternary_product(self._activations, self._weights)
            step += 1
            self._tick()
            if missing:
                missing -= int(np.count_nonzero(self._valid))
                if not missing:
                    self.compute_cycles += self.cycle - start
        return out

    def _load(self, b: Tile) -> None:
        """Moves the weights in from the top, the bottom row's first."""
        tile = np.zeros((self._rows, self._cols), np.int32)
        tile[: b.shape[0], : b.shape[1]] = b
        for row in tile[::-1]:
            self._move_weights(row)
            self._tick()

    def _leave(self, out: Integers, num_left: npt.NDArray[np.int64]) -> None:
        """Takes what stands in the bottom row of sums, where it is the sum of operands."""
        (columns,) = self._valid[-1].nonzero()
        out[num_left[columns], columns] = self._accumulators[-1, columns]
        num_left[columns] += 1


def _skewed(operands: Tile, lanes: int) -> npt.NDArray[Any]:
    """Delays lane i by i cycles: [T, up to lanes] -> [T + lanes - 1, lanes], zeros elsewhere."""
    length, width = operands.shape
    dtype = np.bool_ if operands.dtype == np.bool_ else np.int32
    skewed = np.zeros((length + lanes - 1, lanes), dtype)
    for lane in range(width):
        skewed[lane : lane + length, lane] = operands[:, lane]
    return skewed


def _at(entering: npt.NDArray[Any], step: int) -> npt.NDArray[Any]:
    """What enters at a step; zeros once all is in."""
    return entering[step] if step < len(entering) else np.zeros_like(entering[0])


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.setflags(write=False)
    return view


@dataclasses.dataclass(frozen=True, eq=False)
class StepByStep:
    """A product made step by step.

    Attributes:
        product: int32 [M, N].
        cycles: Until the last value has left the array, counted by running.
        compute_cycles: Without those after the last multiply-accumulate of each fold.
    """

    product: Integers
    cycles: int
    compute_cycles: int


def run_output_stationary(
    a: Tile, b: Tile, rows: int, cols: int, observe: Observer | None
) -> StepByStep:
    """Runs a product fold by fold: every tile of outputs once."""
    engines = OutputStationaryEngines(rows, cols, observe)
    product = np.zeros((a.shape[0], b.shape[1]), np.int32)
    for top in range(0, a.shape[0], rows):
        for left in range(0, b.shape[1], cols):
            place = product[top : top + rows, left : left + cols]
            fold = engines.run_fold(a[top : top + rows], b[:, left : left + cols])
            place[:] = fold[: place.shape[0], : place.shape[1]]
    return StepByStep(product, engines.cycle, engines.compute_cycles)


def run_weight_stationary(
    a: Tile, b: Tile, rows: int, cols: int, observe: Observer | None
) -> StepByStep:
    """Runs a product fold by fold: every tile of weights once, sums added up outside the array."""
    engines = WeightStationaryEngines(rows, cols, observe)
    product = np.zeros((a.shape[0], b.shape[1]), np.int32)
    for left in range(0, b.shape[1], cols):
        place = product[:, left : left + cols]
        for top in range(0, a.shape[1], rows):
            fold = engines.run_fold(a[:, top : top + rows], b[top : top + rows, left : left + cols])
            place += fold[:, : place.shape[1]]
    return StepByStep(product, engines.cycle, engines.compute_cycles)
