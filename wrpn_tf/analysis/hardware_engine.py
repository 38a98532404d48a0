"""The published gains of the accelerator, and a count of gates that says if they are plausible.

The paper: the 2-bit x 8-bit accelerator is 15 times smaller than the full-precision one at the same
node and takes 12 times less power. It gives neither the node, nor the clock, nor absolute figures.

The count, of one engine of each:

| 2-bit x 8-bit engine | float32 engine |
|---|---|
| 8 AND gates: the activation, or 0 | a float32 multiplier |
| 32 XOR gates: the sign; its carry is the adder's | |
| a 32-bit adder | a float32 adder |
| registers: 8 (activation), 2 (weight), 32 (accumulator) | registers: 3 x 32 |

Areas and powers are those of the units of a published library for pre-RTL models of accelerators,
Aladdin's, at its fastest clock for float32 and at the one that it falls back to. A gate is 1/32 of
its unit of 32 gates.

| | area | power | plausible |
|---|---|---|---|
| the paper | 15 | 12 | |
| count at 6 ns | 15.2 | 22.8 | both |
| count at 1 ns | 23.5 | 29.8 | both |

An engine's ratio bounds what a whole design gains: what both designs have alike (control, clock
tree, memories) makes the ratio smaller. So a claim is plausible if the ratio of the engines reaches
it. How much there would have to be alike for the claim to come out exactly is in the check, too:
12 times less power asks for as much again, in each design, as the small engine takes.

Sources: the claims, Mishra & Marr, "WRPN & Apprentice" (arXiv 1803.00227), section 3. The units,
Shao et al., "Aladdin: A Pre-RTL, Power-Performance Accelerator Simulator", ISCA 2014, as published
in github.com/harvard-acc/ALADDIN, common/power_func.h: "normalized to a commercial 40g".
"""

from __future__ import annotations

import dataclasses

PAPER_AREA_RATIO = 15.0
"""Times smaller than the full-precision design: the paper's figure, not this project's."""
PAPER_POWER_RATIO = 12.0
"""Times less power than the full-precision design: the paper's figure, not this project's."""

_ACTIVATION_BITS, _WEIGHT_BITS, _WORD_BITS = 8, 2, 32


@dataclasses.dataclass(frozen=True)
class Unit:
    """A circuit, or the sum of some.

    Attributes:
        area: In square micrometres.
        power: Dynamic and leakage, in mW, at one operation per cycle.
    """

    area: float
    power: float

    def __add__(self, other: Unit) -> Unit:
        return Unit(self.area + other.area, self.power + other.power)

    def __mul__(self, count: float) -> Unit:
        return Unit(count * self.area, count * self.power)


@dataclasses.dataclass(frozen=True)
class UnitTable:
    """Areas and powers of units at one node and clock.

    Attributes:
        name: Node and clock.
        source: Where the figures are published.
        int32_add: A 32-bit integer adder.
        logic32: 32 gates of two inputs: AND, OR or XOR.
        register_bit: One bit of a register.
        float32_add: A pipelined float32 adder.
        float32_mult: A pipelined float32 multiplier.
    """

    name: str
    source: str
    int32_add: Unit
    logic32: Unit
    register_bit: Unit
    float32_add: Unit
    float32_mult: Unit

    @property
    def ternary_engine(self) -> Unit:
        """The 2-bit x 8-bit engine; see the module."""
        gates = self.logic32 * ((_ACTIVATION_BITS + _WORD_BITS) / 32)
        registers = self.register_bit * (_ACTIVATION_BITS + _WEIGHT_BITS + _WORD_BITS)
        return gates + self.int32_add + registers

    @property
    def float32_engine(self) -> Unit:
        """The float32 engine; see the module."""
        return self.float32_mult + self.float32_add + self.register_bit * (3 * _WORD_BITS)


_ALADDIN = (
    "Shao et al., Aladdin, ISCA 2014; github.com/harvard-acc/ALADDIN, common/power_func.h, "
    "commit 8fa3ec8"
)
ALADDIN_1NS = UnitTable(
    name="40 nm, 1 ns",
    source=_ALADDIN,
    int32_add=Unit(277.9792, 0.2104162 + 0.002249908),
    logic32=Unit(50.36996, 0.0180559 + 0.0006111633),
    register_bit=Unit(5.981433, 0.008999495 + 0.00007395312),
    float32_add=Unit(4361.094, 5.559602 + 0.05311069),
    float32_mult=Unit(8967.113, 11.7734 + 0.1198412),
)
"""Aladdin's units at its fastest clock for float32."""
ALADDIN_6NS = UnitTable(
    name="40 nm, 6 ns",
    source=_ALADDIN,
    int32_add=Unit(179.443, 0.0142776 + 0.002380803),
    logic32=Unit(50.36996, 0.003003348 + 0.0006111633),
    register_bit=Unit(5.981433, 0.001501882 + 0.00007395312),
    float32_add=Unit(2063.594, 0.4404667 + 0.01515083),
    float32_mult=Unit(4889.35, 1.346627 + 0.04198441),
)
"""Aladdin's units at the clock that it falls back to."""


@dataclasses.dataclass(frozen=True)
class ClaimCheck:
    """A published ratio beside that of the engines.

    Attributes:
        quantity: "area" or "power".
        claimed: Full precision / 2-bit x 8-bit, in print.
        counted: The same of the engines alone.
        alike: What both designs would have to have alike, in each, for the claim to come out
            exactly: in units of the 2-bit x 8-bit engine; negative if the count is below the claim.
    """

    quantity: str
    claimed: float
    counted: float
    alike: float

    @property
    def is_plausible(self) -> bool:
        """Whether the engines' ratio, an upper bound, reaches the claim."""
        return self.counted >= self.claimed


def check_paper_gains(table: UnitTable = ALADDIN_6NS) -> tuple[ClaimCheck, ClaimCheck]:
    """Returns the paper's gains in area and in power beside those of a count of gates.

    (float32 + x) / (small + x) = claimed gives x = (float32 - claimed * small) / (claimed - 1)

    Args:
        table: Areas and powers of the units.

    Source: See the module.
    """
    small, wide = table.ternary_engine, table.float32_engine

    def check(quantity: str, claimed: float, narrow: float, full: float) -> ClaimCheck:
        alike = (full - claimed * narrow) / (claimed - 1) / narrow
        return ClaimCheck(quantity, claimed, full / narrow, alike)

    return (
        check("area", PAPER_AREA_RATIO, small.area, wide.area),
        check("power", PAPER_POWER_RATIO, small.power, wide.power),
    )


def paper_gains_table() -> str:
    """Returns the paper's gains beside the count of gates at both clocks, as a table."""
    rows = [f"{'units':<16}{'':<8}{'paper':>8}{'counted':>9}{'alike':>8}  plausible"]
    for table in (ALADDIN_6NS, ALADDIN_1NS):
        for check in check_paper_gains(table):
            verdict = "yes" if check.is_plausible else "no"
            rows.append(
                f"{table.name:<16}{check.quantity:<8}{check.claimed:>7.0f}x{check.counted:>8.1f}x"
                f"{check.alike:>8.2f}  {verdict}"
            )
    return "\n".join(rows)
