"""Functions of each value by itself, as tables: 256 levels at most go in, so that all is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tflite_export.integer_model import Tensor
from tflite_export.requantization import Floats, Integers

# Of two ways to compute the same function in float32.
_FLOAT32_ERROR = 1e-5


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedTable:
    """A function whose table is made once the scales of its tensors are known.

    Attributes:
        function: Makes real values, float32 of any shape of `num_axes` axes, of as many.
        num_axes: With the batch dimension.
    """

    function: Callable[[np.ndarray], np.ndarray]
    num_axes: int

    def values(self, source: Tensor) -> Floats:
        """Returns what the function makes of each of a tensor's levels, the lowest first.

        Raises:
            ValueError: If it is no function of each value by itself.
        """
        reals = np.arange(source.low, source.high + 1) * source.scale
        ones = (1,) * (self.num_axes - 1)
        apart = self.function(reals.reshape(-1, *ones))  # as examples of one value each
        if apart.size != reals.size or not self._is_same(apart, reals.reshape(*ones, -1)):
            raise ValueError("it does not make one value of each value by itself")
        return apart.reshape(-1).astype(np.float64)

    def _is_same(self, expected: np.ndarray, reals: np.ndarray) -> bool:
        """Whether the function makes the same of values that stand beside each other."""
        found = self.function(reals).reshape(-1)
        return np.allclose(found, expected.reshape(-1), _FLOAT32_ERROR, _FLOAT32_ERROR)

    def levels(self, source: Tensor, output: Tensor, low: int) -> Integers:
        """Returns the table: floor(value / scale + 1/2), clamped to low..high of the output."""
        rounded = np.floor(self.values(source) / np.float64(output.scale) + 0.5)
        return np.clip(rounded, low, output.high).astype(np.int64)
