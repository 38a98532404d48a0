"""What bits cost, by budget: compute relative to float, bytes of the parameters, or cycles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.accelerator.trace import ACTIVATION_BITS
from wrpn_tf.analysis.array_layers import array_costs
from wrpn_tf.analysis.bit_budget import Term
from wrpn_tf.analysis.bit_space import BitSpace, Knob
from wrpn_tf.analysis.cost import check_counted, mac_cost, with_bits
from wrpn_tf.analysis.precision import FLOAT_BITS
from wrpn_tf.analysis.profile import ModelProfile
from wrpn_tf.quantization.quantize_registry import kernel_axes

BUDGETS = ("cost", "bytes", "cycles")


@dataclasses.dataclass(frozen=True)
class Prices:
    """The price of a model as a sum.

    Attributes:
        terms: Parts of the price; their knobs are positions in `BitSpace.knobs`.
        unit: What the sum is divided by to give the quantity.
    """

    terms: tuple[Term, ...]
    unit: float


def prices(
    space: BitSpace, quantity: str, *, cost_model: str, array: SystolicArray, baseline: ModelProfile
) -> Prices:
    """Returns what the options of a space cost.

    | quantity | for one example |
    |---|---|
    | "cost" | `relative_cost`, in float32 multiply-accumulates of `baseline` |
    | "bytes" | bytes of the parameters at their bits, as `wrpn_tf.summary` counts them |
    | "cycles" | of the products on the array; k-bit weights take k - 1 passes (`array_costs`) |

    Args:
        space: Of the model.
        quantity: One of `BUDGETS`.
        cost_model: "sum" or "product", for "cost".
        array: The accelerator, for "cycles".
        baseline: The float network that cost is relative to.

    Raises:
        ValueError: If multiply-accumulates are unknown, or the array cannot run a layer.
    """
    profile = ModelProfile(space.model)
    positions = {(knob.kind, knob.path): index for index, knob in enumerate(space.knobs)}
    if quantity == "bytes":
        return Prices(_byte_terms(profile, space, positions), 1)
    check_counted(profile, "model")
    if quantity == "cycles":
        return Prices(_cycle_terms(profile, space, positions, array), 1)
    return Prices(_cost_terms(profile, space, positions, cost_model), baseline.num_macs)


def _byte_terms(
    profile: ModelProfile, space: BitSpace, positions: Mapping[tuple[str, str], int]
) -> tuple[Term, ...]:
    terms = []
    for layer in profile.layers:
        for weight in layer.weights:
            index = positions.get(("weight", layer.path))
            if index is not None and weight.name in kernel_axes(space.graph.layers()[layer.path]):
                sizes = [
                    dataclasses.replace(weight, num_bits=bits).num_bytes
                    for bits in space.knobs[index].bits
                ]
                terms.append(_term((index,), sizes))
            else:
                terms.append(_term((), weight.num_bytes))
    return tuple(terms)


def _cycle_terms(
    profile: ModelProfile,
    space: BitSpace,
    positions: Mapping[tuple[str, str], int],
    array: SystolicArray,
) -> tuple[Term, ...]:
    every = sorted({bits for knob in space.knobs for bits in knob.bits})
    costs = {
        bits: array_costs(
            with_bits(profile, num_bits_weight=bits, num_bits_activation=ACTIVATION_BITS), array
        )
        for bits in every
    }
    terms = []
    for kernel in zip(*costs.values(), strict=True):
        by_bits = dict(zip(every, kernel, strict=True))
        if kernel[0].trace is None:
            raise ValueError(
                f"`budget` must not be of cycles for a model with layers that the array cannot "
                f"run, got {kernel[0].path!r}: {kernel[0].reason}."
            )
        index = positions["weight", kernel[0].path]
        cycles = [by_bits[bits].trace.cycles for bits in space.knobs[index].bits]
        terms.append(_term((index,), cycles))
    return tuple(terms)


def _cost_terms(
    profile: ModelProfile,
    space: BitSpace,
    positions: Mapping[tuple[str, str], int],
    cost_model: str,
) -> tuple[Term, ...]:
    sources = space.sources()
    terms: list[Term] = []
    for layer in profile.layers:
        for mac in layer.macs:
            weight = positions.get(("weight", layer.path))
            source = sources[layer.inputs[0]]
            is_knob = isinstance(source, Knob)
            activation = positions["activation", source.path] if is_knob else None
            bits_weight = (FLOAT_BITS,) if weight is None else space.knobs[weight].bits
            bits_activation = source.bits if is_knob else (source,)
            table = mac.count * np.array(
                [[mac_cost(a, w, model=cost_model) for w in bits_weight] for a in bits_activation]
            )
            terms += _mac_terms(table, activation, weight, cost_model)
    return tuple(terms)


def _mac_terms(
    table: np.ndarray, activation: int | None, weight: int | None, cost_model: str
) -> list[Term]:
    """Terms of prices [bits of activations, bits of weights]; a sum falls apart in two of them."""
    if activation is None and weight is None:
        return [_term((), table[0, 0])]
    if activation is None:
        return [_term((weight,), table[0])]
    if weight is None:
        return [_term((activation,), table[:, 0])]
    if cost_model == "sum":
        return [_term((activation,), table[:, 0]), _term((weight,), table[0] - table[0, 0])]
    return [_term((activation, weight), table)]


def _term(knobs: tuple[int, ...], values: Any) -> Term:
    return Term(knobs, np.asarray(values, np.float64))
