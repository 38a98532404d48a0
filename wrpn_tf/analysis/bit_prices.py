"""What bits cost, by budget: compute relative to float, bytes of the parameters, or cycles."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.accelerator.gemm import layer_trace
from wrpn_tf.analysis.bit_budget import Term
from wrpn_tf.analysis.bit_space import BitSpace, Knob
from wrpn_tf.analysis.cost import check_counted, mac_cost
from wrpn_tf.analysis.precision import FLOAT_BITS
from wrpn_tf.analysis.profile import MACProfile, ModelProfile
from wrpn_tf.keras_flavor import keras_class
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
    | "cycles" | of the products on the array; k-bit weights take k - 1 passes (`timing`) |

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
    terms = []
    for layer in profile.layers:
        for mac in layer.macs:
            index = positions.get(("weight", layer.path))
            if index is None:
                raise ValueError(
                    f"`budget` must not be of cycles for a model with weights that stay float, got "
                    f"the layer {layer.path!r}."
                )
            knob = space.knobs[index]
            cycles = [_cycles(space, knob, bits, mac, array) for bits in knob.bits]
            terms.append(_term((index,), cycles))
    return tuple(terms)


def _cycles(
    space: BitSpace, knob: Knob, num_bits: int, mac: MACProfile, array: SystolicArray
) -> int:
    """Cycles of one call of a layer, as its products of M x K by K x N."""
    layer = space.graph.layers()[knob.path]
    shape = tuple(int(size) for size in space.kernel(knob).shape)
    (axes,) = kernel_axes(layer).values()
    outputs = math.prod(shape[axis] for axis in axes)
    depth = math.prod(shape) // outputs
    groups = getattr(layer, "groups", 1)
    if keras_class(layer).startswith("Depthwise"):
        groups = shape[-2]
    elif keras_class(layer).endswith("Transpose"):
        outputs, depth = math.prod(shape[:-1]), shape[-1]
    rows = mac.count // (outputs * depth)
    return layer_trace(array, rows, outputs // groups, depth, groups, num_bits, 0).cycles


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
