"""How TFLite's kernels round: 32-bit accumulators to levels, bit for bit, in NumPy.

Kernels are named `"ref"` (BUILTIN_REF), `"opt"` (BUILTIN_WITHOUT_DEFAULT_DELEGATES), `"xnn"` (the
default: the XNNPACK delegate) and `"tflm"` (tflite-micro). Each rounds `accumulator * multiplier`,
multiplier = input_scale * weight_scale / output_scale, and then adds the zero point and clamps;
the functions here stop before that, because adding an integer and clamping commute with
rounding in every kernel (XNNPACK clamps in float32 at an integer before it rounds: the same).

Source: tensorflow/lite/kernels/{kernel_util.cc,internal/common.h,internal/quantization_util.cc},
ruy/pack and apply_multiplier.cc, XNNPACK src/qs8-qc8w-gemm and src/qs8-vadd; checked against
TensorFlow 2.21, LiteRT 2.3 and tflite-micro on x86-64 by the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KERNELS = ("ref", "opt", "xnn")
ALL_KERNELS = (*KERNELS, "tflm")
# "fully_connected_per_tensor": a dense layer whose file gives one weight scale for all channels.
KINDS = ("conv", "transpose_conv", "fully_connected", "fully_connected_per_tensor")

_INT32_MAX = 2**31 - 1
_FARTHEST_LEVEL = 2.0**62


def quantize_multiplier(multiplier: npt.ArrayLike) -> tuple[Integers, Integers]:
    """Returns TFLite's fixed-point form (m, shift): multiplier ~= m * 2^(shift - 31).

    m is in 2^30..2^31-1, or 0 where the multiplier is below 2^-32.

    Args:
        multiplier: Non-negative float64 values of any shape.
    """
    fraction, shift = np.frexp(np.asarray(multiplier, np.float64))
    mantissa = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    carried = mantissa == 2**31
    mantissa = np.where(carried, 2**30, mantissa)
    shift = shift.astype(np.int64) + carried
    tiny = shift < -31
    return np.where(tiny, 0, mantissa), np.where(tiny, 0, shift)


def doubling_high_multiply(a: Integers, m: Integers) -> Integers:
    """Returns a * m / 2^31 rounded, halves up (SaturatingRoundingDoublingHighMul), m >= 0."""
    return (a * m + 2**30) >> 31


def divide_half_away(a: Integers, right: Integers) -> Integers:
    """Returns a / 2^right rounded, halves away from zero (RoundingDivideByPOT)."""
    mask = (np.int64(1) << right) - 1
    return (a >> right) + ((a & mask) > (mask >> 1) + (a < 0))


def divide_half_up(a: Integers, right: Integers) -> Integers:
    """Returns a / 2^right rounded, halves up (ruy)."""
    return (a + ((np.int64(1) << right) >> 1)) >> right


def requantize(
    kernel: str,
    kind: str,
    accumulators: npt.ArrayLike,
    input_scale: npt.ArrayLike,
    weight_scale: npt.ArrayLike,
    output_scale: npt.ArrayLike,
) -> npt.NDArray[np.int32]:
    """Returns the levels into which a kernel turns its accumulators, before zero point and clamp.

    Args:
        kernel: One of `ALL_KERNELS`.
        kind: One of `KINDS`; depthwise convolutions are `"conv"`.
        accumulators: int32 values [..., channel], bias included.
        input_scale: float32.
        weight_scale: float32, of one stored unit; a scalar or [channel].
        output_scale: float32.

    Returns:
        int32, accumulators' shape; saturated where the result leaves int32.

    Raises:
        ValueError: If the kernel or the kind is unknown.
    """
    _check("kernel", kernel, ALL_KERNELS)
    _check("kind", kind, KINDS)
    acc = np.asarray(accumulators).astype(np.int64)
    if kernel == "xnn":
        return _float32(acc, input_scale, weight_scale, output_scale)
    multiplier = _builtin_multiplier(kernel, kind, input_scale, weight_scale, output_scale)
    if kernel == "ref" and kind.startswith("fully_connected"):
        return _float64(acc, multiplier)
    m, shift = quantize_multiplier(multiplier)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    shifted = np.clip(acc << left, -_INT32_MAX - 1, _INT32_MAX)
    divide = divide_half_up if kernel == "opt" else divide_half_away
    return divide(doubling_high_multiply(shifted, m), right).astype(np.int32)


def exact_levels(
    accumulators: npt.ArrayLike, scale: npt.ArrayLike, offset: npt.ArrayLike
) -> Integers:
    """Returns floor(a * scale + offset + 1/2): the rule that all kernels are made to follow.

    Args:
        accumulators: Integers.
        scale: float64, levels per unit of the accumulator.
        offset: float64, levels.
    """
    real: Floats = np.asarray(accumulators, np.float64) * np.asarray(scale, np.float64)
    real = real + np.asarray(offset, np.float64)
    # No grid reaches so far, and a cast of more than int64 holds is undefined.
    return np.clip(np.floor(real + 0.5), -_FARTHEST_LEVEL, _FARTHEST_LEVEL).astype(np.int64)


def _builtin_multiplier(
    kernel: str, kind: str, input_scale: Any, weight_scale: Any, output_scale: Any
) -> Floats:
    """The float64 multiplier, from which most kernels make a fixed-point one."""
    scales = [np.asarray(s, np.float32) for s in (input_scale, weight_scale, output_scale)]
    if kernel == "opt" and kind == "fully_connected_per_tensor":
        # GetQuantizedConvolutionMultipler multiplies two float32.
        product: Any = (scales[0] * scales[1]).astype(np.float64)
    else:
        product = scales[0].astype(np.float64) * scales[1].astype(np.float64)
    quotient: Floats = product / scales[2].astype(np.float64)
    return quotient


def _float32(
    acc: Integers, input_scale: Any, weight_scale: Any, output_scale: Any
) -> npt.NDArray[np.int32]:
    """XNNPACK: one float32 product, halves to even."""
    scales = [np.asarray(s, np.float32) for s in (input_scale, weight_scale, output_scale)]
    multiplier = (scales[0] * scales[1]).astype(np.float32) / scales[2]
    product = np.rint(acc.astype(np.float32) * multiplier.astype(np.float32))
    # The largest float32 below 2^31.
    return np.clip(product, -(2.0**31), 2.0**31 - 128).astype(np.int32)


def _float64(acc: Integers, multiplier: Floats) -> npt.NDArray[np.int32]:
    """One float64 product, halves away from zero (std::round)."""
    product = acc * multiplier
    rounded = np.trunc(product + np.copysign(0.5, product))
    return np.clip(rounded, -(2.0**31), _INT32_MAX).astype(np.int32)


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {allowed}, got {value!r}.")
