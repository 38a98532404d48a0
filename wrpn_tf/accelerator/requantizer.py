"""The requantization unit: accumulators to levels, by the exact rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.checks import check_int
from wrpn_tf.accelerator.processing_element import ACCUMULATOR_MAX, ACCUMULATOR_MIN


def requantize(
    accumulators: npt.ArrayLike, scale: npt.ArrayLike, offset: npt.ArrayLike, low: int, high: int
) -> npt.NDArray[np.int32]:
    """Returns clamp(floor(accumulator * scale + offset + 1/2), low, high), in float64.

    Halves are rounded up, towards +inf. Additions in the order written.

    Args:
        accumulators: Integers, [..., channels].
        scale: Output levels per unit of accumulator; one number or [channels].
        offset: In output levels; one number or [channels].
        low: Smallest level.
        high: Largest level.

    Raises:
        TypeError: If `accumulators` hold no integers, or `low` or `high` is none.
        ValueError: If `scale` or `offset` is not finite or fits no channel, or low > high.
    """
    return Requantizer(scale, offset, low, high)(accumulators)


@dataclasses.dataclass(frozen=True, eq=False)
class Requantizer:
    """`requantize` with its settings, checked once.

    Attributes:
        scale: As in `requantize`; float64 after construction.
        offset: As in `requantize`; float64 after construction.
        low: Smallest level.
        high: Largest level.

    Raises:
        TypeError, ValueError: As `requantize`.
    """

    scale: npt.ArrayLike
    offset: npt.ArrayLike
    low: int
    high: int

    def __post_init__(self) -> None:
        for name in ("scale", "offset"):
            values = np.array(getattr(self, name), np.float64)
            if values.ndim > 1 or not np.isfinite(values).all():
                raise ValueError(
                    f"`{name}` must be one finite number or one for each channel, got {values}."
                )
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        check_int("high", self.high, ACCUMULATOR_MIN, ACCUMULATOR_MAX)
        check_int("low", self.low, ACCUMULATOR_MIN, self.high)

    def __call__(self, accumulators: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Returns the levels of the accumulators, [..., channels].

        Raises:
            TypeError, ValueError: As `requantize`.
        """
        values: npt.NDArray[Any] = np.asarray(accumulators)
        if values.dtype.kind not in "iu":
            raise TypeError(f"`accumulators` must hold integers, got {values.dtype}.")
        for name in ("scale", "offset"):
            length = np.size(getattr(self, name))
            if length > 1 and values.shape[-1:] != (length,):
                raise ValueError(
                    f"`{name}` has {length} channels, `accumulators` have shape {values.shape}."
                )
        real = values * np.asarray(self.scale) + np.asarray(self.offset)
        rounded = np.clip(np.floor(real + 0.5), self.low, self.high)
        levels: npt.NDArray[np.int32] = rounded.astype(np.int32)
        return levels
