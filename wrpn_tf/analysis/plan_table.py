"""`plan`: what bits and widths would cost, before anything is built."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from wrpn_tf.analysis.cost import COST_MODELS, check_multiplies, counted_cost
from wrpn_tf.analysis.plan_bits import BitPlanner, apply_bits
from wrpn_tf.analysis.plan_widening import apply_widths
from wrpn_tf.analysis.precision import FLOAT_BITS
from wrpn_tf.analysis.profile import ModelProfile
from wrpn_tf.quantization.layer_settings import Bits, Override, QuantizationRules
from wrpn_tf.widening.width_plan import WidthRules, make_plan

_NUM_BITS = ((8, 8), (4, 8), (2, 8), (4, 4), (2, 4), (2, 2))
_WIDTH_MULTIPLIERS = (1.0, 1.5, 2.0, 3.0)
_COLUMNS = 100
_ROW_TITLE = 12
_CELL = 22
_CELLS_PER_LINE = (_COLUMNS - _ROW_TITLE) // _CELL
_FORMULAS = {"sum": "MACs x (A + W) bits / 64", "product": "MACs x A x W bits / 1024"}


@dataclasses.dataclass(frozen=True)
class PlanCell:
    """What one network of a plan would be.

    Attributes:
        num_bits_weight: Bits of weights asked for; 32 is the float network.
        num_bits_activation: Bits of activations asked for.
        width_multiplier: Widening asked for.
        num_macs: Multiply-accumulates for one example.
        num_parameters: Parameters.
        num_bytes: Bytes of the parameters at their bits, as `wrpn_tf.summary` counts them.
        cost: Compute cost relative to the float network before widening.
    """

    num_bits_weight: int
    num_bits_activation: int
    width_multiplier: float
    num_macs: int
    num_parameters: int
    num_bytes: int
    cost: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `wrpn_tf.plan` returns; `str()` of it is the table.

    Attributes:
        name: The model's name.
        cost_model: "sum" or "product".
        first_layer: Bits of the first layers' weights, or "float".
        last_layer: Bits of the last layers' weights, or "float".
        cells: One for each pair of bits and each width, bits first; the float networks lead.
        uncounted: Path -> why the layer's multiply-accumulates are unknown; they are in no cost.
    """

    name: str
    cost_model: str
    first_layer: Bits
    last_layer: Bits
    cells: tuple[PlanCell, ...]
    uncounted: dict[str, str]

    def cell(
        self, num_bits_weight: int, num_bits_activation: int, width_multiplier: float = 1.0
    ) -> PlanCell:
        """Returns the cell of bits and a width.

        Raises:
            KeyError: If they are not in the plan.
        """
        wanted = (num_bits_weight, num_bits_activation, width_multiplier)
        for cell in self.cells:
            if wanted == (cell.num_bits_weight, cell.num_bits_activation, cell.width_multiplier):
                return cell
        raise KeyError(
            f"The plan has no cell with {num_bits_weight} bits of weights, {num_bits_activation} "
            f"of activations and width {width_multiplier}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it in types that JSON can hold."""
        data = dataclasses.asdict(self)
        data["cells"] = list(data["cells"])
        return data

    def __str__(self) -> str:
        return "\n".join(_table_lines(self))


def plan(
    model: Any,
    *,
    num_bits: Sequence[tuple[int, int]] = _NUM_BITS,
    width_multipliers: Sequence[float] = _WIDTH_MULTIPLIERS,
    cost_model: str = "sum",
    layer_fraction: float = 1.0,
    width_overrides: Mapping[str, float] | None = None,
    divisor: int = 8,
    weight_scale: str | float = "mean",
    activation_range: str | float = "learned",
    first_layer: Bits = 8,
    last_layer: Bits = 8,
    overrides: Mapping[str, Override] | None = None,
    print_fn: Callable[[str], Any] | None = print,
) -> Plan:
    """Prints and returns what a model would cost at some bits and widths, building none of them.

    Each cell is what `wrpn_tf.summary` would say of `wrpn_tf.widen_and_quantize(model, ...)` with
    the same arguments: the cost relative to `model` in float32, and the bytes of its parameters.

    Args:
        model: A float Functional or Sequential model of either Keras.
        num_bits: Pairs (bits of weights, bits of activations), each 1..8; float is always there.
        width_multipliers: New filters / old filters.
        cost_model: "sum" (multiply-accumulates * (a + w) / 64) or "product" (* a * w / 1024).
        layer_fraction: As in `wrpn_tf.widen_model`.
        width_overrides: As in `wrpn_tf.widen_and_quantize`.
        divisor: As in `wrpn_tf.widen_model`.
        weight_scale: As in `wrpn_tf.quantize_model`; no figure here depends on it.
        activation_range: As in `wrpn_tf.quantize_model`; tensors of observed range have 2 bits or
            more.
        first_layer: As in `wrpn_tf.quantize_model`.
        last_layer: As in `wrpn_tf.quantize_model`.
        overrides: As in `wrpn_tf.quantize_model`.
        print_fn: Takes each line of the table, which has 100 columns at most; None prints nothing.

    Raises:
        TypeError, ValueError: As `wrpn_tf.widen_and_quantize`; if `num_bits` or
            `width_multipliers` is empty or of another form, `cost_model` is unknown, or no
            layer's multiply-accumulates are known, as where the input has no fixed size.
    """
    if cost_model not in COST_MODELS:
        raise ValueError(f'`cost_model` must be "sum" or "product", got {cost_model!r}.')
    bits = _checked_pairs(num_bits)
    all_rules = [
        QuantizationRules(
            num_bits_weight=weight,
            num_bits_activation=activation,
            weight_scale=weight_scale,
            activation_range=activation_range,
            first_layer=first_layer,
            last_layer=last_layer,
            overrides=overrides,
        )
        for weight, activation in bits
    ]
    planner = BitPlanner(model)
    planned = [planner.bits(rules) for rules in all_rules]
    baseline = ModelProfile(model)
    check_multiplies(baseline, "model")
    profiles = {
        width: _widened(
            model, baseline, WidthRules(width, layer_fraction, width_overrides or {}, divisor)
        )
        for width in _checked_widths(width_multipliers)
    }
    unit = counted_cost(baseline, cost_model)
    rows = [((FLOAT_BITS, FLOAT_BITS), None), *zip(bits, planned, strict=True)]
    cells = []
    for pair, chosen in rows:
        for width, profile in profiles.items():
            low = profile if chosen is None else apply_bits(profile, chosen)
            cells.append(_cell(low, pair, width, cost_model, unit))
    result = Plan(
        baseline.name, cost_model, first_layer, last_layer, tuple(cells), baseline.uncounted
    )
    if print_fn is not None:
        for line in _table_lines(result):
            print_fn(line)
    return result


def _widened(model: Any, baseline: ModelProfile, rules: WidthRules) -> ModelProfile:
    """As `widen_and_quantize`, which widens nothing where nothing is asked for."""
    if rules.width_multiplier == 1 and not rules.overrides:
        return baseline
    return apply_widths(baseline, make_plan(model, rules))


def _cell(
    profile: ModelProfile, bits: tuple[int, int], width: float, cost_model: str, unit: float
) -> PlanCell:
    return PlanCell(
        num_bits_weight=bits[0],
        num_bits_activation=bits[1],
        width_multiplier=width,
        num_macs=profile.num_macs,
        num_parameters=profile.num_parameters,
        num_bytes=profile.num_bytes,
        cost=counted_cost(profile, cost_model) / unit,
    )


def _checked_pairs(num_bits: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    is_sequence = isinstance(num_bits, Sequence) and not isinstance(num_bits, str)
    pairs = list(num_bits) if is_sequence else []
    if not pairs or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise ValueError(
            "`num_bits` must be a sequence of pairs (bits of weights, bits of activations), got "
            f"{num_bits!r}."
        )
    return list(dict.fromkeys((weight, activation) for weight, activation in pairs))


def _checked_widths(width_multipliers: Sequence[float]) -> list[float]:
    is_sequence = isinstance(width_multipliers, Sequence) and not isinstance(width_multipliers, str)
    if not is_sequence or not width_multipliers:
        raise ValueError(
            f"`width_multipliers` must be a sequence of numbers, got {width_multipliers!r}."
        )
    return list(dict.fromkeys(width_multipliers))


def _table_lines(result: Plan) -> Iterator[str]:
    """Yields the lines of a plan's table, widths side by side as far as they fit."""
    yield from textwrap.wrap(
        f"{result.name}: cost relative to its {FLOAT_BITS}-bit float form ({result.cost_model}: "
        f"{_FORMULAS[result.cost_model]}) and bytes of the parameters; bits are W/A, first layer "
        f"{result.first_layer}, last layer {result.last_layer}",
        _COLUMNS,
    )
    widths = list(dict.fromkeys(cell.width_multiplier for cell in result.cells))
    for start in range(0, len(widths), _CELLS_PER_LINE):
        yield from _block_lines(result, widths[start : start + _CELLS_PER_LINE])
    if result.uncounted:
        layers = ", ".join(f"{path} ({reason})" for path, reason in result.uncounted.items())
        yield from textwrap.wrap(
            f"MACs unknown, in no cost: {layers}", _COLUMNS, subsequent_indent="  "
        )


def _block_lines(result: Plan, widths: list[float]) -> Iterator[str]:
    rule = "-" * (_ROW_TITLE + _CELL * len(widths))
    yield rule
    yield f"{'bits':<{_ROW_TITLE}}" + "".join(f"{f'{width:g}x wide':>{_CELL}}" for width in widths)
    yield rule
    pairs = dict.fromkeys((c.num_bits_weight, c.num_bits_activation) for c in result.cells)
    for weight, activation in pairs:
        title = "float" if weight == FLOAT_BITS else f"{weight}b/{activation}b"
        cells = [result.cell(weight, activation, width) for width in widths]
        yield f"{title:<{_ROW_TITLE}}" + "".join(
            f"{cell.cost:>{_CELL - 14}.3f}{cell.num_bytes:>14,}" for cell in cells
        )
    yield rule
