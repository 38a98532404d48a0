"""The text of a summary: a table of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

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
    yield f"{summary.name}, batch size {summary.batch_size}; bits of weights (W), activations (A)"
    yield rule
    yield _line([header for header, _, _ in _COLUMNS])
    yield rule
    shown = [row for row in summary.layers if row.num_parameters or row.macs or row.macs is None]
    for row in shown:
        yield from _layer_lines(row)
    yield rule
    yield from _total_lines(summary)
    yield from _float_lines(summary)
    yield from _paragraph(
        "MACs unknown, in no total: ",
        (f"{path} ({reason})" for path, reason in summary.uncounted.items()),
    )
    hidden = len(summary.layers) - len(shown)
    if hidden:
        yield f"Not listed: {hidden} layer calls without parameters and MACs."


def _layer_lines(row: LayerSummary) -> Iterator[str]:
    macs = ["unknown"] if row.macs is None else [f"{_short(n)} {p}" for p, n in row.macs.items()]
    first, *rest = macs or [""]
    weights = "/".join(str(bits) for bits in dict.fromkeys(row.num_bits_weight.values()))
    yield _line(
        [
            _title(row.path, row.class_name, _COLUMNS[0][1]),
            _fit("x".join("?" if n is None else str(n) for n in row.output_shape), _COLUMNS[1][1]),
            weights,
            str(row.num_bits_activation) if weights else "",
            f"{row.num_parameters:,}",
            f"{row.num_bytes:,}",
            first,
        ]
    )
    for more in rest:
        yield _line([""] * 6 + [more])


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


def _line(cells: list[str]) -> str:
    columns = zip(cells, _COLUMNS, strict=True)
    return " ".join(f"{cell:{align}{width}}" for cell, (_, width, align) in columns).rstrip()


def _title(path: str, class_name: str, width: int) -> str:
    """Returns "path (class)", the class cut short, or left out, before the path is."""
    room = width - len(path) - len(" ()")
    if room >= len(class_name):
        return f"{path} ({class_name})"
    return f"{path} ({class_name[: room - 2]}..)" if room > 5 else _fit(path, width)


def _fit(text: str, width: int) -> str:
    """Returns the text, its middle left out if it is too long."""
    if len(text) <= width:
        return text
    head = (width - 2) // 2
    return text[:head] + ".." + text[len(text) - (width - 2 - head) :]


def _short(count: int) -> str:
    """Returns a count with three decimals and a unit: 2359296 -> "2.359 M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3f} {unit}"
    return str(count)
