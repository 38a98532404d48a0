"""Levels from several sources, compared tensor by tensor with the accelerator's."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tflite_export.integer_model import IntegerModel, Probabilities, Sigmoid

KERAS = "Keras"
ACCELERATOR = "accelerator"

Levels = Mapping[str, npt.NDArray[Any]]  # tensor name -> integers, batch first


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The levels of one tensor from one source, against the reference's.

    Attributes:
        differing: How many are not the reference's; all, where the shapes differ.
        total: How many were compared.
        largest: Largest absolute difference, in levels; 0 where the shapes differ.
    """

    differing: int
    total: int
    largest: int

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.differing + other.differing,
            self.total + other.total,
            max(self.largest, other.largest),
        )


@dataclasses.dataclass(frozen=True)
class LayerComparison:
    """One tensor, over all sources.

    Attributes:
        name: The tensor's.
        reference: The source that the others are compared with: the accelerator, or the first
            that has a tensor which the accelerator only moves.
        sources: Source -> comparison; a source that does not make this tensor is left out.
    """

    name: str
    reference: str
    sources: Mapping[str, Comparison]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How often a source gives the accelerator's top-1 label.

    Attributes:
        same: Labels that are the same.
        total: All labels; one per image, or per pixel. Of a sigmoid one per value: whether its
            probability is above 1/2.
    """

    same: int
    total: int

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.same + other.same, self.total + other.total)


@dataclasses.dataclass(frozen=True)
class Findings:
    """What some images showed; findings add up.

    Attributes:
        layers: In the network's order.
        top1: Source -> agreement, over all outputs.
        probabilities: Source -> comparison of a softmax's or sigmoid's results with the first
            source's.
        missing: Tensors that a source should have made and did not, as "source: tensor".
    """

    layers: tuple[LayerComparison, ...]
    top1: Mapping[str, Agreement]
    probabilities: Mapping[str, Comparison]
    missing: tuple[str, ...]

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            layers=tuple(
                dataclasses.replace(mine, sources=_added(mine.sources, its.sources))
                for mine, its in zip(self.layers, other.layers, strict=True)
            ),
            top1=_added(self.top1, other.top1),
            probabilities=_added(self.probabilities, other.probabilities),
            missing=tuple(dict.fromkeys(self.missing + other.missing)),
        )


def summarize(
    levels: Mapping[str, Levels], model: IntegerModel, rounded: Collection[str]
) -> Findings:
    """Compares the levels of all sources.

    Args:
        levels: Source -> tensor name -> integers; the accelerator's among them.
        model: The network.
        rounded: Names of the tensors that the Keras model rounds: Keras and the accelerator must
            have those, every other source all of the network's.
    """
    ends = {op.output: op for op in model.operations if isinstance(op, Probabilities)}
    names = [*model.inputs, *(op.output for op in model.operations)]
    names = [name for name in names if name not in ends]
    logits = {
        ends[name].inputs[0] if name in ends else name: ends.get(name) for name in model.outputs
    }
    probabilities: dict[str, Comparison] = {}
    for name in ends:
        probabilities = _added(probabilities, _compare_tensor(name, levels).sources)
    return Findings(
        layers=tuple(_compare_tensor(name, levels) for name in names),
        top1=_compare_labels(levels, logits),
        probabilities=probabilities,
        missing=tuple(
            f"{source}: {name}"
            for source, found in levels.items()
            for name in (rounded if source in (KERAS, ACCELERATOR) else names)
            if name not in found or name not in model.tensors
        ),
    )


def compare(levels: npt.NDArray[Any], reference: npt.NDArray[Any]) -> Comparison:
    """Counts the levels that are not the reference's."""
    if levels.shape != reference.shape:
        return Comparison(reference.size, reference.size, 0)
    distance = np.abs(levels.astype(np.int64) - reference.astype(np.int64))
    return Comparison(
        differing=int(np.count_nonzero(distance)),
        total=distance.size,
        largest=int(distance.max(initial=0)),
    )


def _compare_tensor(name: str, levels: Mapping[str, Levels]) -> LayerComparison:
    found = {source: tensors[name] for source, tensors in levels.items() if name in tensors}
    integer = [source for source in found if source != KERAS]
    reference = ACCELERATOR if ACCELERATOR in found else next(iter([*integer, KERAS]))
    others = [source for source in found if source != reference]
    return LayerComparison(
        name, reference, {source: compare(found[source], found[reference]) for source in others}
    )


def _compare_labels(
    levels: Mapping[str, Levels], logits: Mapping[str, Probabilities | None]
) -> Mapping[str, Agreement]:
    """Counts equal labels of logits, given what makes probabilities of them."""
    result: dict[str, Agreement] = {}
    for source, found in levels.items():
        for name, end in logits.items():
            if source == ACCELERATOR or name not in found or name not in levels[ACCELERATOR]:
                continue
            labels = _labels(found[name], end)
            wanted = _labels(levels[ACCELERATOR][name], end)
            same = int((labels == wanted).sum()) if labels.shape == wanted.shape else 0
            agreement = Agreement(same, wanted.size)
            result[source] = result.get(source, Agreement(0, 0)) + agreement
    return result


def _labels(logits: npt.NDArray[Any], end: Probabilities | None) -> npt.NDArray[Any]:
    """Which class each example is of, the first of equal ones; of yes and no, which."""
    says_yes_or_no = isinstance(end, Sigmoid) or logits.shape[-1] == 1
    return logits > 0 if says_yes_or_no else np.argmax(logits, axis=-1)


def _added(mine: Mapping[str, Any], its: Mapping[str, Any]) -> dict[str, Any]:
    """The sums of the entries of two mappings."""
    both = {key: mine[key] + its[key] for key in mine if key in its}
    return {**mine, **its, **both}
