"""The scale of a weight tensor: the real value of the largest level, by rule.

WRPN clips weights to [-1, 1] and scales after the grid ("quantized values followed by scaling with
floating-point constants", section 5). Taken literally (`"none"`), Keras' initialisers leave every
2-bit weight at 0, since |w| < 1/2; so weights are divided by a scale before the grid and multiplied
by it after it. `examples/experiments/low_bit_training.py` trains nets with each rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from wrpn_tf.grid import check_num_bits, is_positive, weight_grid

RULES = ("none", "initializer", "mean", "mean_per_channel", "max", "max_per_channel")

# Where a weight tensor is all zeros, any positive scale gives the same (zero) levels.
_SMALLEST_SCALE = 1e-12


def check_weight_scale(weight_scale: str | float) -> str | float:
    """Returns `weight_scale` if it names a rule or is a positive number.

    Raises:
        ValueError: Otherwise.
    """
    if isinstance(weight_scale, str) and weight_scale in RULES:
        return weight_scale
    if is_positive(weight_scale):
        return float(weight_scale)
    raise ValueError(
        f"`weight_scale` must be a positive number or one of {', '.join(RULES)}; "
        f"got {weight_scale!r}."
    )


def follows_weights(weight_scale: str | float) -> bool:
    """Whether the scale is computed from the weights' values, of every training step anew."""
    return isinstance(weight_scale, str) and weight_scale.startswith(("mean", "max"))


def compute_weight_scale(
    weights: Any, num_bits: int, weight_scale: str | float, channel_axes: Sequence[int]
) -> Any:
    """Returns the real value of the largest level, without gradient.

    | rule | value |
    |---|---|
    | `"none"` | 1: the paper, literally |
    | `"initializer"` | c_k sqrt(2 / fan_in), c_k times the deviation that He's initialiser gives |
    | `"mean"` | c_k sqrt(pi / 2) mean(abs(w)), c_k times the deviation of a normal w |
    | `"max"` | max(abs(w)) |
    | `"..._per_channel"` | the same for each output channel |
    | a number | itself |

    c_k is where the largest level of k bits rounds a standard normal distribution best
    (`wrpn_tf.grid.Grid.optimal_largest_level`: 1.224 for ternary weights). One-bit weights take
    mean(abs(w)) (the paper's "BWN approach") under every rule but a number.

    Args:
        weights: float32 tensor.
        num_bits: Bits of the weights, 1..8.
        weight_scale: The rule.
        channel_axes: Axes of `weights` that index output channels.

    Returns:
        A float32 tensor that broadcasts against `weights`: a scalar, or with size 1 on all axes but
        `channel_axes`. A NumPy scalar where the rule does not depend on the weights' values.
    """
    check_num_bits(num_bits, "num_bits_weight")
    if not isinstance(weight_scale, str):
        return np.float32(weight_scale)
    per_channel = weight_scale.endswith("_per_channel")
    rule = weight_scale.removesuffix("_per_channel")
    reduced = [a for a in range(len(weights.shape)) if a not in channel_axes]
    axis = reduced if per_channel else None
    magnitudes = ops.abs(weights)
    optimum = weight_grid(num_bits).optimal_largest_level
    if num_bits == 1 or rule == "mean":
        scale = ops.mean(magnitudes, axis=axis, keepdims=per_channel)
        scale = scale * (1.0 if num_bits == 1 else optimum * math.sqrt(math.pi / 2))
    elif rule == "none":
        return np.float32(1)
    elif rule == "max":
        scale = ops.max(magnitudes, axis=axis, keepdims=per_channel)
    else:
        fan_in = math.prod(weights.shape[a] for a in reduced)
        return np.float32(optimum * math.sqrt(2 / fan_in))
    return ops.stop_gradient(ops.maximum(scale, _SMALLEST_SCALE))


def divide_by_step(weights: Any, largest: Any, num_bits: int) -> tuple[Any, Any]:
    """Returns weights in units of the distance between levels, and that distance, largest / L.

    There is no division by a constant in it: graph optimizers replace one by a multiplication, and
    the compiled network would round to other levels, by an ulp, than `to_int` and `scale` say.

    Args:
        weights: float32 tensor.
        largest: What `compute_weight_scale` returned.
        num_bits: Bits of the weights, 1..8.
    """
    levels = np.float32(weight_grid(num_bits).high)
    if isinstance(largest, np.float32):
        return weights * (levels / largest), largest / levels
    step = largest * (np.float32(1) / levels)
    return weights / step, step
