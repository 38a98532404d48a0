"""How the operators that files have for a product of two 8-bit tensors compute it, bit for bit.

TFLite's own MUL of int8 rounds twice, each kernel in its way, and no scale makes them agree. So a
file multiplies int32 numbers, which is exact, and rounds once in QUANTIZE, which all kernels have
in the same form: to 32 bits of a multiplier, and then to levels. Of the products in units of
2^-PRODUCT_SHIFT, the first of these roundings moves none by more than 2^-PRODUCT_SHIFT levels.

Source: tensorflow/lite/kernels/{mul.cc,quantize.cc} and internal/reference/requantize.h; checked
against TensorFlow 2.21, LiteRT 2.3 and tflite-micro on x86-64 by the tests.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tflite_export.requantization import (
    Integers,
    divide_half_away,
    doubling_high_multiply,
    quantize_multiplier,
)

# Products of two 8-bit levels take 17 bits of the 32.
PRODUCT_SHIFT = 12


def product_scale(first_scale: np.float32, second_scale: np.float32) -> np.float32:
    """Returns the real value of one unit of the int32 product, as a file holds it."""
    real = np.float64(first_scale) * np.float64(second_scale)
    return np.float32(np.ldexp(real, -PRODUCT_SHIFT))


def multiply(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    first_scale: np.float32,
    second_scale: np.float32,
    output_scale: np.float32,
) -> Integers:
    """Returns the levels of a product, before zero point and clamp.

    Args:
        first: Levels (zero point subtracted).
        second: Levels, broadcastable with `first`.
        first_scale: float32, real value of one level.
        second_scale: float32.
        output_scale: float32.

    Raises:
        ValueError: If a scale is not positive.
    """
    scales = [np.float32(scale) for scale in (first_scale, second_scale, output_scale)]
    if min(scales) <= 0:
        raise ValueError(f"The scales of a product must be positive, got {scales}.")
    a, b = (np.asarray(x).astype(np.int64) for x in (first, second))
    ratio = np.float64(product_scale(*scales[:2])) / np.float64(scales[2])
    m, shift = quantize_multiplier(ratio)
    units = (a * b << PRODUCT_SHIFT) << np.maximum(shift, 0)
    return divide_half_away(doubling_high_multiply(units, m), np.maximum(-shift, 0))
