"""What `search` is asked for, checked."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.analysis.bit_measures import MEASURES
from wrpn_tf.analysis.bit_prices import BUDGETS
from wrpn_tf.analysis.cost import COST_MODELS
from wrpn_tf.grid import check_num_bits


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """The arguments of `search`, but for the networks and the data.

    Raises:
        TypeError, ValueError: If a value is out of range.
    """

    budget: Mapping[str, float]
    num_bits_weight: Sequence[int]
    num_bits_activation: Sequence[int]
    search_ends: bool
    measure: str
    cost_model: str
    array: SystolicArray
    weight_scale: str | float
    batch_size: int
    checkpoint: str | os.PathLike[str] | None
    verbose: bool

    def __post_init__(self) -> None:
        _check_budget(self.budget)
        for argument, least in (("num_bits_weight", 1), ("num_bits_activation", 2)):
            bits = _checked_bits(getattr(self, argument), argument, least)
            object.__setattr__(self, argument, bits)
        _check_choice(self.measure, "measure", MEASURES)
        _check_choice(self.cost_model, "cost_model", COST_MODELS)
        if not isinstance(self.array, SystolicArray):
            raise TypeError(f"`array` must be a SystolicArray, got {type(self.array).__name__}.")
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int):
            raise TypeError(f"`batch_size` must be an integer, got {self.batch_size!r}.")
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}.")

    @property
    def quantity(self) -> str:
        """What is limited: "cost", "bytes" or "cycles"."""
        return next(iter(self.budget))

    @property
    def limit(self) -> float:
        """How much of it there may be."""
        return float(self.budget[self.quantity])

    @property
    def bits_by_kind(self) -> dict[str, tuple[int, ...]]:
        """The bits to choose from; activations have no choice where they do not count."""
        activations = tuple(self.num_bits_activation)
        return {
            "weight": tuple(self.num_bits_weight),
            "activation": activations if self.quantity == "cost" else activations[-1:],
        }


def checked_wider(wider: Mapping[float, Any] | None, measure: str) -> dict[float, Any]:
    """Returns width -> network of the argument `wider` of `search`.

    Raises:
        ValueError: If it is no dictionary of numbers above 0 and other than 1, or the measure does
            not compare networks.
    """
    if wider is None:
        return {}
    widths = list(wider) if isinstance(wider, Mapping) else [None]
    is_number = [isinstance(x, (int, float)) and not isinstance(x, bool) for x in widths]
    if not all(is_number) or not all(0 < x < math.inf and x != 1 for x in widths):
        raise ValueError(
            "`wider` must be a dictionary {width multiplier: network}, of numbers > 0 other than "
            f"1, got {wider!r:.80}."
        )
    if measure != "loss":
        raise ValueError(
            f'`measure` must be "loss" to compare networks of several widths, got {measure!r}.'
        )
    return {float(width): network for width, network in wider.items()}


def _check_budget(budget: Mapping[str, float]) -> None:
    if not isinstance(budget, Mapping) or len(budget) != 1 or next(iter(budget)) not in BUDGETS:
        raise ValueError(
            f"`budget` must be a dictionary with one of {', '.join(map(repr, BUDGETS))}, got "
            f"{budget!r}."
        )
    ((quantity, limit),) = budget.items()
    is_number = isinstance(limit, (int, float, np.integer, np.floating))
    if isinstance(limit, bool) or not is_number or not 0 < limit < math.inf:
        raise ValueError(f"`budget[{quantity!r}]` must be a finite number > 0, got {limit!r}.")


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
