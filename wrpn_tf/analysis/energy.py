"""Energy of a network on the accelerator, layer by layer, and of the same network in float32.

energy = operations * pJ per operation + bits of SRAM * pJ per bit + bits of DRAM * pJ per bit

Operations and bits are the accelerator's own closed forms (`wrpn_tf.accelerator.timing`), for one
example; what an operation and a bit cost is an `EnergyTable`.

| | quantized | in float32 |
|---|---|---|
| operation | engine step: a selection, an int32 addition | float32 multiplication and addition |
| a k-bit weight takes | k - 1 steps, one for one bit; 2 bits in each | 1; 32 bits |
| an activation takes | 8 bits, whatever it has: the engines' width | 32 bits |
| an accumulator takes | 32 bits | 32 bits |

"In float32" is the same array and dataflow, with the same tiles and without bit planes: 64 engines
that multiply and add float32. A layer that the accelerator's integers cannot hold (more than 8
bits, or float) counts as float32 in the network as it is, too.

What is not counted: control, clock and leakage, the requantization units, batch normalization that
is not folded, sums and pooling. Accumulators cross to the DRAM at 32 bits, as in the accelerator's
traces; a design that requantizes before would write a quarter of it.
"""

from __future__ import annotations

import dataclasses

from wrpn_tf.accelerator import SystolicArray, Trace, Traffic
from wrpn_tf.accelerator.trace import ACCUMULATOR_BITS, ACTIVATION_BITS, WEIGHT_BITS
from wrpn_tf.analysis.array_layers import ArrayCost, array_costs
from wrpn_tf.analysis.cost import check_counted, with_bits
from wrpn_tf.analysis.energy_table import HOROWITZ_45NM, EnergyTable
from wrpn_tf.analysis.energy_text import table_lines
from wrpn_tf.analysis.precision import FLOAT_BITS
from wrpn_tf.analysis.profile import ModelProfile


@dataclasses.dataclass(frozen=True)
class Energy:
    """Energy in pJ; the sum of two is that of both jobs.

    Attributes:
        arithmetic: Of the operations.
        sram: Of the bits between the buffers and the array.
        dram: Of the bits between the DRAM and the buffers.
    """

    arithmetic: float = 0.0
    sram: float = 0.0
    dram: float = 0.0

    def __add__(self, other: Energy) -> Energy:
        return Energy(
            self.arithmetic + other.arithmetic, self.sram + other.sram, self.dram + other.dram
        )

    @property
    def total(self) -> float:
        """The sum of the three."""
        return self.arithmetic + self.sram + self.dram


@dataclasses.dataclass(frozen=True)
class LayerEnergy:
    """What one kernel costs, for one example.

    Attributes:
        path: The layer's; a separable convolution has two entries.
        num_bits_weight: Bits of the kernel; 32 is float.
        num_bits_activation: Bits of what it multiplies; 32 is float.
        macs: Multiply-accumulates.
        quantized: Its energy as it is.
        in_float32: The same in float32, on the same dataflow.
    """

    path: str
    num_bits_weight: int
    num_bits_activation: int
    macs: int
    quantized: Energy
    in_float32: Energy


@dataclasses.dataclass(frozen=True)
class EnergyReport:
    """What `energy_report` returns; `str()` of it is the table.

    Attributes:
        name: The model's name.
        table: What operations and bits cost.
        array: The accelerator.
        sram_bytes: Size of the buffers, which says what a bit of them costs.
        layers: One for each kernel and call, in the order of computation.
    """

    name: str
    table: EnergyTable
    array: SystolicArray
    sram_bytes: int
    layers: tuple[LayerEnergy, ...]

    @property
    def quantized(self) -> Energy:
        """Of all layers, as they are."""
        return sum((layer.quantized for layer in self.layers), Energy())

    @property
    def in_float32(self) -> Energy:
        """Of all layers, in float32."""
        return sum((layer.in_float32 for layer in self.layers), Energy())

    def to_table(self) -> str:
        """Returns the report as text of at most 100 columns."""
        return "\n".join(table_lines(self))

    def __str__(self) -> str:
        return self.to_table()


