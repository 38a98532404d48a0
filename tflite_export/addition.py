"""How TFLite's kernels add two 8-bit tensors, or subtract one, bit for bit, in NumPy.

Source: tensorflow/lite/kernels/add.cc and internal/reference/integer_ops/add.h (REF, OPT and
tflite-micro are the same), sub.cc and internal/reference/sub.h, which differ by a sign; XNNPACK
src/qs8-vadd and src/microparams-init.c. Checked against TensorFlow 2.21, LiteRT 2.3 and
tflite-micro on x86-64 by the tests.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tflite_export.requantization import (
    ALL_KERNELS,
    Integers,
    divide_half_away,
    doubling_high_multiply,
    quantize_multiplier,
)

_LEFT_SHIFT = 20


def add(
    kernel: str,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    first_scale: np.float32,
    second_scale: np.float32,
    output_scale: np.float32,
    *,
    sign: int = 1,
) -> Integers:
    """Returns the levels of a sum or difference, before zero point and clamp.

    Args:
        kernel: One of `requantization.ALL_KERNELS`.
        first: Levels (zero point subtracted).
        second: Levels, broadcastable with `first`.
        first_scale: float32, real value of one level.
        second_scale: float32.
        output_scale: float32.
        sign: Of the second: -1 for a difference.

    Raises:
        ValueError: If the kernel is unknown, or a scale is not positive.
    """
    if kernel not in ALL_KERNELS:
        raise ValueError(f"`kernel` must be one of {ALL_KERNELS}, got {kernel!r}.")
    scales = [np.float32(s) for s in (first_scale, second_scale, output_scale)]
    if min(scales) <= 0:
        raise ValueError(f"The scales of a sum must be positive, got {scales}.")
    a, b = (np.asarray(x).astype(np.int64) for x in (first, second))
    return _xnnpack(a, b, scales, sign) if kernel == "xnn" else _builtin(a, b, scales, sign)


def _builtin(a: Integers, b: Integers, scales: list[np.float32], sign: int) -> Integers:
    """Both inputs in units of 2 * max(scales) / 2^20, then the sum, each rounded twice."""
    a_scale, b_scale, y_scale = scales
    twice = 2.0 * np.float64(max(a_scale, b_scale))
    ratios = (a_scale / twice, b_scale / twice, twice / (2.0**_LEFT_SHIFT * np.float64(y_scale)))
    (am, ashift), (bm, bshift), (ym, yshift) = (quantize_multiplier(r) for r in ratios)
    total = divide_half_away(doubling_high_multiply(a << _LEFT_SHIFT, am), -ashift)
    total = total + sign * divide_half_away(doubling_high_multiply(b << _LEFT_SHIFT, bm), -bshift)
    shifted = total << np.maximum(yshift, 0)
    return divide_half_away(doubling_high_multiply(shifted, ym), np.maximum(-yshift, 0))


def _xnnpack(a: Integers, b: Integers, scales: list[np.float32], sign: int) -> Integers:
    """Multipliers of 21 bits, one rounding, halves up."""
    a_scale, b_scale, y_scale = scales
    ratios = (np.float32(a_scale / y_scale), np.float32(b_scale / y_scale))
    shift = 20 - (int(np.frexp(max(ratios))[1]) - 1)
    am, bm = (int(np.rint(np.ldexp(np.float64(r), shift))) for r in ratios)
    return (a * am + sign * b * bm + (1 << (shift - 1))) >> shift
