"""The text of what images cost: a table of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from wrpn_tf.accelerator.image_statistics import QUANTILES, Distribution, distribution
from wrpn_tf.text_table import fit_text, table_line

if TYPE_CHECKING:
    from wrpn_tf.accelerator.activation_energy import Reals
    from wrpn_tf.accelerator.image_costs import ImageCosts, LayerCosts

_WIDTH = 100
# header, columns, alignment
_COLUMNS = (
    ("Layer", 30, "<"),
    ("MACs", 14, ">"),
    ("Bits by rank", 12, ">"),
    ("Mean bits", 9, ">"),
    ("Energy", 8, ">"),
    ("in groups", 9, ">"),
    ("Cycles", 8, ">"),
)
_NOTES = (
    "Energy and cycles are relative to the same network without regions, and of the computation "
    "alone. Energy: each value at its own bits (bit_serial, fixed); in groups: a row of the "
    "array's windows at its most bits (bit_serial_group), and so are the cycles; bit_serial's are "
    "as its energy, fixed's stay.",
    "Energy saved, by the bits of activations, is the published experiment's kind of number; its "
    "formula, its network and its thresholds are not published. Ours: ranks and their bits, how "
    "they follow the data, groups, cycles.",
)


def table_lines(costs: ImageCosts) -> Iterator[str]:
    """Yields the lines of the table of what images cost."""
    rule = "-" * _WIDTH
    array = costs.array
    images = "1 image" if costs.num_images == 1 else f"{costs.num_images:,} images"
    title = f": {images}, {array.rows} x {array.cols} engines"
    yield fit_text(costs.name, _WIDTH - len(title)) + title
    yield from textwrap.wrap(f"Regions: {costs.regions}", _WIDTH)
    yield rule
    yield table_line([header for header, _, _ in _COLUMNS], _COLUMNS)
    yield rule
    for layer in costs.layers:
        yield table_line(_cells(layer), _COLUMNS)
    yield rule
    energies = (costs.energy(), costs.energy("bit_serial_group"))
    cycles = costs.total["bit_serial_group"].relative_cycles
    macs = f"{sum(layer.macs for layer in costs.layers):,}"
    yield table_line(["total", macs, "", *_means(costs.bits, *energies, cycles)], _COLUMNS)
    yield ""
    yield from _image_lines(costs)
    for note in _NOTES:
        yield from textwrap.wrap(note, _WIDTH)


def _cells(layer: LayerCosts) -> list[str]:
    own, groups = (layer.costs[name] for name in ("bit_serial", "bit_serial_group"))
    ranks = reversed(layer.bits_by_rank or (layer.full_bits,))
    means = _means(layer.bits, own.energy, groups.energy, groups.relative_cycles)
    name = fit_text(layer.name.removeprefix("quant_"), _COLUMNS[0][1])
    return [name, f"{layer.macs:,}", "/".join(map(str, ranks)), *means]


def _means(bits: Reals, *shares: Reals) -> list[str]:
    return [f"{bits.mean():.2f}", *(f"{share.mean():.1%}" for share in shares)]


def _image_lines(costs: ImageCosts) -> Iterator[str]:
    """How the images are distributed."""
    heads = ["mean", "std.", "least", *(f"{share:.0%}" for share in QUANTILES[1:-1]), "most"]
    yield f"{'Of the images':<26}" + "".join(f"{head:>8}" for head in heads)
    saving = costs.distribution()
    rows = {
        "mean bits": (distribution(costs.bits), "{:.2f}".format),
        "energy saved": (saving, "{:.1%}".format),
        "  in groups": (costs.distribution("bit_serial_group"), "{:.1%}".format),
        "cycles saved in groups": (
            distribution(costs.cycle_saving("bit_serial_group")),
            "{:.1%}".format,
        ),
    }
    for name, (values, text) in rows.items():
        yield f"{name:<26}" + "".join(f"{cell:>8}" for cell in _row(values, text))
    yield f"Most energy saved: image {saving.best}; least: image {saving.worst} (counted from 0)."


def _row(values: Distribution, text: Callable[[float], str]) -> list[str]:
    return [text(value) for value in (values.mean, values.std, *values.quantiles.values())]
