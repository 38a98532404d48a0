"""Operations of the integer graph whose results are not rounded yet."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tflite_export.integer_model import Operation, Tensor


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """A model input that is not rounded yet.

    Attributes:
        key: Its tensor key in the model's graph.
    """

    key: int


@dataclasses.dataclass(frozen=True, eq=False)
class Pending:
    """An operation whose result is not rounded yet.

    Attributes:
        operation: The operation; output and kernel are filled in at the end.
        sources: The tensors that it reads.
        shape: Of its result, without the batch dimension.
        inner_shapes: What the operation itself reads and writes, where it works on [height, width,
            channels] and the layer does not.
        before: Zeros that it reads in front of each row of its image (a causal convolution's).
        crop: What it leaves out of its image, (before, after) of each axis; empty if nothing.
        moves_levels: Its output is on its input's grid and needs no rounding.
        integers: The weights in TFLite's layout; None without any.
        num_bits: Bits of the integers.
        channel_axis: Axis of the output channels in `integers`.
        origin: Where scale and bias come from.
        relu: Whether negative results become 0.
        limit: Where a ReLU saturates.
        members: What a concatenation joins.
        axis: Along which it joins, counted with the batch dimension.
    """

    operation: Operation
    sources: tuple[Tensor, ...]
    shape: tuple[int, ...]
    inner_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    before: int = 0
    crop: tuple[tuple[int, int], ...] = ()
    moves_levels: bool = False
    integers: npt.NDArray[np.int8] | None = None
    num_bits: int = 8
    channel_axis: int = 0
    origin: Any = None
    relu: bool = False
    limit: float = math.inf
    members: tuple[Tensor | Pending, ...] = ()
    axis: int = -1


Value = Tensor | Pending | ModelInput
