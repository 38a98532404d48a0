"""Operations of the integer graph whose results are not rounded yet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tflite_export.integer_model import Concatenation, Move, Operation, Tensor
from wrpn_tf.model_graph import LayerCall


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """A model input that is not rounded yet.

    Attributes:
        key: Its tensor key in the model's graph.
    """

    key: int


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """What moves the levels that an operation reads.

    Attributes:
        suffix: Of the name of its tensor.
        move: The operation; its names are filled in at the end.
        shape: Of its result.
    """

    suffix: str
    move: Move
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """An operation whose result is not rounded yet.

    Attributes:
        operation: The operation; output and kernel are filled in at the end.
        sources: The tensors that it reads.
        shape: Of its result, without the batch dimension.
        inner_shapes: What the operation itself reads and writes, where it works on [height, width,
            channels] and the layer does not.
        moves: What moves its input's levels, of the inner shape, in front of it.
        moves_levels: Its output is on its input's grid and needs no rounding.
        integers: The weights in TFLite's layout; None without any.
        num_bits: Bits of the integers.
        channel_axis: Axis of the output channels in `integers`.
        origin: Where scale and bias come from.
        relu: Whether negative results become 0.
        limit: Where a ReLU saturates.
        members: What is rounded to the output's grid before it is read, as by a concatenation.
    """

    operation: Operation
    sources: tuple[Tensor, ...]
    shape: tuple[int, ...]
    inner_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    moves: tuple[Step, ...] = ()
    moves_levels: bool = False
    integers: npt.NDArray[np.int8] | None = None
    num_bits: int = 8
    channel_axis: int = 0
    origin: Any = None
    relu: bool = False
    limit: float = math.inf
    members: tuple[Tensor | Pending, ...] = ()


Value = Tensor | Pending | ModelInput
Read = Callable[[LayerCall, str, tuple[Tensor, ...], Any], Pending]
"""`read(call, name, sources, shape)`: the operation that a layer becomes."""


def joined(
    name: str,
    parts: Sequence[Tensor | Pending],
    shape: tuple[int, ...],
    axis: int,
    written: tuple[int, ...] | None = None,
) -> Pending:
    """Returns what joins tensors, some of them not rounded yet; a single one of those needs none.

    Args:
        name: Of the operation.
        parts: What is joined.
        shape: Of the result, without the batch dimension.
        axis: Along which they are joined, counted with the batch dimension.
        written: The shape of what is joined, if that is another one than the result's.
    """
    if len(parts) == 1 and isinstance(parts[0], Pending):
        operation = dataclasses.replace(parts[0].operation, name=name)
        return dataclasses.replace(parts[0], operation=operation, shape=shape)
    operation = Concatenation(name, (), "", axis)
    inner = None if written is None else (written, written)
    return Pending(operation, (), shape, inner, members=tuple(parts))
