"""Proof without data that every kernel rounds as the exact rule does, whatever the images are.

Kernels: at every accumulator that can occur, next to every threshold (`snapping_check`); between
two thresholds nothing can change, because rule and kernels never decrease. Sums and products: all
pairs of levels. A table holds the rule's own results. What only moves levels: its tensors have one
grid. What spreads levels multiplies them by a power of two, which no kernel rounds.
"""

from __future__ import annotations

import dataclasses
import fractions
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tflite_export.addition import add
from tflite_export.integer_model import (
    Add,
    Conv2D,
    FullyConnected,
    IntegerModel,
    Lookup,
    Multiply,
    Operation,
    Probabilities,
    Shift,
    Tensor,
    lowest_level,
    reachable_sums,
    spread_scale,
)
from tflite_export.multiplication import multiply
from tflite_export.requantization import ALL_KERNELS, Integers
from tflite_export.snapping_check import check
from tflite_export.snapping_values import Channels, Rounding

Reals = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class OperationProof:
    """What is proved of one operation.

    Attributes:
        name: The operation's.
        num_channels: How many roundings it has: one per channel; one for a sum, a product or a
            table; none where levels only move.
        unproved: Channels at which some kernel differs from the rule.
        margin: Smallest distance of an accumulator that can occur from a threshold, in units of
            the accumulator; None where no threshold is within reach, and without accumulators.
        failure: Why the proof fails, or an empty string.
    """

    name: str
    num_channels: int
    unproved: tuple[int, ...] = ()
    margin: float | None = None
    failure: str = ""

    @property
    def holds(self) -> bool:
        """Whether every channel is proved."""
        return not self.failure

    @property
    def num_proved(self) -> int:
        """Channels of which the proof holds."""
        return self.num_channels - len(self.unproved)


@dataclasses.dataclass(frozen=True, eq=False)
class RealFunction:
    """What a channel computes in reals: scale * input scale * sum(n q) + bias.

    Attributes:
        scale: [channels], real value of one unit of the integers.
        bias: [channels].
    """

    scale: Reals
    bias: Reals


def prove(
    model: IntegerModel,
    functions: Mapping[str, RealFunction] | None = None,
    kernels: Sequence[str] = ALL_KERNELS,
) -> tuple[OperationProof, ...]:
    """Proves or disproves, of every operation, that all kernels follow the exact rule.

    level = clamp(floor(real / scale + 1/2)). A softmax or sigmoid is left out: its kernels differ,
    and nothing is computed from its result.

    Args:
        model: The network.
        functions: Operation name -> the rule's real function, as the Keras model's own; by default
            the file's scales and biases.
        kernels: Which kernels, of `requantization.ALL_KERNELS`.
    """
    return tuple(
        _prove_operation(operation, model, functions or {}, tuple(kernels))
        for operation in model.operations
        if not isinstance(operation, Probabilities)
    )


def _prove_operation(
    operation: Operation,
    model: IntegerModel,
    functions: Mapping[str, RealFunction],
    kernels: tuple[str, ...],
) -> OperationProof:
    sources = [model.tensors[name] for name in operation.inputs]
    target = model.tensors[operation.output]
    if isinstance(operation, (Conv2D, FullyConnected)):
        function = functions.get(operation.name) or _own_function(operation, sources[0])
        return _prove_kernel(operation, sources[0], target, function, kernels)
    if isinstance(operation, (Add, Multiply)):
        return _prove_pairs(operation, sources, target, kernels)
    if isinstance(operation, Lookup):
        return OperationProof(operation.name, num_channels=1)
    return _prove_move(operation, sources, target, kernels)


def _own_function(operation: Conv2D | FullyConnected, source: Tensor) -> RealFunction:
    kernel = operation.kernel
    scale = kernel.scale.astype(np.float64)
    input_scale = np.float64(spread_scale(source.scale, kernel.spread))
    return RealFunction(scale * kernel.multiplier, scale * input_scale * kernel.bias)


