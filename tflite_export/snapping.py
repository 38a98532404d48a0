"""Move each channel's scale and offset to values at which every kernel rounds alike.

A channel has integer accumulators a = sum(n * q) and the level floor(a * scale + offset + 1/2),
clamped to low..high. A file stores weights n * M and a bias B, and its kernels see M * a + B, of
which D = output_scale / (input_scale * weight_scale) make one level. They follow the same rule
except close to a threshold x_n = (n - 1/2) * D: REF and OPT already reach a positive level within
one unit below x_n, REF reaches a level <= 0 only within one unit above, and XNNPACK's float32 is
some 2e-7 * x_n uncertain. So D and B are chosen such that no reachable M * a + B comes close to any
threshold, and the network adopts them:

- M >= 2: D = M * p / r puts all thresholds M / r apart (mod M), whatever their number, and B
  stands half-way between two of them.
- M = 1 (8-bit weights): D is an even whole number minus a hair, so that each x_n > 0 lies just
  below a whole number and the unit below it is empty.

What is traded: a wide margin keeps a float32 forward pass on the same side as the integers, and a
small denominator r makes it wide; a large r keeps the move of the scale small. A margin e times as
wide is held to be worth 0.1 % of scale or 0.05 levels of offset (more below 1e-6 of the
accumulator, nothing above 1e-3); see `snapping_search`.

A channel that already stands on such values, up to float32's precision, keeps them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tflite_export.requantization import KERNELS, Floats, Integers


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


@dataclasses.dataclass(frozen=True)
class Rounding:
    """Into what a layer's accumulators are rounded, and by which kernels.

    Attributes:
        input_scale: float32, real value of one input level.
        output_scale: float32, real value of one output level.
        low: Lower clamp (0 where a ReLU is fused).
        high: Upper clamp.
        multiplier: Largest M: 127 // L for weights stored in eight bits, 7 // L in four.
        kind: One of `requantization.KINDS`.
        kernels: Those that must agree.
    """

    input_scale: np.float32
    output_scale: np.float32
    low: int
    high: int
    multiplier: int
    kind: str = "conv"
    kernels: tuple[str, ...] = KERNELS


@dataclasses.dataclass(frozen=True, eq=False)
class SnappedChannels:
    """What the file stores and the network adopts, one value per channel.

    Attributes:
        multiplier: int32, M; 0 for a channel whose level is constant and whose scale no file holds.
        weight_scale: float32, real value of one stored unit.
        bias: int32, B.
        scale: float64, adopted levels per unit of a: M * input_scale * weight_scale / output_scale.
        offset: float64, adopted levels: B * input_scale * weight_scale / output_scale, unless the
            offset was fixed or M = 0.
        margin: Distance between the reachable accumulators and the thresholds, at its smallest, in
            units of the file's accumulator; inf where no threshold is within reach.
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


def snap_channels(
    channels: Channels,
    rounding: Rounding,
    *,
    scale_is_free: bool = True,
    offset_is_free: bool = True,
) -> SnappedChannels:
    """Returns values near the wanted ones at which the kernels agree, channel by channel.

    Args:
        channels: The wanted function.
        rounding: The output's grid and the kernels.
        scale_is_free: Whether each channel may take a scale of its own (a batch norm is behind).
        offset_is_free: Whether each channel may take an offset of its own (there is a bias).
    """
    raise NotImplementedError


def snap_output_scale(
    channels: Channels, rounding: Rounding, *, offset_is_free: bool = True
) -> tuple[np.float32, SnappedChannels]:
    """Returns an output scale at which the kernels agree on all channels, and the channels.

    For layers with one weight scale, where the output's scale can still be chosen.

    Args:
        channels: The wanted function, in levels of `rounding.output_scale`; all of one scale.
        rounding: As for `snap_channels`; `output_scale` is the wanted one.
        offset_is_free: Whether each channel may take an offset of its own.

    Returns:
        The output's float32 scale, and the channels in levels of it.
    """
    raise NotImplementedError
