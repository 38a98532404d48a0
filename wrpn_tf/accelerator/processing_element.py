"""The engine of a cross-point: 8-bit unsigned x ternary without a multiplier, 32-bit accumulator.

Source: Mishra et al., "WRPN: Wide Reduced-Precision Networks", arXiv 1709.01134, section 6: with
2-bit weights the multiplier becomes a choice of the activation, its negative, or zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.checks import check_int

ACTIVATION_MAX = 255
"""The largest 8-bit unsigned activation."""
ACCUMULATOR_MIN = -(2**31)
"""The smallest number that a 32-bit signed accumulator holds."""
ACCUMULATOR_MAX = 2**31 - 1
"""The largest number that a 32-bit signed accumulator holds."""


def ternary_product(
    activation: npt.NDArray[np.int32], weight: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Returns activation * weight for weights in {-1, 0, 1}, as the engine does: no multiplier.

    Bit 0 of the weight lets the activation pass or makes it zero; bit 1, the sign, is appended to
    it. In two's complement appending a sign s (all ones or all zeros) is (x ^ s) - s.

    Args:
        activation: Integers in 0..255.
        weight: Integers in {-1, 0, 1}, of a shape that broadcasts against `activation`.
    """
    sign = weight >> 31
    passed = activation & -(weight & 1)
    product: npt.NDArray[np.int32] = (passed ^ sign) - sign
    return product


class ProcessingElement:
    """One engine: adds the product of an activation and a ternary weight to its accumulator.

    Invariant: -2^31 <= accumulator < 2^31.
    """

    def __init__(self) -> None:
        self._accumulator = 0

    @property
    def accumulator(self) -> int:
        """The sum of the products since the last `clear`."""
        return self._accumulator

    def step(self, activation: int, weight: int) -> int:
        """Adds activation * weight to the accumulator, and returns it.

        Args:
            activation: A whole number in 0..255.
            weight: -1, 0 or 1.

        Raises:
            TypeError: If an operand is not an int.
            ValueError: If an operand is out of range.
            OverflowError: If the sum does not fit 32 bits; the accumulator keeps its value.
        """
        check_int("activation", activation, 0, ACTIVATION_MAX)
        check_int("weight", weight, -1, 1)
        product = ternary_product(np.asarray(activation, np.int32), np.asarray(weight, np.int32))
        total = self._accumulator + int(product)
        if not ACCUMULATOR_MIN <= total <= ACCUMULATOR_MAX:
            raise OverflowError(f"The accumulator would be {total}, outside int32.")
        self._accumulator = total
        return total

    def clear(self) -> None:
        """Sets the accumulator to zero."""
        self._accumulator = 0
