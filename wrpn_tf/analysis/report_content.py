"""What a report tells of a model: the numbers, before they become tables and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.analysis.array_layers import ArrayCost, array_costs, check_bandwidth
from wrpn_tf.analysis.cost import COST_MODELS, check_counted, counted_cost, with_bits
from wrpn_tf.analysis.memory import MemoryFootprint, memory_table
from wrpn_tf.analysis.model_summary import Summary, check_batch_size, summarize
from wrpn_tf.analysis.plan_table import PlanCell, plan
from wrpn_tf.analysis.precision import FLOAT_BITS
from wrpn_tf.analysis.profile import ModelProfile
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import is_quantized

# What the paper's array is built for; a float model is shown as if it had these bits.
ARRAY_BITS_WEIGHT, ARRAY_BITS_ACTIVATION = 2, 8
_UNIFORM_BITS = ((32, 32), (8, 8), (4, 8), (2, 8), (4, 4), (2, 4), (2, 2), (1, 1))


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """What a report assumes; the arguments of `report` of the same names.

    Raises:
        TypeError, ValueError: As `report`.
    """

    batch_sizes: Sequence[int]
    cost_model: str
    array: SystolicArray
    dram_bytes_per_cycle: float

    def __post_init__(self) -> None:
        is_sequence = isinstance(self.batch_sizes, Sequence) and not isinstance(
            self.batch_sizes, str
        )
        if not is_sequence or not self.batch_sizes:
            raise ValueError(
                f"`batch_sizes` must be a sequence of integers >= 1, got {self.batch_sizes!r}."
            )
        for size in self.batch_sizes:
            check_batch_size(size)
        if self.cost_model not in COST_MODELS:
            raise ValueError(f'`cost_model` must be "sum" or "product", got {self.cost_model!r}.')
        if not isinstance(self.array, SystolicArray):
            raise TypeError(f"`array` must be a SystolicArray, got {type(self.array).__name__}.")
        check_bandwidth(self.dram_bytes_per_cycle)


@dataclasses.dataclass(frozen=True)
class CostPlan:
    """Costs by bits and width.

    Attributes:
        cells: Costs relative to the float network; empty if they cannot be told.
        source: What the cells are, or why there are none.
        own_cost: The cost of the model itself in the same unit; None for a float model.
    """

    cells: tuple[PlanCell, ...]
    source: str
    own_cost: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ReportContent:
    """All numbers of a report.

    Attributes:
        settings: What it assumes.
        summary: As `wrpn_tf.summary`, for one example.
        memory: Training, then inference, by batch size; empty if it cannot be told.
        memory_unknown: Why not; None if it can.
        costs: By bits and width.
        array_costs: Of each kernel on the array.
        is_assumed: Whether these are of a float model as if it had the array's bits.
    """

    settings: ReportSettings
    summary: Summary
    memory: tuple[MemoryFootprint, ...]
    memory_unknown: str | None
    costs: CostPlan
    array_costs: tuple[ArrayCost, ...]
    is_assumed: bool


def gather(model: Any, baseline: Any, settings: ReportSettings) -> ReportContent:
    """Counts everything.

    Args:
        model: As in `report`.
        baseline: As in `report`.
        settings: What to assume.

    Raises:
        TypeError, ValueError: As `report`.
    """
    profile = ModelProfile(model)
    for shape in profile.inputs.values():
        if None in shape[1:]:
            raise ValueError(
                f"`model` must have inputs of known sizes, got one of shape {shape}. Give the "
                "model a fixed input shape."
            )
    memory, unknown = _memory(profile, settings)
    kernels = [layer for layer in profile.layers if layer.macs]
    is_assumed = all(layer.is_float for layer in kernels)
    deployed = (
        with_bits(
            profile,
            num_bits_weight=ARRAY_BITS_WEIGHT,
            num_bits_activation=ARRAY_BITS_ACTIVATION,
        )
        if is_assumed
        else profile
    )
    return ReportContent(
        settings=settings,
        summary=summarize(profile),
        memory=memory,
        memory_unknown=unknown,
        costs=_costs(model, profile, baseline, settings.cost_model),
        array_costs=array_costs(deployed, settings.array),
        is_assumed=is_assumed,
    )


def _memory(
    profile: ModelProfile, settings: ReportSettings
) -> tuple[tuple[MemoryFootprint, ...], str | None]:
    try:
        return memory_table(profile, batch_sizes=settings.batch_sizes), None
    except ValueError as error:  # A layer or a size is unknown: the report says which.
        return (), str(error)


def _costs(model: Any, profile: ModelProfile, baseline: Any, cost_model: str) -> CostPlan:
    layers = model_graph(model).layers().values()
    if not any(is_quantized(layer) for layer in layers):
        if baseline is not None:
            raise ValueError("`baseline` must be None for a float model, got a model.")
        return CostPlan(*_planned(model, cost_model))
    if baseline is None:
        return _uniform(profile, cost_model)
    reference = ModelProfile(baseline)
    check_counted(reference, "baseline")
    cells, source = _planned(baseline, cost_model)
    return CostPlan(cells, source, counted_cost(profile, cost_model) / reference.num_macs)


def _planned(model: Any, cost_model: str) -> tuple[tuple[PlanCell, ...], str]:
    """The plan of a float model; at its own width if it cannot be widened."""
    try:
        found = plan(model, cost_model=cost_model, print_fn=None)
        return found.cells, "`wrpn_tf.plan` of the float network, with its defaults"
    except ValueError as error:
        narrow = str(error)
    try:
        found = plan(model, cost_model=cost_model, width_multipliers=(1.0,), print_fn=None)
    except ValueError as error:
        return (), f"No plan: {error}"
    return found.cells, f"`wrpn_tf.plan` at the network's own width, for it has no other: {narrow}"


def _uniform(profile: ModelProfile, cost_model: str) -> CostPlan:
    """What the network would cost with the same bits in all layers, at its own width."""
    if not profile.num_macs:
        return CostPlan((), "No plan: no multiply-accumulates are known.")
    cells = []
    for weight, activation in _UNIFORM_BITS:
        changed = with_bits(profile, num_bits_weight=weight, num_bits_activation=activation)
        cells.append(
            PlanCell(
                num_bits_weight=weight,
                num_bits_activation=activation,
                width_multiplier=1.0,
                num_macs=changed.num_macs,
                num_parameters=changed.num_parameters,
                num_bytes=changed.num_bytes,
                cost=counted_cost(changed, cost_model) / profile.num_macs,
            )
        )
    own = counted_cost(profile, cost_model) / profile.num_macs
    source = (
        "This network at its own width, as if every layer had the same bits, relative to itself in "
        f"{FLOAT_BITS}-bit float. Pass the float network that it was made from as `baseline` to "
        "see other widths, and costs relative to that network."
    )
    return CostPlan(tuple(cells), source, own)