def energy_report(
    profile: ModelProfile,
    *,
    table: EnergyTable = HOROWITZ_45NM,
    array: SystolicArray | None = None,
    sram_bytes: int = 2**20,
) -> EnergyReport:
    """Returns the energy of a model on the accelerator, layer by layer, for one example.

    Args:
        profile: A model's profile, usually a quantized one's. Activations of fewer bits by region
            cost what they do without regions: `region_energy` counts what images save.
        table: What operations and bits cost.
        array: The accelerator; by default 8 x 8 engines, output stationary.
        sram_bytes: Size of the buffers. The accelerator's hold a whole layer, hence the default,
            the largest of the table.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If the profile has no multiplications, unknown ones, or some that are no matrix
            products; if the table has no memory of `sram_bytes`.

    Source: That a bit moved costs more than an operation is the argument of M. Horowitz,
        "Computing's Energy Problem", ISSCC 2014; the traffic is that of this project's accelerator.
    """
    check_counted(profile, "profile")
    if not isinstance(table, EnergyTable):
        raise TypeError(f"`table` must be an EnergyTable, got {type(table).__name__}.")
    per_bit = table.sram_per_bit(sram_bytes)
    chosen = SystolicArray() if array is None else array
    # One plane: each product is one operation.
    single = array_costs(with_bits(profile, num_bits_weight=2, num_bits_activation=8), chosen)
    _check_products(profile, single)
    own = array_costs(profile, chosen)
    return EnergyReport(
        name=profile.name,
        table=table,
        array=chosen,
        sram_bytes=sram_bytes,
        layers=tuple(_layer(x, y, table, per_bit) for x, y in zip(own, single, strict=True)),
    )


def _check_products(profile: ModelProfile, costs: tuple[ArrayCost, ...]) -> None:
    unknown = "; ".join(f"{x.path!r}: {x.reason}" for x in costs if x.trace is None)
    if unknown or not costs:
        found = f"in {profile.name!r} {unknown or 'none'}"
        raise ValueError(f"`profile` must have layers that are matrix products, got {found}.")


def _layer(own: ArrayCost, single: ArrayCost, table: EnergyTable, per_bit: float) -> LayerEnergy:
    """Prices a kernel by its own trace, and in float32 by the trace of a single plane."""
    trace = single.trace
    wide = dataclasses.replace(trace, sram=_widened(trace.sram), dram=_widened(trace.dram))
    in_float32 = _energy(wide, table.float32_mac, per_bit, table.dram)
    quantized = in_float32
    if own.trace is not None:
        quantized = _energy(own.trace, table.ternary_mac, per_bit, table.dram)
    return LayerEnergy(
        path=own.path,
        num_bits_weight=own.num_bits_weight,
        num_bits_activation=own.num_bits_activation,
        macs=trace.macs,
        quantized=quantized,
        in_float32=in_float32,
    )


def _energy(trace: Trace, per_mac: float, per_sram_bit: float, per_dram_bit: float) -> Energy:
    return Energy(
        arithmetic=trace.macs * per_mac,
        sram=(trace.sram.reads + trace.sram.writes) * per_sram_bit,
        dram=(trace.dram.reads + trace.dram.writes) * per_dram_bit,
    )


def _widened(traffic: Traffic) -> Traffic:
    """The traffic of the same values in float32."""
    return Traffic(
        activation_reads=traffic.activation_reads // ACTIVATION_BITS * FLOAT_BITS,
        weight_reads=traffic.weight_reads // WEIGHT_BITS * FLOAT_BITS,
        accumulator_reads=traffic.accumulator_reads // ACCUMULATOR_BITS * FLOAT_BITS,
        accumulator_writes=traffic.accumulator_writes // ACCUMULATOR_BITS * FLOAT_BITS,
    )
