"""The text of an energy report: a table of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wrpn_tf.text_table import fit_text, table_line

if TYPE_CHECKING:
    from wrpn_tf.analysis.energy import Energy, EnergyReport

_WIDTH = 100
# header, columns, alignment
_COLUMNS = (
    ("Layer", 24, "<"),
    ("AxW", 5, ">"),
    ("MACs", 13, ">"),
    ("Arithmetic", 10, ">"),
    ("SRAM", 8, ">"),
    ("DRAM", 8, ">"),
    ("Total", 8, ">"),
    ("Float32", 8, ">"),
    ("Gain", 8, ">"),
)
_NOTES = (
    "One example. AxW: bits of activations and weights; 32 is float. Float32: the same layer in "
    "float32 on the same array and dataflow; Gain: Float32 / Total. Accumulators cross to the DRAM "
    "at 32 bits. Not counted: control, clock, leakage, sums and pooling."
)


def table_lines(report: EnergyReport) -> Iterator[str]:
    """Yields the lines of a report's table."""
    rule = "-" * _WIDTH
    array, table = report.array, report.table
    dataflow = {"os": "output stationary", "ws": "weight stationary"}[array.dataflow]
    title = f"Energy of {report.name}: {array.rows} x {array.cols} engines, {dataflow}"
    yield from textwrap.wrap(title, _WIDTH)
    yield rule
    yield table_line([header for header, _, _ in _COLUMNS], _COLUMNS)
    yield rule
    for layer in report.layers:
        bits = f"{layer.num_bits_activation}x{layer.num_bits_weight}"
        costs = _costs(layer.quantized, layer.in_float32)
        yield table_line(
            [fit_text(layer.path, _COLUMNS[0][1]), bits, f"{layer.macs:,}", *costs], _COLUMNS
        )
    yield rule
    macs = sum(layer.macs for layer in report.layers)
    yield table_line(
        ["total", "", f"{macs:,}", *_costs(report.quantized, report.in_float32)], _COLUMNS
    )
    wide = report.in_float32
    parts = [joules(x) for x in (wide.arithmetic, wide.sram, wide.dram, wide.total)]
    yield table_line(["total in float32", "", f"{macs:,}", *parts, "", ""], _COLUMNS)
    per_bit = table.sram_per_bit(report.sram_bytes)
    prices = (
        f"{table.name}: {table.ternary_mac:g} pJ a step of an engine (k - 1 for k-bit weights), "
        f"{table.float32_mac:g} pJ a float32 multiply-add, {per_bit:.3g} pJ a bit of SRAM of "
        f"{report.sram_bytes:,} bytes, {table.dram:.3g} pJ a bit of DRAM. Source: {table.source}."
    )
    yield from textwrap.wrap(_NOTES, _WIDTH)
    yield from textwrap.wrap(prices, _WIDTH)


def _costs(quantized: Energy, in_float32: Energy) -> list[str]:
    parts = (quantized.arithmetic, quantized.sram, quantized.dram, quantized.total)
    gain = in_float32.total / quantized.total
    return [*(joules(x) for x in (*parts, in_float32.total)), f"{gain:.2f}x"]


def joules(energy: float) -> str:
    """Returns pJ with three digits and a unit, in eight characters: 2359296.0 -> "2.36 uJ"."""
    size, unit = 1.0, "pJ"
    for larger, name in ((1e3, "nJ"), (1e6, "uJ"), (1e9, "mJ"), (1e12, "J")):
        # What would round to four digits belongs to the next unit.
        if energy >= 0.9995 * larger:
            size, unit = larger, name
    value = energy / size
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f} {unit}"
