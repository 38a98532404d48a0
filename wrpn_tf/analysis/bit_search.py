"""`search`: bits for each layer of a trained network, under a budget."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.analysis.bit_budget import allocate, least_price, total_price, within
from wrpn_tf.analysis.bit_measures import MEASURES
from wrpn_tf.analysis.bit_prices import BUDGETS, Prices, prices
from wrpn_tf.analysis.bit_search_result import Candidate, SearchResult, Sensitivity
from wrpn_tf.analysis.bit_sensitivity import Prober, single_changes
from wrpn_tf.analysis.bit_space import BitSpace
from wrpn_tf.analysis.cost import COST_MODELS
from wrpn_tf.analysis.profile import ModelProfile
from wrpn_tf.grid import check_num_bits


def search(
    model: Any,
    budget: Mapping[str, float],
    data: Any,
    *,
    num_bits_weight: Sequence[int] = (2, 3, 4, 5, 6, 8),
    num_bits_activation: Sequence[int] = (3, 4, 5, 6, 8),
    search_ends: bool = False,
    measure: str = "kl",
    cost_model: str = "sum",
    array: SystolicArray | None = None,
    weight_scale: str | float = "mean",
    batch_size: int = 128,
    checkpoint: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> SearchResult:
    """Chooses bits for each layer of a trained float network, under a budget.

    Each layer's kernel, and each activation that a kernel multiplies, is rounded alone, to each
    number of bits, and its error on the data measured: one pass each, no training. Of all choices
    within the budget, the one with the least sum of errors is found (a multiple-choice knapsack,
    `bit_budget`). Errors do not really add up, so it is measured as a whole, as are the best
    uniform bits within the budget; the best of all is the result:

        result = wrpn_tf.search(model, {"cost": 0.12}, (x, y))
        print(result)
        quantized = wrpn_tf.quantize_model(model, overrides=result.overrides)
        wrpn_tf.calibrate(quantized, x)

    Args:
        model: A trained float Functional or Sequential model of either Keras, with one input and
            one output. It is not changed.
        budget: One of {"cost": compute cost relative to the float network}, {"bytes": of all
            parameters}, {"cycles": on the accelerator, for one example}. Activations count in
            "cost" only; with the others, they keep the most of `num_bits_activation`.
        data: Inputs, or a pair (inputs, labels), as arrays. A few hundred examples will do.
        num_bits_weight: Bits to choose from for weights, 1..8.
        num_bits_activation: Bits to choose from for activations, 2..8.
        search_ends: Whether to choose the bits of the first and last layers' weights, too; else
            these have 8.
        measure: "kl": Kullback-Leibler divergence from the float network's probabilities; "loss":
            cross entropy of the labels, which can fall by chance; "mse": squared error of the
            outputs, for networks that do not classify.
        cost_model: As in `wrpn_tf.plan`.
        array: The accelerator, for cycles; None: 8 x 8 engines, output stationary.
        weight_scale: As in `wrpn_tf.quantize_model`; if not "mean", it is in the overrides.
        batch_size: Examples computed at a time.
        checkpoint: A file in which each pass is written down, so that a search that was stopped
            goes on where it was, and one with another budget measures nothing twice.
        verbose: Whether to show a progress bar.

    Raises:
        TypeError: If `model` is no Keras model, or bits or `batch_size` are no integers.
        ValueError: If the budget cannot be met (the message says what the least is), an argument is
            out of range, the data does not fit, the checkpoint is of another model, data or
            setting, or multiply-accumulates of a layer are unknown.
    """
    quantity, limit = _checked_budget(budget)
    weights = _checked_bits(num_bits_weight, "num_bits_weight", 1)
    activations = _checked_bits(num_bits_activation, "num_bits_activation", 2)
    _check_choice(measure, "measure", MEASURES)
    _check_choice(cost_model, "cost_model", COST_MODELS)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise TypeError(f"`batch_size` must be an integer, got {batch_size!r}.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    space = BitSpace(
        model,
        num_bits_weight=weights,
        num_bits_activation=activations if quantity == "cost" else activations[-1:],
        search_ends=search_ends,
        weight_scale=weight_scale,
    )
    price = prices(
        space,
        quantity,
        cost_model=cost_model,
        array=array or SystolicArray(),
        baseline=ModelProfile(model),
    )
    _check_reachable(space, price, quantity, limit)
    prober = Prober(
        space,
        data,
        measure=measure,
        batch_size=batch_size,
        checkpoint=checkpoint,
        verbose=verbose,
    )
    sensitivities, float_error = _sensitivities(space, prober)
    candidates = _candidates(space, price, limit, sensitivities, prober, float_error)
    best = min(candidates, key=lambda candidate: candidate.error)
    chosen = {knob.kind: {} for knob in space.knobs}
    for knob, bits in zip(space.knobs, best.bits, strict=True):
        chosen[knob.kind][knob.path] = bits
    return SearchResult(
        name=model.name,
        quantity=quantity,
        cost_model=cost_model,
        budget=limit,
        measure=measure,
        num_examples=prober.num_examples,
        overrides=space.overrides(dict(zip(space.knobs, best.bits, strict=True))),
        num_bits_weight=chosen["weight"],
        num_bits_activation=chosen.get("activation", {}),
        best=best,
        candidates=tuple(candidates),
        sensitivities=sensitivities,
    )


def _sensitivities(space: BitSpace, prober: Prober) -> tuple[tuple[Sensitivity, ...], float]:
    """Measures each option of each knob, and the float network."""
    changes = single_changes(space.knobs)
    float_error, *errors = prober.errors([{}, *changes])
    rows = [
        Sensitivity(knob.kind, knob.path, bits, error - float_error)
        for change, error in zip(changes, errors, strict=True)
        for knob, bits in change.items()
    ]
    return tuple(rows), float_error


def _candidates(
    space: BitSpace,
    price: Prices,
    limit: float,
    sensitivities: Sequence[Sensitivity],
    prober: Prober,
    float_error: float,
) -> list[Candidate]:
    """Measures the choice of the least sum of errors, and uniform bits."""
    alone = {(row.kind, row.path, row.num_bits): row.error for row in sensitivities}
    tables = [
        np.array([alone.get((knob.kind, knob.path, bits), 0.0) for bits in knob.bits])
        for knob in space.knobs
    ]
    chosen = allocate(tables, price.terms, limit * price.unit)
    tried = {"layer by layer": chosen, **_uniform(space, price, limit)}
    bits = {
        name: tuple(knob.bits[i] for knob, i in zip(space.knobs, options, strict=True))
        for name, options in tried.items()
    }
    errors = prober.errors([dict(zip(space.knobs, x, strict=True)) for x in bits.values()])
    return [
        Candidate(
            name=name,
            bits=bits[name],
            price=total_price(price.terms, options) / price.unit,
            predicted=float(sum(table[i] for table, i in zip(tables, options, strict=True))),
            error=error - float_error,
        )
        for (name, options), error in zip(tried.items(), errors, strict=True)
    ]


def _uniform(space: BitSpace, price: Prices, limit: float) -> dict[str, tuple[int, ...]]:
    """Uniform bits within the budget, of which neither has more bits in both; with their names."""
    choices = {
        kind: max((x.bits for x in space.knobs if x.kind == kind), key=len, default=(8,))
        for kind in ("weight", "activation")
    }
    found: list[tuple[int, int]] = []
    named = {}
    for weight, activation in itertools.product(*(reversed(x) for x in choices.values())):
        asked = {"weight": weight, "activation": activation}
        options = tuple(
            knob.bits.index(asked[knob.kind]) if len(knob.bits) > 1 else 0 for knob in space.knobs
        )
        is_covered = any(w >= weight and a >= activation for w, a in found)
        if not is_covered and within(total_price(price.terms, options), limit * price.unit):
            found.append((weight, activation))
            named[f"uniform {weight}b/{activation}b"] = options
    return named


def _check_reachable(space: BitSpace, price: Prices, quantity: str, limit: float) -> None:
    least = least_price([np.zeros(len(x.bits)) for x in space.knobs], price.terms) / price.unit
    if not within(least, limit):
        shown = f"{math.ceil(least * 1e6) / 1e6:g}" if quantity == "cost" else f"{math.ceil(least)}"
        raise ValueError(
            f"`budget` must be at least {{{quantity!r}: {shown}}} for the bits to choose from, got "
            f"{limit:g}. `search_ends=True` and fewer bits lower it."
        )


def _checked_budget(budget: Mapping[str, float]) -> tuple[str, float]:
    if not isinstance(budget, Mapping) or len(budget) != 1 or next(iter(budget)) not in BUDGETS:
        raise ValueError(
            f"`budget` must be a dictionary with one of {', '.join(map(repr, BUDGETS))}, got "
            f"{budget!r}."
        )
    ((quantity, limit),) = budget.items()
    is_number = isinstance(limit, (int, float, np.integer, np.floating))
    if isinstance(limit, bool) or not is_number or not 0 < limit < math.inf:
        raise ValueError(f"`budget[{quantity!r}]` must be a finite number > 0, got {limit!r}.")
    return quantity, float(limit)


def _checked_bits(num_bits: Sequence[int], argument: str, least: int) -> tuple[int, ...]:
    is_sequence = isinstance(num_bits, Sequence) and not isinstance(num_bits, str)
    if not is_sequence or not num_bits:
        raise ValueError(f"`{argument}` must be a sequence of bits, got {num_bits!r}.")
    bits = tuple(sorted({check_num_bits(x, argument) for x in num_bits}))
    if bits[0] < least:
        raise ValueError(f"`{argument}` must be in {least}..8, got {bits[0]}.")
    return bits


def _check_choice(value: str, argument: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(
            f"`{argument}` must be one of {', '.join(map(repr, choices))}, got {value!r}."
        )
