"""The text of a summary: a table of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from wrpn_tf.text_table import Columns, fit_text, table_line

if TYPE_CHECKING:
    from wrpn_tf.analysis.model_summary import LayerSummary, Summary

_WIDTH = 100
# header, columns, alignment
_COLUMNS = (
    ("Layer (class)", 34, "<"),
    ("Output shape", 16, "<"),
    ("W", 4, ">"),
    ("A", 2, ">"),
    ("Parameters", 11, ">"),
    ("Bytes", 12, ">"),
    ("MACs AxW", 15, ">"),
)


def table_lines(summary: Summary) -> Iterator[str]:
    """Yields the lines of a summary's table."""
    rule = "-" * _WIDTH
    columns = _columns(summary)
    yield f"{summary.name}, batch size {summary.batch_size}; bits of weights (W), activations (A)"
    yield rule
    yield table_line([header for header, _, _ in columns], columns)
    yield rule
    shown = [row for row in summary.layers if row.num_parameters or row.macs or row.macs is None]
    for row in shown:
        yield from _layer_lines(row, columns)
    yield rule
    yield from _total_lines(summary)
    yield from _float_lines(summary)
    yield from _region_lines(summary)
    yield from _paragraph(
        "MACs unknown, in no total: ",
        (f"{path} ({reason})" for path, reason in summary.uncounted.items()),
    )
    hidden = len(summary.layers) - len(shown)
    if hidden:
        yield f"Not listed: {hidden} layer calls without parameters and MACs."


def _columns(summary: Summary) -> Columns:
    """The columns: bits by region are wider than one number, and names give way."""
    (layer, wide, _), shape, weights, (bits, narrow, align), *rest = _COLUMNS
    needed = max([narrow, *(len(_activation_bits(row)) for row in summary.layers)])
    return (
        (layer, wide - (needed - narrow), "<"),
        shape,
        weights,
        (bits, needed, align),
        *rest,
    )


def _activation_bits(row: LayerSummary) -> str:
    return "/".join(map(str, row.bits_by_region or (row.num_bits_activation,)))


def _region_lines(summary: Summary) -> list[str]:
    if summary.regions is None:
        return []
    text = (
        f"Activations have fewer bits at unimportant positions: {summary.regions}. MACs and cost "
        "are with all of it important; `wrpn_tf.analysis.region_energy` counts each image's."
    )
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ")


def _layer_lines(row: LayerSummary, columns: Columns) -> Iterator[str]:
    macs = ["unknown"] if row.macs is None else [f"{_short(n)} {p}" for p, n in row.macs.items()]
    first, *rest = macs or [""]
    weights = "/".join(str(bits) for bits in dict.fromkeys(row.num_bits_weight.values()))
    yield table_line(
        [
            _title(row.path, row.class_name, columns[0][1]),
            fit_text(
                "x".join("?" if n is None else str(n) for n in row.output_shape), columns[1][1]
            ),
            weights,
            _activation_bits(row) if weights else "",
            f"{row.num_parameters:,}",
            f"{row.num_bytes:,}",
            first,
        ],
        columns,
    )
    for more in rest:
        yield table_line([""] * 6 + [more], columns)


def _total_lines(summary: Summary) -> Iterator[str]:
    yield (
        f"Parameters {summary.num_parameters:,}; bytes {summary.num_bytes:,}, in float32 "
        f"{summary.num_bytes_float:,}: {summary.compression:.2f}x smaller"
    )
    if summary.relative_cost is None:
        return
    yield f"{'MACs AxW':<10}{'count':>20}{'share':>9}{'cost (MACs x (A + W) bits)':>32}"
    for pair, count in summary.macs.items():
        cost = count * sum(int(bits) for bits in pair.split("x"))
        yield f"{pair:<10}{count:>20,}{count / summary.num_macs:>9.1%}{cost:>32,}"
    yield f"{'total':<10}{summary.num_macs:>20,}{1:>9.1%}{summary.cost:>32,}"
    yield f"Cost relative to float32 (64 bits per MAC): {summary.relative_cost:.4f}"


def _float_lines(summary: Summary) -> Iterator[str]:
    counted = {row.path for row in summary.layers if row.macs}
    if counted and counted == set(summary.float_weights):
        yield "Every weight is float."
    else:
        yield from _paragraph("Float weights: ", summary.float_weights)
    yield from _paragraph("Quantized weights on float activations: ", summary.float_activations)
    yield from _paragraph(
        "Parameters that scale and shift in float: ",
        (f"{count} {name}" for name, count in summary.float_parameters.items()),
    )


def _paragraph(title: str, items: Iterable[str]) -> list[str]:
    """Returns the title and the items, wrapped; nothing without items."""
    text = ", ".join(items)
    return textwrap.wrap(title + text, _WIDTH, subsequent_indent="  ") if text else []


def _title(path: str, class_name: str, width: int) -> str:
    """Returns "path (class)", the class cut short, or left out, before the path is."""
    room = width - len(path) - len(" ()")
    if room >= len(class_name):
        return f"{path} ({class_name})"
    return f"{path} ({class_name[: room - 2]}..)" if room > 5 else fit_text(path, width)


def _short(count: int) -> str:
    """Returns a count with three decimals and a unit: 2359296 -> "2.359 M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3f} {unit}"
    return str(count)
