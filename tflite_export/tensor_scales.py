"""The scales of a network's tensors, moved to where sums, products and means are exact everywhere.

A scale is bound by what its tensor meets: tensors of one group (`scale_groups`) have one; a sum
needs scales whose ratios are fractions with an odd denominator, so that no sum is a tie; a mean,
a product, a function of each value, and a layer whose weights' step is fixed, can only be exact for
some scales of its output.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from tflite_export.batch_norm_folding import FoldedKernel
from tflite_export.graph_reader import FoldedModel
from tflite_export.integer_model import Add, Lookup, Multiply, Operation, Tensor, lowest_level
from tflite_export.scale_groups import has_fixed_scale, one_scale_groups, rounds_again
from tflite_export.snapping_function import snap_product, snap_values
from tflite_export.snapping_sum import check_sum, snap_sum
from tflite_export.snapping_values import SnappedChannels

Scales = dict[str, np.float32]


class Solver(Protocol):
    """What is known of the kernels on which a network will run."""

    def output_scale(
        self,
        operation: Operation,
        scales: Scales,
        largest: float,
        accepts: Callable[[np.float32], bool],
    ) -> tuple[np.float32, SnappedChannels]:
        """Returns an output scale at which an operation whose own scale stays is exact.

        Args:
            operation: The operation.
            scales: Those known so far.
            largest: The largest output scale that may be taken.
            accepts: Whether others can have an output scale, too.

        Returns:
            The scale, and the operation's channels at it.
        """

    def is_exact(self, operation: Operation, scales: Scales) -> bool:
        """Returns whether all kernels round an operation alike, at some scales."""


def choose_scales(folded: FoldedModel, solver: Solver) -> tuple[Scales, dict[str, SnappedChannels]]:
    """Returns a scale for each tensor of a network, near the scale that it has.

    What a concatenation joins keeps a scale of its own where kernels can round it again alike, and
    takes the concatenation's otherwise.

    Args:
        folded: The network; its concatenations round all that they join.
        solver: For its kernels.

    Returns:
        Tensor name -> scale; operation name -> its channels, where its output's scale was chosen
        for it.
    """
    forced: list[Operation] = []
    tried = []
    while True:
        groups = one_scale_groups(folded, forced)
        scales, solved = _Chooser(folded, solver, groups).choose()
        inexact = [
            operation
            for operation in folded.operations
            if has_fixed_scale(operation)
            and groups[operation.inputs[0]] != groups[operation.output]
            and not solver.is_exact(operation, scales)
        ]
        tried.append((len(inexact), scales, solved))
        missed = [op for op in inexact if op not in forced and rounds_again(op, folded)]
        if not missed:
            _, scales, solved = min(tried, key=lambda each: each[0])
            return scales, solved
        forced += missed


class _Chooser:
    """Goes through the operations in order and binds their outputs' scales."""

    def __init__(self, folded: FoldedModel, solver: Solver, groups: dict[str, str]):
        self._folded = folded
        self._solver = solver
        self._groups = groups
        self._bound: set[str] = set()
        self._scales: Scales = {}
        self._solved: dict[str, SnappedChannels] = {}
        for group in set(self._groups.values()):
            names = [name for name, own in self._groups.items() if own == group]
            largest = max(folded.tensors[name].scale for name in names)
            self._scales.update(dict.fromkeys(names, largest))

    def choose(self) -> tuple[Scales, dict[str, SnappedChannels]]:
        for name in self._folded.inputs:
            self._bind(name)
        for operation in self._folded.operations:
            if isinstance(operation, Add):
                self._choose_sum(operation)
            elif isinstance(operation, (Lookup, Multiply)):
                self._choose_function(operation)
            elif self._wants_output_scale(operation) and not self._is_bound(operation.output):
                self._choose_output(operation)
        return self._scales, self._solved

    def _choose_output(self, operation: Operation) -> None:
        """Chooses a scale for all operations that write its group, once the last is reached."""
        writers = self._fixed_writers(operation.output) or [operation]
        if operation is not writers[-1]:
            return
        leader, *others = sorted(writers, key=lambda each: rounds_again(each, self._folded))
        for name in leader.inputs:
            self._bind(name)
        free = [
            other
            for other in others
            if rounds_again(other, self._folded) and not self._is_bound(other.inputs[0])
        ]

        def accepts(scale: np.float32) -> bool:
            return all(
                self._solver.is_exact(other, {**self._scales, other.output: scale})
                for other in others
                if other not in free
            )

        largest = self._largest(leader.output)
        scale, self._solved[leader.name] = self._solver.output_scale(
            leader, self._scales, largest, accepts
        )
        self._set(leader.output, scale)
        self._bind(leader.output)
        for other in others:
            if other in free and not self._is_bound(other.inputs[0]):
                self._choose_input(other)
            self._bind(other.inputs[0])

    def _choose_input(self, operation: Operation) -> None:
        """Chooses the scale of what an operation rounds again, whose output has its own."""
        source, output = operation.inputs[0], operation.output
        wanted, _ = self._solver.output_scale(operation, self._scales, math.inf, lambda scale: True)
        scale = self._scales[source] * (self._scales[output] / wanted)
        self._set(source, np.float32(min(scale, self._largest(source))))

    def _fixed_writers(self, name: str) -> list[Operation]:
        """The operations of fixed scale that write a tensor's group and do not read it."""
        group = self._groups[name]
        return [
            operation
            for operation in self._folded.operations
            if has_fixed_scale(operation)
            and self._groups[operation.output] == group != self._groups[operation.inputs[0]]
        ]

    def _choose_sum(self, operation: Add) -> None:
        """Moves what this sum alone reads; what others read as well, where that is too little."""
        names = (*operation.inputs, operation.output)
        first, second, output = (self._tensor(name) for name in names)
        may_move = [self._may_move(name, names) for name in names]
        is_alone = [self._readers(name) == [operation] for name in operation.inputs]
        largest = tuple(self._largest(name) for name in names)
        few = tuple(may and alone for may, alone in zip(may_move, (*is_alone, True), strict=True))
        for free in dict.fromkeys((few, tuple(may_move))):
            chosen = snap_sum(
                (first, second), output, free=free, largest=largest, sign=operation.sign
            )
            if check_sum((first, second), output, chosen, sign=operation.sign).is_safe:
                break
        for name, scale in zip(names, chosen, strict=True):
            self._set(name, scale)
            self._bind(name)

    def _choose_function(self, operation: Lookup | Multiply) -> None:
        """Moves the output's scale, if it may move, to where no result is near a threshold."""
        for name in operation.inputs:
            self._bind(name)
        if not self._is_bound(operation.output):
            sources = [self._tensor(name) for name in operation.inputs]
            output, largest = self._tensor(operation.output), self._largest(operation.output)
            low = lowest_level(operation, output)
            if isinstance(operation, Multiply):
                scale = snap_product(*sources, output, low=low, largest=largest)
            else:
                values = operation.table.values(*sources)
                scale = snap_values(values, output, low=low, largest=largest)
            self._set(operation.output, scale)
            self._bind(operation.output)

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
        if has_fixed_scale(operation):
            return operation in self._fixed_writers(operation.output)
        kernel = getattr(operation, "kernel", None)
        if not isinstance(kernel, FoldedKernel) or kernel.origin.scale_freedom != "layer":
            return False
        return not (
            self._fixed_writers(operation.output)
            or any(isinstance(reader, Add) for reader in self._readers(operation.output))
        )

    def _readers(self, name: str) -> list[Operation]:
        """The operations that read a tensor, or one that must have its scale."""
        group = self._groups[name]
        return [
            op
            for op in self._folded.operations
            if any(self._groups[source] == group for source in op.inputs)
        ]

    def _tensor(self, name: str) -> Tensor:
        return dataclasses.replace(self._folded.tensors[name], scale=self._scales[name])

    def _set(self, name: str, scale: np.float32) -> None:
        group = self._groups[name]
        self._scales.update({n: scale for n, own in self._groups.items() if own == group})

    def _bind(self, name: str) -> None:
        self._bound.add(self._groups[name])

    def _is_bound(self, name: str) -> bool:
        return self._groups[name] in self._bound
