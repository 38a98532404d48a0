"""What `wrpn_tf.search` finds, and its text: tables of at most 100 columns."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 100
_NAME = 36
_CELL = 10
_UNITS = {"cost": "of float", "bytes": "bytes", "cycles": "cycles"}
_MEASURES = {
    "kl": "divergence from the float network's probabilities, in nats",
    "loss": "cross entropy above the float network's, in nats",
    "mse": "mean squared error against the float network's outputs",
}


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """The error when one thing alone is rounded.

    Attributes:
        kind: "weight" or "activation".
        path: The layer.
        num_bits: Its bits.
        error: On the data, above the float network's.
    """

    kind: str
    path: str
    num_bits: int
    error: float


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A choice of bits for the whole network.

    Attributes:
        name: "layer by layer", or "uniform 4b/8b" (weights, activations).
        width_multiplier: Of the network.
        bits: Of each kernel and then each activation, in the order of the network.
        price: Its cost, bytes or cycles.
        predicted: The sum of the errors of its parts, above the error of the float network (of
            width 1).
        error: Likewise, measured as a whole.
    """

    name: str
    width_multiplier: float
    bits: tuple[int, ...]
    price: float
    predicted: float
    error: float


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What `wrpn_tf.search` returns; `str()` of it is the table.

    Attributes:
        name: The model's name.
        quantity: "cost", "bytes" or "cycles".
        cost_model: "sum" or "product"; for "cost".
        budget: Of the quantity.
        measure: "kl", "loss" or "mse".
        num_examples: Examples measured.
        width_multiplier: Of the network that the bits are for: 1 is `model`, any other is in
            `wider`.
        overrides: For `wrpn_tf.quantize_model(model, overrides=...)`, its other arguments as they
            are by default.
        num_bits_weight: Layer -> bits of its kernel.
        num_bits_activation: Layer -> bits of its output, where a kernel multiplies it.
        best: The candidate that the overrides describe; its `price` is what the network will cost.
        candidates: All that were measured as a whole.
        sensitivities: What was measured alone, in the network of that width.
    """

    name: str
    quantity: str
    cost_model: str
    budget: float
    measure: str
    num_examples: int
    width_multiplier: float
    overrides: Mapping[str, Mapping[str, Any]]
    num_bits_weight: Mapping[str, int]
    num_bits_activation: Mapping[str, int]
    best: Candidate
    candidates: tuple[Candidate, ...]
    sensitivities: tuple[Sensitivity, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it in types that JSON can hold."""
        return dataclasses.asdict(self)

    def to_table(self) -> str:
        """Returns the text: each layer's error by bits, then the candidates."""
        return "\n".join(_lines(self))

    def __str__(self) -> str:
        return self.to_table()


def _lines(result: SearchResult) -> Iterator[str]:
    model = f" ({result.cost_model})" if result.quantity == "cost" else ""
    yield from textwrap.wrap(
        f"{result.name}: bits for a budget of {_price(result, result.budget)}{model}. Errors: "
        f"{_MEASURES[result.measure]}, mean of {result.num_examples:,} examples. * marks the "
        "choice.",
        _WIDTH,
    )
    if result.width_multiplier != 1:
        yield f"The choice is for the network that is {result.width_multiplier:g}x wide."
    kinds = {"weight": result.num_bits_weight, "activation": result.num_bits_activation}
    for kind, chosen in kinds.items():
        if chosen:
            yield from _sensitivity_lines(result, kind, chosen)
    yield from _candidate_lines(result)


def _sensitivity_lines(result: SearchResult, kind: str, chosen: Mapping[str, int]) -> Iterator[str]:
    rows = [row for row in result.sensitivities if row.kind == kind]
    bits = sorted({*(row.num_bits for row in rows), *chosen.values()})
    errors = {(row.path, row.num_bits): row.error for row in rows}
    rule = "-" * (_NAME + _CELL * len(bits))
    yield rule
    yield f"{f'{kind}s rounded alone':<{_NAME}}" + "".join(f"{f'{b} bits':>{_CELL}}" for b in bits)
    yield rule
    for path, own in chosen.items():
        cells = (_cell(errors.get((path, b)), b == own) for b in bits)
        yield f"{_shortened(path):<{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)


def _cell(error: float | None, is_chosen: bool) -> str:
    text = "" if error is None else f"{error:.2g}"
    return f"{text}*" if is_chosen else f"{text} "


def _candidate_lines(result: SearchResult) -> Iterator[str]:
    rule = "-" * _WIDTH
    yield rule
    yield f"{'whole networks':<{_NAME}}{result.quantity:>24}{'sum of errors':>20}{'error':>19}"
    yield rule
    for candidate in result.candidates:
        mark = "*" if candidate == result.best else " "
        width = candidate.width_multiplier
        name = candidate.name if width == 1 else f"{candidate.name}, {width:g}x wide"
        yield (
            f"{name:<{_NAME}}{_price(result, candidate.price):>24}"
            f"{candidate.predicted:>20.4g}{candidate.error:>19.4g}{mark}"
        )
    yield rule


def _price(result: SearchResult, price: float) -> str:
    number = f"{price:.4f}" if result.quantity == "cost" else f"{price:,.0f}"
    return f"{number} {_UNITS[result.quantity]}"


def _shortened(path: str) -> str:
    """The end of a long name, which tells layers apart."""
    return path if len(path) < _NAME else f"..{path[len(path) - _NAME + 3 :]}"
