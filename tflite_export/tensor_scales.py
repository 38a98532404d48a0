"""The scales of a network's tensors, moved to where its sums and means are exact on every kernel.

A scale is bound by what its tensor meets: what moves levels keeps it, and what would be rounded
again onto a grid that is almost its own takes that grid's, as branches of a concatenation do; a sum
needs scales whose ratios are fractions with an odd denominator, so that no sum is a tie; a mean,
and a layer whose weights' step is fixed, can only be exact for some scales of its output.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tflite_export.batch_norm_folding import FoldedKernel
from tflite_export.graph_reader import FoldedModel
from tflite_export.integer_model import (
    Add,
    DepthwiseConv2D,
    Move,
    Operation,
    Shift,
    Tensor,
)
from tflite_export.snapping_sum import check_sum, snap_sum

# Rounding errors grow by as much where scales that differ become one, and an operation is saved.
_NEAR = 0.05

Scales = dict[str, np.float32]
OutputScale = Callable[[Operation, Mapping[str, np.float32], float], np.float32]


def choose_scales(folded: FoldedModel, output_scale: OutputScale) -> Scales:
    """Returns a scale for each tensor of a network, near the scale that it has.

    Args:
        folded: The network.
        output_scale: `output_scale(operation, scales, largest)` returns the scale, at most the
            largest, at which the output of an operation whose own scale cannot move is exact, given
            the scales known so far.
    """
    return _Chooser(folded, output_scale).choose()


class _Chooser:
    """Goes through the operations in order and binds their outputs' scales."""

    def __init__(self, folded: FoldedModel, output_scale: OutputScale):
        self._folded = folded
        self._output_scale = output_scale
        self._groups = _one_scale_groups(folded)
        self._bound: set[str] = set()
        self._scales: Scales = {}
        for group in set(self._groups.values()):
            names = [name for name, own in self._groups.items() if own == group]
            largest = max(folded.tensors[name].scale for name in names)
            self._scales.update(dict.fromkeys(names, largest))

    def choose(self) -> Scales:
        for name in self._folded.inputs:
            self._bind(name)
        for operation in self._folded.operations:
            if isinstance(operation, Add):
                self._choose_sum(operation)
            elif self._wants_output_scale(operation) and not self._is_settled(operation):
                largest = self._largest(operation.output)
                self._set(operation.output, self._output_scale(operation, self._scales, largest))
                for name in (*operation.inputs, operation.output):
                    self._bind(name)
        return self._scales

    def _choose_sum(self, operation: Add) -> None:
        """Moves what this sum alone reads; what others read as well, where that is too little."""
        names = (*operation.inputs, operation.output)
        first, second, output = (self._tensor(name) for name in names)
        may_move = [self._may_move(name, names) for name in names]
        is_alone = [self._readers(name) == [operation] for name in operation.inputs]
        largest = tuple(self._largest(name) for name in names)
        few = tuple(may and alone for may, alone in zip(may_move, (*is_alone, True), strict=True))
        for free in dict.fromkeys((few, tuple(may_move))):
            chosen = snap_sum((first, second), output, free=free, largest=largest)
            if check_sum((first, second), output, chosen).is_safe:
                break
        for name, scale in zip(names, chosen, strict=True):
            self._set(name, scale)
            self._bind(name)

    def _largest(self, name: str) -> float:
        """The largest scale that all tensors of a group may have."""
        group = self._groups[name]
        names = (each for each, own in self._groups.items() if own == group)
        return min(self._folded.largest_scales.get(each, math.inf) for each in names)

    def _may_move(self, name: str, names: tuple[str, ...]) -> bool:
        """Whether the scale of one of a sum's tensors can be chosen, apart from the others'."""
        groups = [self._groups[each] for each in names]
        return not self._is_bound(name) and groups.count(self._groups[name]) == 1

    def _wants_output_scale(self, operation: Operation) -> bool:
        """Whether an operation's output, rather than its weights, should take the move."""
        if self._has_fixed_scale(operation):
            return True
        kernel = getattr(operation, "kernel", None)
        if not isinstance(kernel, FoldedKernel) or kernel.origin.scale_freedom != "layer":
            return False
        return not any(isinstance(reader, Add) for reader in self._readers(operation.output))

    def _readers(self, name: str) -> list[Operation]:
        """The operations that read a tensor, or one that must have its scale."""
        group = self._groups[name]
        return [
            op
            for op in self._folded.operations
            if any(self._groups[source] == group for source in op.inputs)
        ]

    def _has_fixed_scale(self, operation: Operation) -> bool:
        kernel = getattr(operation, "kernel", None)
        return isinstance(kernel, FoldedKernel) and kernel.origin.scale_freedom == "none"

    def _tensor(self, name: str) -> Tensor:
        return dataclasses.replace(self._folded.tensors[name], scale=self._scales[name])

    def _set(self, name: str, scale: np.float32) -> None:
        group = self._groups[name]
        self._scales.update({n: scale for n, own in self._groups.items() if own == group})

    def _bind(self, name: str) -> None:
        self._bound.add(self._groups[name])

    def _is_settled(self, operation: Operation) -> bool:
        """Whether an operation's output has its scale for good, or that of the input."""
        output = self._groups[operation.output]
        return output in self._bound or output == self._groups[operation.inputs[0]]

    def _is_bound(self, name: str) -> bool:
        return self._groups[name] in self._bound


def _one_scale_groups(folded: FoldedModel) -> dict[str, str]:
    """Tensor name -> a name that stands for all tensors that must have its scale."""
    parent = {name: name for name in folded.tensors}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    def join(names: Iterable[str]) -> None:
        first, *rest = names
        for name in rest:
            parent[find(name)] = find(first)

    for operation in folded.operations:
        if isinstance(operation, (Move, Shift)):
            join((operation.output, *operation.inputs))
    by_quantizer: dict[int, list[str]] = {}
    for name, (_, variables) in folded.quantizers.items():
        by_quantizer.setdefault(id(next(iter(variables.values()))), []).append(name)
    for names in by_quantizer.values():
        join(names)
    for operation in folded.operations:
        if _rounds_again(operation, folded.tensors):
            both = {find(operation.inputs[0]), find(operation.output)}
            names = [name for name in parent if find(name) in both]
            if _are_near(names, folded):
                join(names)
    return {name: find(name) for name in parent}


def _rounds_again(operation: Operation, tensors: Mapping[str, Tensor]) -> bool:
    """Whether an operation takes levels to as many of another scale and does nothing else."""
    kernel = getattr(operation, "kernel", None)
    source, output = tensors[operation.inputs[0]], tensors[operation.output]
    return (
        isinstance(operation, DepthwiseConv2D)
        and (source.low, source.high) == (output.low, output.high)
        and isinstance(kernel, FoldedKernel)
        and kernel.origin.scale_freedom == "none"
        and kernel.integers.shape[:3] == (1, 1, 1)
        and bool((kernel.integers * kernel.scale == 1).all() and not kernel.bias.any())
    )


def _are_near(names: Sequence[str], folded: FoldedModel) -> bool:
    """Whether tensors can have one scale: the largest of theirs, within `_NEAR` of the smallest."""
    scales = [folded.tensors[name].scale for name in names]
    limit = min(folded.largest_scales.get(name, math.inf) for name in names)
    return bool(max(scales) <= min((1 + _NEAR) * min(scales), limit))
