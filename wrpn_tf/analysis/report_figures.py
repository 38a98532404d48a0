"""The figures of a report, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.analysis.array_layers import ArrayCost, RooflinePoint, roofline_point
from wrpn_tf.analysis.memory import MemoryFootprint
from wrpn_tf.analysis.model_summary import LayerSummary
from wrpn_tf.analysis.precision import FLOAT_BITS
from wrpn_tf.analysis.report_content import CostPlan, ReportContent
from wrpn_tf.analysis.report_style import color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 9.0  # inches
_ROW = 0.2
_ROWS_PER_FIGURE = 40  # what a printed page holds
_NAME_LENGTH = 34
_NUM_LABELS = 3  # on the roofline
_LABEL_DISTANCE = 1.2  # quotient of the rates of what is labelled: a line of text
_MARKERS = "os^DvPX"


def draw_figures(content: ReportContent) -> Iterator[tuple[str, str, Any]]:
    """Yields name, description and figure; long figures come in parts: "layers-1", "layers-2".

    Args:
        content: What to draw; figures of what is unknown are left out.
    """
    rows = [row for row in content.summary.layers if row.macs or row.macs is None]
    for suffix, part in _parts(rows):
        yield f"layers{suffix}", "Multiply-accumulates and bits of each layer", _layers(part)
    if content.memory:
        yield "memory", "Shares of memory by batch size", _memory(content.memory)
    if content.costs.cells:
        yield "cost", "Compute cost by bits and width", _costs(content.costs)
    array = content.settings.array
    for suffix, chosen in _parts(content.array_costs):
        yield f"array{suffix}", "Cycles and utilisation of each layer on the array", _cycles(chosen)
    if any(cost.trace for cost in content.array_costs):
        bandwidth = content.settings.dram_bytes_per_cycle
        figure = _roofline(content.array_costs, array, bandwidth)
        yield "roofline", "Roofline of the array, with a point for each layer", figure


def _parts(rows: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """The rows of each figure, and what its name ends in; parts of about one length."""
    count = -(-len(rows) // _ROWS_PER_FIGURE)
    for index in range(count):
        start, stop = (len(rows) * i // count for i in (index, index + 1))
        yield f"-{index + 1}" if count > 1 else "", rows[start:stop]


def _new_figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _row_axes(names: Sequence[str], widths: tuple[float, float]) -> tuple[Figure, Axes, Axes]:
    """Two axes side by side with a row for each name, the first on top."""
    figure = _new_figure(_ROW * len(names) + 1.0)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=widths)
    labels = [_shortened(name) for name in names]
    left.set_yticks(range(len(names)), labels, parse_math=False)
    left.set_ylim(len(names) - 0.4, -0.6)
    for axis in (left, right):
        axis.tick_params(axis="y", length=0)
    return figure, left, right


def _layers(rows: Sequence[LayerSummary]) -> Figure:
    figure, left, right = _row_axes([row.path for row in rows], (1.6, 1))
    _draw_bars(
        left, [None if row.macs is None else sum(row.macs.values()) for row in rows], "unknown"
    )
    _draw_bits(right, rows)
    left.set_xlim(left=0)
    _use_units(left)
    left.set_xlabel("multiply-accumulates, one example")
    right.set_xscale("log", base=2)
    ticks = (1, 2, 4, 8, 16, 32)
    right.set_xticks(ticks, [*map(str, ticks[:-1]), "32 (float)"])
    right.set_xlim(0.85, 38)
    right.set_xlabel("bits")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _draw_bits(axis: Axes, rows: Sequence[LayerSummary]) -> None:
    pairs = [
        (place, *map(int, pair.split("x")))
        for place, row in enumerate(rows)
        for pair in row.macs or ()
    ]
    places, activations, weights = zip(*pairs, strict=True) if pairs else ((), (), ())
    axis.hlines(places, weights, activations, color=color("grid"), zorder=1)
    # Squares are larger, so that both are seen where they meet.
    size = {"weights": ("s", 7, weights), "activations": ("o", 4, activations)}
    for name, (marker, markersize, bits) in size.items():
        label = f"{name} of the multiplication"
        axis.plot(bits, places, marker, color=color(name), markersize=markersize, label=label)


def _memory(rows: Sequence[MemoryFootprint]) -> Figure:
    figure = _new_figure(3.2)
    phases = list(dict.fromkeys(row.phase for row in rows))
    for axis, phase in zip(figure.subplots(1, len(phases), sharey=True), phases, strict=True):
        chosen = [row for row in rows if row.phase == phase]
        base = [0.0] * len(chosen)
        for name in ("weights", "activations", "gradients"):
            sizes = [getattr(row, f"{name.removesuffix('s')}_bytes") for row in chosen]
            shares = [100 * size / row.num_bytes for size, row in zip(sizes, chosen, strict=True)]
            if any(sizes):
                axis.bar(range(len(chosen)), shares, bottom=base, color=color(name), label=name)
            base = [below + share for below, share in zip(base, shares, strict=True)]
        for place, row in enumerate(chosen):
            axis.text(place, 101.5, in_bytes(row.num_bytes), ha="center", fontsize=8)
        axis.set_xticks(range(len(chosen)), [str(row.batch_size) for row in chosen])
        axis.set_xlabel("batch size")
        axis.set_ylim(0, 108)
        axis.set_title(phase)
        axis.grid(visible=False, axis="x")
        axis.set_ylabel("% of the memory" if phase == phases[0] else "")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3)
    return figure


def _costs(costs: CostPlan) -> Figure:
    """Lines over widths; bars where there is only one width."""
    figure = _new_figure(3.6)
    axis = figure.subplots()
    widths = list(dict.fromkeys(cell.width_multiplier for cell in costs.cells))
    pairs = list(dict.fromkeys((x.num_bits_weight, x.num_bits_activation) for x in costs.cells))
    by_pair = [
        [x.cost for x in costs.cells if (x.num_bits_weight, x.num_bits_activation) == pair]
        for pair in pairs
    ]
    axis.grid(visible=True, axis="y")
    axis.grid(visible=False, axis="x")
    names = [bits_name(*pair) for pair in pairs]
    if len(widths) == 1:
        axis.bar(names, [x[0] for x in by_pair], color=color("cycles"))
        axis.set_xlabel("bits of weights / activations")
        axis.set_ylabel("cost")
    else:
        _draw_lines(axis, widths, dict(zip(names, by_pair, strict=True)))
    axis.axhline(1, color=color("ink"), linewidth=0.8, linestyle=":")
    if costs.own_cost is not None:
        label = f"this model: {costs.own_cost:.3f}"
        axis.axhline(costs.own_cost, color=color("ink"), linestyle="--", label=label)
    if axis.get_legend_handles_labels()[0]:
        title = "weights/activations" if len(widths) > 1 else None
        figure.legend(loc="outside right upper", title=title)
    return figure


def _draw_lines(axis: Axes, widths: Sequence[float], lines: Mapping[str, list[float]]) -> None:
    for index, (name, values) in enumerate(lines.items()):
        drawn = color("ink" if index == 0 else f"series-{(index - 1) % 6 + 1}")
        marker = _MARKERS[index % len(_MARKERS)]
        axis.plot(widths, values, marker=marker, color=drawn, label=name)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xticks(widths, [f"{width:g}x" for width in widths])
    axis.set_xlabel("width")
    axis.set_ylabel("cost (log)")


def _cycles(costs: Sequence[ArrayCost]) -> Figure:
    figure, left, right = _row_axes([array_name(cost) for cost in costs], (1.6, 1))
    traces = [cost.trace for cost in costs]
    _draw_bars(left, [trace and trace.cycles for trace in traces], "not on the array")
    shares = [trace and 100 * trace.utilisation for trace in traces]
    _draw_bars(right, shares, "", color("used"))
    left.set_xlim(left=0)
    _use_units(left)
    left.set_xlabel("cycles, one example")
    right.set_xlim(0, 100)
    right.set_xlabel("utilisation of the engines, %")
    return figure


def _roofline(costs: Sequence[ArrayCost], array: SystolicArray, bandwidth: float) -> Figure:
    figure = _new_figure(4.6)
    axis = figure.subplots()
    peak = array.rows * array.cols
    ridge = peak / bandwidth
    points = {
        index: roofline_point(x.trace, array=array, dram_bytes_per_cycle=bandwidth)
        for index, x in enumerate(costs)
        if x.trace is not None
    }
    places = [ridge, *(point.intensity for point in points.values())]
    low, high = min(places) / 2, max(places) * 2
    axis.plot([low, ridge, high], [low * bandwidth, peak, peak], color=color("ink"))
    axis.text(high, peak * 1.08, f"{peak} engines", ha="right")
    axis.plot([], [], " ", label=f"DRAM, assumed: {bandwidth:g} bytes per cycle")
    for is_bound, name, marker in ((False, "cycles", "o"), (True, "activations", "s")):
        chosen = [point for point in points.values() if point.is_dram_bound is is_bound]
        x, y = [point.intensity for point in chosen], [point.rate for point in chosen]
        label = f"kernels limited by the {'DRAM' if is_bound else 'array'}: {len(chosen)}"
        axis.plot(x, y, marker, color=color(name), label=label)
    roofs = {i: min(peak, point.intensity * bandwidth) for i, point in points.items()}
    _label_lowest(axis, costs, points, roofs)
    for scale, direction in ((axis.set_xscale, axis.xaxis), (axis.set_yscale, axis.yaxis)):
        scale("log")
        direction.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid(visible=True, axis="both")
    axis.set_xlim(low, high)
    axis.set_ylim(top=peak * 2)
    axis.set_xlabel("operations per byte of DRAM traffic (log)")
    axis.set_ylabel("operations per cycle (log)")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def _label_lowest(
    axis: Axes,
    costs: Sequence[ArrayCost],
    points: Mapping[int, RooflinePoint],
    roofs: Mapping[int, float],
) -> None:
    """Names the kernels furthest below their roof, each apart from those named before."""
    named: list[RooflinePoint] = []
    for index in sorted(points, key=lambda i: points[i].rate / roofs[i]):
        point = points[index]
        is_apart = all(
            max(point.rate / other.rate, other.rate / point.rate) > _LABEL_DISTANCE
            for other in named
        )
        if is_apart and len(named) < _NUM_LABELS:
            axis.annotate(
                _shortened(array_name(costs[index])),
                (point.intensity, point.rate),
                (7, -3),
                textcoords="offset points",
                fontsize=8,
                parse_math=False,
            )
            named.append(point)


def _draw_bars(
    axis: Axes, lengths: Sequence[float | None], missing: str, fill: str = color("cycles")
) -> None:
    """Draws a bar in each row, and says `missing` where there is none."""
    known = [(place, length) for place, length in enumerate(lengths) if length is not None]
    if known:
        axis.barh(*zip(*known, strict=True), color=fill, height=0.7)
    for place, length in enumerate(lengths):
        if length is None:
            where = axis.get_yaxis_transform()
            axis.text(0.01, place, missing, va="center", style="italic", transform=where)


def _use_units(axis: Axes) -> None:
    from matplotlib.ticker import EngFormatter

    axis.xaxis.set_major_formatter(EngFormatter(sep=" "))


def _shortened(name: str) -> str:
    """The name, its middle left out if it is too long; the tables have all of it."""
    if len(name) <= _NAME_LENGTH:
        return name
    half = _NAME_LENGTH // 2 - 1
    return f"{name[:half]}..{name[-half:]}"


def array_name(cost: ArrayCost) -> str:
    """Returns what a row of the array is called: the layer, and its kernel if it has two."""
    part = cost.weight.removesuffix("_kernel")
    return f"{cost.path} ({part})" if part == "pointwise" else cost.path


def bits_name(num_bits_weight: int, num_bits_activation: int) -> str:
    """Returns bits as in "2b/8b": weights / activations."""
    if num_bits_weight == num_bits_activation == FLOAT_BITS:
        return "float"
    return f"{num_bits_weight}b/{num_bits_activation}b"


def in_bytes(count: int) -> str:
    """Returns a number of bytes with a unit: 2359296 -> "2.36 MB"."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
