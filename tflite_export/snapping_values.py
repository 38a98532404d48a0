"""What the snapping solver takes and returns."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from tflite_export.requantization import KERNELS, Floats, Integers


class LevelCheck(NamedTuple):
    """Whether an operation without a kernel gives the same levels everywhere.

    Attributes:
        kind: "sum", "product" or "function".
        exact: Whether every TFLite kernel follows the exact rule on all levels.
        margin: Smallest distance of a result to a rounding threshold, in levels.
        wide: The margin from which a float32 forward pass gives these levels, too.
    """

    kind: str
    exact: bool
    margin: float
    wide: float

    @property
    def is_safe(self) -> bool:
        """Whether a float32 forward pass gives these levels, too."""
        return self.exact and self.margin >= self.wide


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """The wanted function of each channel: level = floor(a * scale + offset + 1/2), clamped.

    Attributes:
        smallest: int64 [C], smallest reachable a = sum(n * q).
        largest: int64 [C].
        scale: float64 [C], >= 0, levels per unit of a.
        offset: float64 [C], levels.
    """

    smallest: Integers
    largest: Integers
    scale: Floats
    offset: Floats

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kind = np.int64 if field.name in ("smallest", "largest") else np.float64
            value = np.atleast_1d(np.asarray(getattr(self, field.name), kind))
            object.__setattr__(self, field.name, value)
            if value.ndim != 1 or value.shape != np.shape(self.smallest):
                raise ValueError(
                    f"`{field.name}` must have one value per channel, "
                    f"{np.shape(self.smallest)}, got {value.shape}."
                )
        if not (np.isfinite(self.scale).all() and (self.scale >= 0).all()):
            raise ValueError(f"`scale` must be finite and >= 0, got {self.scale.min()}.")
        if not np.isfinite(self.offset).all():
            raise ValueError("`offset` must be finite.")
        if (self.smallest > self.largest).any():
            raise ValueError("`smallest` must not exceed `largest`.")


@dataclasses.dataclass(frozen=True, eq=False)
class Rounding:
    """Into what a layer's accumulators are rounded, and by which kernels.

    Attributes:
        input_scale: float32, real value of one input level, as the file spreads them.
        output_scale: float32, real value of one output level.
        low: Lower clamp (0 where a ReLU is fused).
        high: Upper clamp.
        multiplier: Largest M, of all channels or of each, int64 [C]: 127 // L for weights stored in
            eight bits, 7 // L in four; times `spread`.
        kind: One of `requantization.KINDS`.
        kernels: Those that must agree.
        zero: Level of the real 0, which no move of a scale moves; above 0 where levels from 0 on
            are written that a shift then lowers.
        spread: By what the file multiplies the input's levels: all M are multiples of it.
    """

    input_scale: np.float32
    output_scale: np.float32
    low: int
    high: int
    multiplier: int | Integers
    kind: str = "conv"
    kernels: tuple[str, ...] = KERNELS
    zero: int = 0
    spread: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class SnappedChannels:
    """What the file stores and the network adopts, one value per channel.

    Attributes:
        multiplier: int32, M; 0 for a channel whose level is constant and whose scale no file holds.
        weight_scale: float32, real value of one stored unit.
        bias: int32, B.
        scale: float64, adopted levels per unit of a: M * input_scale * weight_scale / output_scale.
        offset: float64, adopted levels: about B * input_scale * weight_scale / output_scale. It
            puts the rule's thresholds half-way between reachable accumulators; with B itself, the
            rule gives the same levels. The wanted offset where that was fixed.
        margin: Distance between the reachable accumulators and the thresholds, at its smallest, in
            units of the file's accumulator.
        relative_margin: The same, relative to the largest of |M * a|, |B| and |x_n| there.
        exact: Whether all kernels follow the adopted values at every reachable accumulator.
        scale_move: Adopted / wanted scale - 1.
        offset_move: Adopted - wanted offset, levels.
    """

    multiplier: Integers
    weight_scale: Floats
    bias: Integers
    scale: Floats
    offset: Floats
    margin: Floats
    relative_margin: Floats
    exact: np.ndarray
    scale_move: Floats
    offset_move: Floats
