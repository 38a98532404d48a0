"""`search`: bits for each layer of a trained network, under a budget."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.analysis.bit_budget import within
from wrpn_tf.analysis.bit_data import joined_batches
from wrpn_tf.analysis.bit_network_search import NetworkSearch
from wrpn_tf.analysis.bit_search_result import Candidate, SearchResult, Sensitivity
from wrpn_tf.analysis.bit_search_settings import SearchSettings, checked_wider
from wrpn_tf.analysis.profile import ModelProfile


def search(
    model: Any,
    budget: Mapping[str, float],
    data: Any,
    *,
    num_bits_weight: Sequence[int] = (2, 3, 4, 5, 6, 8),
    num_bits_activation: Sequence[int] = (3, 4, 5, 6, 8),
    search_ends: bool = False,
    wider: Mapping[float, Any] | None = None,
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
        data: Inputs, or a pair (inputs, labels), as arrays, or an iterable of batches of them, as
            a `tf.data.Dataset` is, which is read once. A few hundred examples will do.
        num_bits_weight: Bits to choose from for weights, 1..8.
        num_bits_activation: Bits to choose from for activations, 2..8.
        search_ends: Whether to choose the bits of the first and last layers' weights, too; else
            these have 8.
        wider: Width multiplier -> a trained copy of the model of that width (`widen_model` makes
            them), to choose from, too. Needs `measure="loss"`. The result says which it is for.
        measure: "kl": Kullback-Leibler divergence from the float network's probabilities, of
            classes or of yes and no (a single output, or sigmoids); "loss": cross entropy of the
            labels, which can fall by chance; "mse": squared error of the outputs, for networks that
            do not classify.
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
    settings = SearchSettings(
        budget,
        num_bits_weight,
        num_bits_activation,
        search_ends,
        measure,
        cost_model,
        SystolicArray() if array is None else array,
        weight_scale,
        batch_size,
        checkpoint,
        verbose,
    )
    networks = {1.0: model, **checked_wider(wider, measure)}
    baseline = ModelProfile(model)
    data = joined_batches(data)
    searches = [NetworkSearch(x, width, settings, baseline, data) for width, x in networks.items()]
    reachable = [x for x in searches if within(x.least, settings.limit)]
    if not reachable:
        raise _unreachable(min(x.least for x in searches), settings)
    reference = searches[0].float_error()
    found: dict[Candidate, tuple[NetworkSearch, tuple[Sensitivity, ...]]] = {}
    for network in reachable:
        sensitivities = network.sensitivities()
        for candidate in network.candidates(sensitivities, reference):
            found[candidate] = (network, sensitivities)
    best = min(found, key=lambda candidate: candidate.error)
    return _result(model.name, settings, best, tuple(found), *found[best])


def _result(
    name: str,
    settings: SearchSettings,
    best: Candidate,
    candidates: tuple[Candidate, ...],
    network: NetworkSearch,
    sensitivities: tuple[Sensitivity, ...],
) -> SearchResult:
    assignment = dict(zip(network.space.knobs, best.bits, strict=True))
    weights, activations = (
        {knob.path: bits for knob, bits in assignment.items() if knob.kind == kind}
        for kind in ("weight", "activation")
    )
    return SearchResult(
        name=name,
        quantity=settings.quantity,
        cost_model=settings.cost_model,
        budget=settings.limit,
        measure=settings.measure,
        num_examples=network.num_examples,
        width_multiplier=network.width,
        overrides=network.space.overrides(assignment),
        num_bits_weight=weights,
        num_bits_activation=activations,
        best=best,
        candidates=candidates,
        sensitivities=sensitivities,
    )


def _unreachable(least: float, settings: SearchSettings) -> ValueError:
    is_cost = settings.quantity == "cost"
    shown = f"{math.ceil(least * 1e6) / 1e6:.6f}" if is_cost else f"{math.ceil(least)}"
    return ValueError(
        f"`budget` must be at least {{{settings.quantity!r}: {shown}}} for the bits to choose "
        f"from, got {settings.limit:g}. `search_ends=True` and fewer bits lower it."
    )
