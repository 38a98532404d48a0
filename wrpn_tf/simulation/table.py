"""The text of a simulation: a table of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from wrpn_tf.accelerator import Trace, Traffic
from wrpn_tf.text_table import fit_text, table_line

if TYPE_CHECKING:
    from wrpn_tf.simulation.report import LayerRecord, Simulation

_WIDTH = 100
# header, columns, alignment
_COLUMNS = (
    ("Layer", 19, "<"),
    ("W", 1, ">"),
    ("M x K x N", 15, ">"),
    ("Cycles", 10, ">"),
    ("Util.", 5, ">"),
    ("Map.", 5, ">"),
    ("SRAM bits A/B/C", 17, ">"),
    ("DRAM bits A/B/C", 17, ">"),
    ("Acc", 3, ">"),
)
_NOTES = (
    "Costs are of one image. W: bits of the weights, each plane of which is a pass over M x K x N. "
    'Cycles: layer after layer, until the last value has left the array ("drain"). Util.: share of '
    "the engines' cycles that multiply; Map.: engines with operands. A: activations, B: weights, "
    "C: accumulators, read and written. Acc: bits of the largest accumulator. Pooling, sums and "
    "batch norm without a kernel before it are the requantization unit's, and take no cycles here."
)
_DATAFLOWS = {"os": "output stationary", "ws": "weight stationary"}


def table_lines(simulation: Simulation) -> Iterator[str]:
    """Yields the lines of a simulation's table."""
    rule = "-" * _WIDTH
    array = simulation.array
    images = "1 image" if simulation.num_images == 1 else f"{simulation.num_images} images"
    title = f"{array.rows} x {array.cols} engines, {_DATAFLOWS[array.dataflow]}; {images}"
    yield f"{fit_text(simulation.name, _WIDTH - len(title) - len(': '))}: {title}"
    yield rule
    yield table_line([header for header, _, _ in _COLUMNS], _COLUMNS)
    yield rule
    for layer in simulation.layers:
        yield table_line(_cells(layer), _COLUMNS)
    yield rule
    total = simulation.total
    yield table_line(["total", "", "", *_costs(total), ""], _COLUMNS)
    yield f"MACs {total.macs:,}; cycles {total.cycles:,}"
    yield from textwrap.wrap(_NOTES, _WIDTH)
    if simulation.image_costs is not None:
        yield ""
        yield "The same with activations of fewer bits by region:"
        yield from simulation.image_costs.to_table().splitlines()


def _cells(layer: LayerRecord) -> list[str]:
    first, *others = layer.trace.gemms
    product = f"{first.M}x{first.K}x{first.N}" + ("+" if others else "")
    name = fit_text(layer.name.removeprefix("quant_"), _COLUMNS[0][1])
    return [
        name,
        str(layer.num_bits_weight),
        product,
        *_costs(layer.trace),
        str(layer.accumulator_bits),
    ]


def _costs(trace: Trace) -> list[str]:
    cycles = f"{trace.cycles:,}"
    return [
        cycles if len(cycles) <= _COLUMNS[3][1] else _short(trace.cycles),
        _share(trace.utilisation),
        _share(trace.mapping_efficiency),
        _operands(trace.sram),
        _operands(trace.dram),
    ]


def _operands(traffic: Traffic) -> str:
    accumulators = traffic.accumulator_reads + traffic.accumulator_writes
    bits = (traffic.activation_reads, traffic.weight_reads, accumulators)
    return "/".join(_short(n) for n in bits)


def _share(share: float) -> str:
    """A share in percent, in five characters."""
    return f"{share:.1%}" if share < 0.9995 else "100%"


def _short(count: int) -> str:
    """A count with three digits and a unit, in five characters: 2359296 -> "2.36M"."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            value = count / size
            decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{decimals}f}{unit}"
    return str(count)
