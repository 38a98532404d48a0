"""Which tensors of a network have one scale.

What moves levels keeps their scale, and what one quantizer rounds has its. A concatenation rounds
again what it joins, as in training; where kernels cannot do so alike, its branch takes its scale.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from tflite_export.batch_norm_folding import FoldedKernel
from tflite_export.graph_reader import FoldedModel
from tflite_export.integer_model import DepthwiseConv2D, Move, Operation, Shift


def one_scale_groups(folded: FoldedModel, forced: Collection[Operation] = ()) -> dict[str, str]:
    """Returns tensor name -> a name that stands for all tensors that have its scale.

    Args:
        folded: The network.
        forced: What rounds again and shall not, where that is possible: its tensors take the larger
            of their scales.
    """
    groups = _Groups(folded.tensors)
    for operation in folded.operations:
        if isinstance(operation, (Move, Shift)):
            groups.join((operation.output, *operation.inputs))
    by_quantizer: dict[int, list[str]] = {}
    for name, (_, variables) in folded.quantizers.items():
        by_quantizer.setdefault(id(next(iter(variables.values()))), []).append(name)
    for names in by_quantizer.values():
        groups.join(names)
    for operation in folded.operations:
        pair = (operation.output, *operation.inputs)
        is_equal = len({folded.tensors[name].scale for name in pair}) == 1
        is_wanted = rounds_again(operation, folded) and (is_equal or operation in forced)
        if is_wanted and _may_be_one(groups.members(pair), folded):
            groups.join(pair)
    return {name: groups.find(name) for name in folded.tensors}


def has_fixed_scale(operation: Operation) -> bool:
    """Whether an operation has a kernel whose real values nothing in the model can scale."""
    kernel = getattr(operation, "kernel", None)
    return isinstance(kernel, FoldedKernel) and kernel.origin.scale_freedom == "none"


def rounds_again(operation: Operation, folded: FoldedModel) -> bool:
    """Whether an operation takes levels to as many of another scale and does nothing else."""
    if not (isinstance(operation, DepthwiseConv2D) and has_fixed_scale(operation)):
        return False
    source, output = folded.tensors[operation.inputs[0]], folded.tensors[operation.output]
    kernel = operation.kernel
    is_identity = (kernel.integers * kernel.scale == 1).all() and not kernel.bias.any()
    is_one_pixel = kernel.integers.shape[:3] == (1, 1, 1)
    return bool(
        is_one_pixel and is_identity and (source.low, source.high) == (output.low, output.high)
    )


def _may_be_one(names: Collection[str], folded: FoldedModel) -> bool:
    """Whether tensors can have the largest of their scales.

    It must be within the limits of all ReLUs, and nothing may write them that is exact for few
    scales, as a mean is.
    """
    limit = min(folded.largest_scales.get(name, math.inf) for name in names)
    is_within = max(folded.tensors[name].scale for name in names) <= limit
    return is_within and all(
        rounds_again(operation, folded)
        for operation in folded.operations
        if has_fixed_scale(operation) and operation.output in names
    )


class _Groups:
    """Disjoint sets of names."""

    def __init__(self, names: Iterable[str]):
        self._parent = {name: name for name in names}

    def find(self, name: str) -> str:
        """Returns the name that stands for a name's set."""
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def join(self, names: Iterable[str]) -> None:
        """Makes the sets of all names one."""
        first, *rest = names
        for name in rest:
            self._parent[self.find(name)] = self.find(first)

    def members(self, names: Iterable[str]) -> list[str]:
        """Returns all names of the sets of some."""
        roots = {self.find(name) for name in names}
        return [name for name in self._parent if self.find(name) in roots]
