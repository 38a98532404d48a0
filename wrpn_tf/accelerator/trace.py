"""What the array did: cycles, work and traffic, as numbers that add up."""

from __future__ import annotations

import dataclasses

ACTIVATION_BITS = 8
WEIGHT_BITS = 2
ACCUMULATOR_BITS = 32


@dataclasses.dataclass(frozen=True)
class Gemm:
    """`passes` matrix products, each M x K times K x N, one after the other on the array.

    A layer has one pass per bit plane of its weights and group of its channels.
    """

    M: int
    N: int
    K: int
    passes: int = 1


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bits that cross a memory's port, by operand.

    Attributes:
        activation_reads: Bits of A, 8 per value.
        weight_reads: Bits of B, 2 per value.
        accumulator_reads: Bits of C, 32 per value, read in order to be added to.
        accumulator_writes: Bits of C, 32 per value.
    """

    activation_reads: int = 0
    weight_reads: int = 0
    accumulator_reads: int = 0
    accumulator_writes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.activation_reads + other.activation_reads,
            self.weight_reads + other.weight_reads,
            self.accumulator_reads + other.accumulator_reads,
            self.accumulator_writes + other.accumulator_writes,
        )

    @property
    def reads(self) -> int:
        """Bits read, of all operands."""
        return self.activation_reads + self.weight_reads + self.accumulator_reads

    @property
    def writes(self) -> int:
        """Bits written."""
        return self.accumulator_writes


@dataclasses.dataclass(frozen=True)
class Trace:
    """What the array did. The sum of two traces is the trace of both jobs, one after the other.

    The buffers (SRAM) feed the array without stalls and hold a whole layer, so that every value of
    a layer crosses the DRAM's port once.

    Attributes:
        gemms: The matrix products, in order.
        cycles: Until the last value has left the array, fold by fold (mode "drain").
        macs: Multiply-accumulates on operands, those with a zero weight or on padding included;
            engines that a fold leaves idle do none. A k-bit weight takes k - 1 for each product.
        folds: Tiles that the array worked through.
        used_engines: Engines with operands, summed over the folds.
        engine_folds: All engines, summed over the folds: folds * rows * cols.
        engine_cycles: cycles * rows * cols.
        sram: Between the buffers and the array. Operands are read as often as they are streamed
            in, padding included; accumulators that live outside the array (weight stationary,
            bit planes, overlapping windows of a transposed convolution) are read and written
            each time they are added to, but not read the first time.
        dram: Between the DRAM and the buffers: the layer's input, weights and accumulators, once.
        smallest: The smallest finished accumulator, over all examples.
        largest: The largest finished accumulator, over all examples.
    """

    gemms: tuple[Gemm, ...]
    cycles: int
    macs: int
    folds: int
    used_engines: int
    engine_folds: int
    engine_cycles: int
    sram: Traffic
    dram: Traffic
    smallest: int
    largest: int

    def __add__(self, other: Trace) -> Trace:
        return Trace(
            gemms=self.gemms + other.gemms,
            cycles=self.cycles + other.cycles,
            macs=self.macs + other.macs,
            folds=self.folds + other.folds,
            used_engines=self.used_engines + other.used_engines,
            engine_folds=self.engine_folds + other.engine_folds,
            engine_cycles=self.engine_cycles + other.engine_cycles,
            sram=self.sram + other.sram,
            dram=self.dram + other.dram,
            smallest=min(self.smallest, other.smallest),
            largest=max(self.largest, other.largest),
        )

    @property
    def utilisation(self) -> float:
        """The share of the engines' cycles that multiply-accumulate operands."""
        return self.macs / self.engine_cycles

    @property
    def mapping_efficiency(self) -> float:
        """Used over all engines, averaged over the folds."""
        return self.used_engines / self.engine_folds
