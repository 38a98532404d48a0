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
        """Returns what the function makes of each of a tensor's levels, the lowest first."""
        # As examples of one value each.
        reals = _reals(source).reshape(-1, *(1,) * (self.num_axes - 1))
        return self.function(reals).reshape(-1).astype(np.float64)

    def check(self, source: Tensor) -> None:
        """Checks that each value's result depends on that value alone.

        Raises:
            ValueError: If it does not.
        """
        apart, reals = self.values(source), _reals(source)
        is_elementwise = apart.size == reals.size
        if is_elementwise:
            together = self.function(reals.reshape(*(1,) * (self.num_axes - 1), -1))
            is_elementwise = np.allclose(
                together.reshape(-1), apart, _FLOAT32_ERROR, _FLOAT32_ERROR
            )
        if not is_elementwise:
            raise ValueError("it does not make one value of each value by itself")

    def levels(self, source: Tensor, output: Tensor, low: int) -> Integers:
        """Returns the table: floor(value / scale + 1/2), clamped to low..high of the output."""
        rounded = np.floor(self.values(source) / np.float64(output.scale) + 0.5)
        return np.clip(rounded, low, output.high).astype(np.int64)


def _reals(tensor: Tensor) -> np.ndarray:
    """The real values of a tensor's levels, float32."""
    return (np.arange(tensor.low, tensor.high + 1) * tensor.scale).astype(np.float32)