def _prove_kernel(
    operation: Conv2D | FullyConnected,
    source: Tensor,
    target: Tensor,
    function: RealFunction,
    kernels: tuple[str, ...],
) -> OperationProof:
    kernel = operation.kernel
    smallest, largest = reachable_sums(operation, source)
    input_scale = spread_scale(source.scale, kernel.spread)
    multiplier = kernel.multiplier.astype(np.int64) * kernel.spread
    output_scale = np.float64(target.scale)
    channels = Channels(
        smallest,
        largest,
        scale=function.scale * np.float64(source.scale) / output_scale,
        offset=function.bias / output_scale,
    )
    ends = np.stack([smallest, largest]) * multiplier + kernel.bias
    unit = kernel.scale.astype(np.float64) * np.float64(input_scale)
    if _overflows(ends, unit / output_scale):
        every = tuple(range(kernel.bias.size))
        failure = "an accumulator leaves 32 bits"
        return OperationProof(operation.name, len(every), every, failure=failure)
    rounding = Rounding(
        input_scale,
        target.scale,
        low=lowest_level(operation, target),
        high=target.high,
        multiplier=int(multiplier.max()),
        kind=_kind(operation),
        kernels=kernels,
    )
    found = check(
        channels,
        rounding,
        multiplier,
        kernel.scale.astype(np.float64),
        kernel.bias.astype(np.int64),
    )
    margin = float(found.margin.min())
    unproved = tuple(int(channel) for channel in np.flatnonzero(~found.exact))
    shown = ", ".join(str(channel) for channel in unproved[:5])
    return OperationProof(
        operation.name,
        num_channels=kernel.bias.size,
        unproved=unproved,
        margin=margin if np.isfinite(margin) else None,
        failure=f"{len(unproved)} of {kernel.bias.size} channels differ: {shown}"
        if unproved
        else "",
    )


def _kind(operation: Conv2D | FullyConnected) -> str:
    """How the kernels read the operation's scales; of one channel, they take its as per tensor."""
    if not isinstance(operation, FullyConnected):
        return "conv"
    single = operation.kernel.scale.size == 1
    return "fully_connected_per_tensor" if single else "fully_connected"


def _overflows(ends: Integers, levels: Reals) -> bool:
    """Whether an accumulator, or what a kernel shifts it to, leaves 32 bits.

    Args:
        ends: Smallest and largest accumulator of each channel, [2, channels].
        levels: Levels per unit of the accumulator, which a kernel rounds up to a power of two.
    """
    return bool((np.abs(ends) * np.maximum(1.0, 2.0 * levels) >= 2.0**31).any())


def _prove_move(
    operation: Operation, sources: list[Tensor], target: Tensor, kernels: tuple[str, ...]
) -> OperationProof:
    """What moves levels must leave them the meaning that they had."""
    amount = operation.amount if isinstance(operation, Shift) else 0
    for source in sources:
        grid = (source.scale, source.low + amount, source.high + amount)
        failure = ""
        if grid != target.grid:
            failure = f"makes levels {_text(*grid)} of {source.name!r}, not {_text(*target.grid)}"
        elif amount:  # In a file, the sum with a constant of the same scale.
            levels = np.arange(source.low, source.high + 1)
            scales = (source.scale, source.scale, target.scale)
            wrong = [
                k for k in kernels if (add(k, levels, amount, *scales) != levels + amount).any()
            ]
            failure = f"kernel {wrong[0]} does not add {amount} exactly" if wrong else ""
        if failure:
            return OperationProof(operation.name, num_channels=0, failure=failure)
    return OperationProof(operation.name, num_channels=0)


def _text(scale: np.float32, low: int, high: int) -> str:
    return f"{low}..{high} of scale {float(scale):.9g}"


def _prove_pairs(
    operation: Add | Multiply, sources: list[Tensor], target: Tensor, kernels: tuple[str, ...]
) -> OperationProof:
    """All pairs of levels, in whole numbers of any size."""
    first, second = (np.arange(source.low, source.high + 1) for source in sources)
    scales = [fractions.Fraction(float(t.scale)) for t in (*sources, target)]
    unit = max(scale.denominator for scale in scales)  # powers of two
    units = [int(scale * unit) for scale in scales]
    rows, columns = first.astype(object)[:, None] * units[0], second.astype(object) * units[1]
    floats = [source.scale for source in (*sources, target)]
    if isinstance(operation, Add):
        sign = "+" if operation.sign > 0 else "-"
        real, level = rows + operation.sign * columns, units[2]
        found = {
            kernel: add(kernel, first[:, None], second, *floats, sign=operation.sign)
            for kernel in kernels
        }
    else:
        sign, real, level = "*", rows * columns, units[2] * unit
        found = dict.fromkeys(kernels, multiply(first[:, None], second, *floats))
    low, high = lowest_level(operation, target), target.high
    wanted = np.clip((2 * real + level) // (2 * level), low, high).astype(np.int64)
    for kernel, results in found.items():
        levels = np.clip(results, low, high)
        if (levels != wanted).any():
            row, column = np.argwhere(levels != wanted)[0]
            failure = (
                f"kernel {kernel} differs at {(levels != wanted).sum()} of {wanted.size} pairs, "
                f"first {first[row]} {sign} {second[column]}: {levels[row, column]}, "
                f"not {wanted[row, column]}"
            )
            return OperationProof(operation.name, 1, (0,), failure=failure)
    return OperationProof(operation.name, num_channels=1)
