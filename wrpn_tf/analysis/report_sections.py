"""The sections of a report: tables, the figures' places, and what the numbers assume."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping

from wrpn_tf.accelerator import Trace
from wrpn_tf.analysis import report_page
from wrpn_tf.analysis.array_layers import ArrayCost, roofline_point
from wrpn_tf.analysis.model_summary import LayerSummary, Summary
from wrpn_tf.analysis.report_content import (
    ARRAY_BITS_ACTIVATION,
    ARRAY_BITS_WEIGHT,
    ReportContent,
    ReportSettings,
)
from wrpn_tf.analysis.report_figures import array_name, bits_name

_UNKNOWN = "unknown"
_COST_FORMULAS = {"sum": "MACs x (A + W) bits / 64", "product": "MACs x A x W bits / 1024"}
_DATAFLOWS = {"os": "output stationary", "ws": "weight stationary"}


def body(content: ReportContent, figures: Mapping[str, str]) -> str:
    """Returns the page below its title.

    Args:
        content: The numbers.
        figures: Name -> SVG element; those of long figures end in "-1", "-2".
    """
    return "\n".join(
        [
            _overview(content),
            report_page.section("Layers", *_layers(content, figures)),
            report_page.section("Memory", *_memory(content, figures)),
            report_page.section("Cost by bits and width", *_costs(content, figures)),
            report_page.section("On the systolic array", *_array(content, figures)),
            report_page.section("Roofline", *_roofline(content, figures)),
        ]
    )


def _overview(content: ReportContent) -> str:
    summary = content.summary
    pairs = [
        ("parameters", f"{summary.num_parameters:,}"),
        ("bytes", f"{summary.num_bytes:,}"),
        ("smaller than in float", f"{summary.compression:.2f}x"),
        ("MACs, one example", _num_macs(summary)),
    ]
    if summary.relative_cost is not None:
        pairs.append(("cost relative to its float form", f"{summary.relative_cost:.1%}"))
    text = report_page.facts(pairs)
    if summary.uncounted:
        text += report_page.paragraph(
            "Layers whose multiply-accumulates are unknown, and in no total on this page:"
        ) + report_page.bullets(f"{path}: {why}" for path, why in summary.uncounted.items())
    if summary.regions is not None:
        text += report_page.paragraph(
            f"Activations have fewer bits at unimportant positions: {summary.regions}. All figures "
            "here are with all of it important; `wrpn_tf.analysis.region_energy` counts each "
            "image's."
        )
    return text


def _layers(content: ReportContent, figures: Mapping[str, str]) -> Iterator[str]:
    summary = content.summary
    yield report_page.paragraph(
        "Multiply-accumulates (MACs) are of one example; A and W are the bits of the activations "
        "and weights that are multiplied, 32 is float. Bytes are densely packed."
    )
    yield from _figures(figures, "layers")
    shown = [row for row in summary.layers if row.num_parameters or row.macs or row.macs is None]
    totals = [f"{summary.num_parameters:,}", f"{summary.num_bytes:,}", _num_macs(summary)]
    yield report_page.table(
        f"{len(shown)} of {len(summary.layers)} layer calls: those that multiply or hold weights",
        ["Layer", "Class", "Output", "W", "A", "Parameters", "Bytes", "MACs"],
        map(_layer_row, shown),
        text_columns=(1,),
        total=["total", "", "", "", "", *totals],
    )

    if summary.num_macs:
        yield report_page.table(
            "MACs by bits, activations x weights",
            ["A x W", "MACs", "Share"],
            (
                [pair, f"{count:,}", f"{count / summary.num_macs:.1%}"]
                for pair, count in summary.macs.items()
            ),
        )


def _num_macs(summary: Summary) -> str:
    """What is known of them: no total hides what is not."""
    known = [f"{summary.num_macs:,}"] if summary.num_macs or not summary.uncounted else []
    return " + ".join(known + [_UNKNOWN] * bool(summary.uncounted))


def _layer_row(row: LayerSummary) -> list[str]:
    macs = _UNKNOWN if row.macs is None else f"{sum(row.macs.values()):,}" if row.macs else "-"
    shape = "x".join("?" if size is None else str(size) for size in row.output_shape[1:])
    activation = "/".join(map(str, row.bits_by_region or (row.num_bits_activation,)))
    return [
        row.path,
        row.class_name,
        shape or "scalar",
        "/".join(str(bits) for bits in dict.fromkeys(row.num_bits_weight.values())),
        activation if row.macs else "",
        f"{row.num_parameters:,}",
        f"{row.num_bytes:,}",
        macs,
    ]


def _memory(content: ReportContent, figures: Mapping[str, str]) -> Iterator[str]:
    if content.memory_unknown is not None:
        yield report_page.paragraph(f"The memory is unknown: {content.memory_unknown}")
        return
    yield report_page.paragraph(
        "By the formula in WRPN's text (arXiv 1709.01134, section 2). Training: all feature maps, "
        "all weights, and the gradients of the largest map read and the largest made; weights and "
        "gradients take 32 bits. Inference: all weights, the largest map read and the largest "
        "made, at their bits."
    )
    yield from _figures(figures, "memory")
    yield report_page.table(
        "Bytes by batch size",
        ["Phase", "Batch", "Weights", "Activations", "Gradients", "Total", "Weights' share"],
        (
            [
                row.phase,
                f"{row.batch_size:,}",
                f"{row.weight_bytes:,}",
                f"{row.activation_bytes:,}",
                f"{row.gradient_bytes:,}",
                f"{row.num_bytes:,}",
                f"{row.weight_share:.1%}",
            ]
            for row in content.memory
        ),
    )


def _costs(content: ReportContent, figures: Mapping[str, str]) -> Iterator[str]:
    costs = content.costs
    yield report_page.paragraph(costs.source.removesuffix(".") + ".")
    if not costs.cells:
        return
    model = content.settings.cost_model
    text = f"Cost: {_COST_FORMULAS[model]}, relative to the float network; bits are weights/"
    yield report_page.paragraph(text + "activations. Bytes are of the parameters.")
    if costs.own_cost is not None:
        yield report_page.paragraph(f"This model: {costs.own_cost:.4f}.")
    yield from _figures(figures, "cost")
    widths = list(dict.fromkeys(cell.width_multiplier for cell in costs.cells))
    rows: dict[str, list[str]] = {}
    for cell in costs.cells:
        row = rows.setdefault(bits_name(cell.num_bits_weight, cell.num_bits_activation), [])
        row += [f"{cell.cost:.4f}", f"{cell.num_bytes:,}"]
    headers = [f"{width:g}x {name}" for width in widths for name in ("cost", "bytes")]
    yield report_page.table(
        f"Cost ({model} model) and bytes",
        ["Bits", *headers],
        ([name, *cells] for name, cells in rows.items()),
    )


def _array(content: ReportContent, figures: Mapping[str, str]) -> Iterator[str]:
    array = content.settings.array
    text = (
        f"{array.rows} x {array.cols} engines, {_DATAFLOWS[array.dataflow]}, each multiplying an "
        "8-bit activation by a 2-bit weight in a cycle; weights of k bits take k - 1 passes "
        "(one bit: 1) for each group of channels. "
        "Cycles are those of one example, layer after layer, until the last value has left the "
        "array, in closed form. Utilisation is the share of the engines' cycles that multiply; "
        "mapping, the engines with operands. Pooling, sums and activations take no cycles here."
    )
    if content.is_assumed:
        text += (
            " The network is float, which the array cannot run: these are its costs as if every "
            f"layer had {ARRAY_BITS_WEIGHT}-bit weights and {ARRAY_BITS_ACTIVATION}-bit "
            "activations."
        )
    yield report_page.paragraph(text)
    yield from _figures(figures, "array")
    headers = [
        "Layer",
        "Class",
        "W",
        "A",
        "M x K x N",
        "Passes",
        "Cycles",
        "Utilisation",
        "Mapping",
    ]
    rows = [_array_row(cost) for cost in content.array_costs]
    total = _array_total(content.array_costs)
    if any(cost.reason for cost in content.array_costs):
        headers.append("Not on the array")
        rows = [
            [*row, cost.reason or ""] for row, cost in zip(rows, content.array_costs, strict=True)
        ]
        total = total and [*total, ""]
    yield report_page.table("Kernels on the array", headers, rows, text_columns=(1, 9), total=total)


def _array_row(cost: ArrayCost) -> list[str]:
    bits = [str(x or "?") for x in (cost.num_bits_weight, cost.num_bits_activation)]
    start = [array_name(cost), cost.class_name, *bits]
    if cost.trace is None:
        return [*start, *[""] * 5]
    (gemm,) = cost.trace.gemms
    product = f"{gemm.M} x {gemm.K} x {gemm.N}"
    return [*start, product, f"{gemm.passes:,}", *_shares(cost.trace)]


def _array_total(costs: tuple[ArrayCost, ...]) -> list[str] | None:
    traces = [cost.trace for cost in costs if cost.trace is not None]
    if not traces:
        return None
    title = "total" if len(traces) == len(costs) else "total of what runs there"
    return [title, "", "", "", "", "", *_shares(functools.reduce(operator.add, traces))]


def _shares(trace: Trace) -> list[str]:
    return [f"{trace.cycles:,}", f"{trace.utilisation:.1%}", f"{trace.mapping_efficiency:.1%}"]


def _roofline(content: ReportContent, figures: Mapping[str, str]) -> Iterator[str]:
    settings = content.settings
    bandwidth, array = settings.dram_bytes_per_cycle, settings.array
    peak = array.rows * array.cols
    yield report_page.paragraph(
        f"The array does {peak} operations per cycle at most. Assumed, not measured: a DRAM that "
        f"moves {bandwidth:g} bytes per cycle of the array (`dram_bytes_per_cycle`), so that a "
        f"kernel needs {peak / bandwidth:g} operations per byte to keep all engines busy. An "
        "operation is one engine's multiply-accumulate. Each layer's 8-bit input, its weights and "
        "its 32-bit sums cross the DRAM's port once, while the array computes."
    )
    yield from _figures(figures, "roofline")
    yield report_page.table(
        "Kernels on the roofline",
        [
            "Layer",
            "Operations",
            "DRAM bytes",
            "Operations per byte",
            "per cycle",
            "DRAM cycles",
            "Limited by",
        ],
        (_roofline_row(cost, settings) for cost in content.array_costs),
        text_columns=(6,),
    )


def _roofline_row(cost: ArrayCost, settings: ReportSettings) -> list[str]:
    if cost.trace is None:
        return [array_name(cost), *[""] * 5, "not on the array"]
    point = roofline_point(
        cost.trace,
        array=settings.array,
        dram_bytes_per_cycle=settings.dram_bytes_per_cycle,
    )
    return [
        array_name(cost),
        f"{cost.trace.macs:,}",
        f"{(cost.trace.dram.reads + cost.trace.dram.writes) / 8:,.0f}",
        f"{point.intensity:.2f}",
        f"{point.rate:.2f}",
        f"{point.dram_cycles:,.0f}",
        "DRAM" if point.is_dram_bound else "array",
    ]


def _figures(figures: Mapping[str, str], name: str) -> Iterator[str]:
    """Yields the figures of a name, or its parts."""
    for key, svg in figures.items():
        if key.partition("-")[0] == name:
            yield report_page.figure(svg)
