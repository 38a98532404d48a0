"""What operations and moved bits cost in energy: published figures, by name."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class EnergyTable:
    """Energy in pJ of operations, and of a bit moved; replace entries by `dataclasses.replace`.

    Attributes:
        name: Of the table: the technology.
        source: Where its figures are published.
        int8_add: One 8-bit integer addition.
        int32_add: One 32-bit integer addition.
        float32_add: One float32 addition.
        float32_mult: One float32 multiplication.
        sram: (bytes, pJ per bit) of memories on the chip, the sizes rising.
        dram: pJ per bit of memory outside the chip.

    Raises:
        ValueError: If an energy is not a positive finite number, or `sram` is empty or its sizes do
            not rise.
    """

    name: str
    source: str
    int8_add: float
    int32_add: float
    float32_add: float
    float32_mult: float
    sram: tuple[tuple[int, float], ...]
    dram: float

    def __post_init__(self) -> None:
        energies = {
            field.name: value
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), (int, float))
        }
        energies |= {f"sram[{i}]": energy for i, (_, energy) in enumerate(self.sram)}
        for name, energy in energies.items():
            if not 0 < energy < math.inf:
                raise ValueError(f"`{name}` must be a positive number of pJ, got {energy!r}.")
        sizes = [size for size, _ in self.sram]
        if not sizes or sizes != sorted(set(sizes)) or sizes[0] < 1:
            raise ValueError(f"`sram` must hold one size or more, rising from 1, got {sizes}.")

    def sram_per_bit(self, num_bytes: int) -> float:
        """Returns pJ per bit of the smallest memory in the table that holds so many bytes.

        Raises:
            TypeError: If `num_bytes` is no integer.
            ValueError: If the table has none so large, or `num_bytes` is below 1.
        """
        if isinstance(num_bytes, bool) or not isinstance(num_bytes, int):
            raise TypeError(f"`sram_bytes` must be an integer, got {num_bytes!r}.")
        for size, energy in self.sram:
            if 1 <= num_bytes <= size:
                return energy
        raise ValueError(f"`sram_bytes` must be in 1..{self.sram[-1][0]}, got {num_bytes!r}.")

    @property
    def ternary_mac(self) -> float:
        """Energy of one step of the accelerator's engine: a selection, a 32-bit accumulation.

        The selection (the activation, its negative, or 0) is charged as an 8-bit addition: more
        than its gates need, and the least that the table has.
        """
        return self.int8_add + self.int32_add

    @property
    def float32_mac(self) -> float:
        """Energy of one multiply-accumulate in float32."""
        return self.float32_mult + self.float32_add


HOROWITZ_45NM = EnergyTable(
    name="45 nm, 0.9 V",
    source=(
        'M. Horowitz, "Computing\'s Energy Problem (and what we can do about it)", ISSCC 2014 '
        "Digest of Technical Papers, pp. 10-14, Fig. 1.1.9"
    ),
    int8_add=0.03,
    int32_add=0.1,
    float32_add=0.9,
    float32_mult=3.7,
    # Published for 64-bit accesses of 10, 20 and 100 pJ.
    sram=((8 * 2**10, 10 / 64), (32 * 2**10, 20 / 64), (2**20, 100 / 64)),
    # 1.3 to 2.6 nJ for 64 bits; the lower end.
    dram=1300 / 64,
)
"""Rough costs in 45 nm CMOS, the most quoted table of its kind."""
