"""What activations of fewer bits save, by models of hardware that go by name.

| model | hardware | cycles | energy |
|---|---|---|---|
| "bit_serial" | each value takes the time of its own bits: ideal | full * energy / full | own |
| "bit_serial_group" | the array bit by bit, its rows in lock step | `serial_cycles` | of groups |
| "fixed" | bit-parallel, idle bits gated: ideal | full | own |

"full" is with all activations at their full bits, of the same hardware: `SystolicArray.cycles`,
where it is bit-serial with as many operands as there are bits to stream.
Energy counts bit operations, one for each bit of an activation in each multiply-accumulate: "own"
is `bit_operations`, "of groups" is `group_bit_operations` of as many windows as the array has rows.
It is that of the computation only; memory, control and leakage are in none of the models. Weights
of any width count alike in it, as in Stripes, where they are bit-parallel. Cycles are the array's,
a pass for each ternary plane of the weights.

Sources: "bit_serial", Stripes, and "bit_serial_group", Dynamic Stripes and DNNsim, as `bit_serial`
says. "fixed" is this project's bound on what gating can save: no published design is behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.bit_serial import (
    MAX_ACTIVATION_BITS,
    ConvolutionShape,
    Integers,
    WindowSums,
    check_bits,
    fold_cycles,
    window_sums,
)
from wrpn_tf.accelerator.checks import check_int
from wrpn_tf.accelerator.systolic_array import SystolicArray

Reals = npt.NDArray[np.float64]
ENERGY_MODELS = ("bit_serial", "bit_serial_group", "fixed")
"""Names of the models."""


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationCost:
    """What a layer costs under one model, for each image.

    The sum of two costs is that of both layers, one after the other, for the same images.

    Attributes:
        bit_operations: int64 [images].
        cycles: float64 [images]; whole numbers but for "bit_serial".
        full_bit_operations: With all activations at their full bits.
        full_cycles: The same.
    """

    bit_operations: Integers
    cycles: Reals
    full_bit_operations: int
    full_cycles: int

    def __add__(self, other: ActivationCost) -> ActivationCost:
        return ActivationCost(
            self.bit_operations + other.bit_operations,
            self.cycles + other.cycles,
            self.full_bit_operations + other.full_bit_operations,
            self.full_cycles + other.full_cycles,
        )

    @property
    def energy(self) -> Reals:
        """float64 [images], relative to full bits."""
        return self.bit_operations / self.full_bit_operations

    @property
    def relative_cycles(self) -> Reals:
        """float64 [images], relative to full bits."""
        return self.cycles / self.full_cycles


def activation_costs(
    bits: npt.ArrayLike,
    shape: ConvolutionShape,
    *,
    array: SystolicArray,
    full_bits: int = MAX_ACTIVATION_BITS,
    planes: int = 1,
) -> Mapping[str, ActivationCost]:
    """Returns what a convolution costs whose input has its own bits at each position.

    Args:
        bits: Integers in 0..full_bits, [images, height, width].
        shape: How the convolution reads them.
        array: The accelerator; output stationary.
        full_bits: Of the input without regions, 1..8.
        planes: Ternary planes of the weights.

    Returns:
        Model -> cost, for each of `ENERGY_MODELS`.

    Raises:
        TypeError, ValueError: As `bit_serial.serial_cycles`, or if `full_bits` does not fit.
    """
    check_int("full_bits", full_bits, 1, MAX_ACTIVATION_BITS)
    levels = check_bits(bits, full_bits)
    sums = window_sums(levels, shape, array.rows)
    height, width = levels.shape[1:]
    return window_costs(
        sums, (height, width), shape, array=array, full_bits=full_bits, planes=planes
    )


def window_costs(
    sums: WindowSums,
    size: tuple[int, int],
    shape: ConvolutionShape,
    *,
    array: SystolicArray,
    full_bits: int = MAX_ACTIVATION_BITS,
    planes: int = 1,
) -> Mapping[str, ActivationCost]:
    """Returns the same from sums that layers may share.

    Args:
        sums: Of groups as large as the array has rows.
        size: Height and width of the map.
        shape: As in `activation_costs`; its windows are those of the sums.
        array: As in `activation_costs`.
        full_bits: As in `activation_costs`.
        planes: As in `activation_costs`.

    Raises:
        TypeError, ValueError: As `bit_serial.fold_cycles`.
    """
    full, serial, parallel = _full_costs(size, shape, array, full_bits, planes)
    own, groups = sums.own * shape.macs_per_tap, sums.groups * shape.macs_per_tap
    lock_step = fold_cycles(sums, shape, array, planes).astype(np.float64)
    return {
        "bit_serial": ActivationCost(own, serial * (own / full), full, serial),
        "bit_serial_group": ActivationCost(groups, lock_step, full, serial),
        "fixed": ActivationCost(own, np.full(len(own), float(parallel)), full, parallel),
    }


def uniform_costs(
    num_images: int,
    size: tuple[int, int],
    shape: ConvolutionShape,
    *,
    array: SystolicArray,
    full_bits: int = MAX_ACTIVATION_BITS,
    planes: int = 1,
) -> Mapping[str, ActivationCost]:
    """Returns the same for a map of full bits everywhere.

    Args:
        num_images: How many there are.
        size: As in `window_costs`.
        shape: As in `window_costs`.
        array: As in `window_costs`.
        full_bits: As in `window_costs`.
        planes: As in `window_costs`.
    """
    full, serial, parallel = _full_costs(size, shape, array, full_bits, planes)
    return {
        name: ActivationCost(
            np.full(num_images, full), np.full(num_images, float(cycles)), full, cycles
        )
        for name, cycles in zip(ENERGY_MODELS, (serial, serial, parallel), strict=True)
    }


def _full_costs(
    size: tuple[int, int],
    shape: ConvolutionShape,
    array: SystolicArray,
    full_bits: int,
    planes: int,
) -> tuple[int, int, int]:
    """Bit operations at full bits, and the cycles for them, bit-serial and bit-parallel."""
    job = (shape.num_windows(*size), shape.depth, shape.output_channels)
    passes = shape.groups * planes
    serial = passes * array.cycles(job[0], full_bits * job[1], job[2])
    return full_bits * shape.macs(*size), serial, passes * array.cycles(*job)
