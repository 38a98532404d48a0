"""Rounding to a grid inside a network: the forward value and the clipped straight-through gradient.

Functions of tensors, without state. With the TensorFlow backend (and for tf_keras) they run
TensorFlow's fused kernels, one pass forward and one backward; with another Keras 3 backend, and for
one bit, the same formula in `keras.ops`.

Forward values equal `wrpn_tf.grid`'s to the bit. Gradient: 1 inside the clip range, its ends
included, 0 outside; `straight_through` gives any other.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from wrpn_tf.grid import Grid, SignGrid


def fake_quantize(x: Any, grid: Grid, largest: Any) -> Any:
    """Rounds to a grid whose largest level is a tensor.

    The gradient with respect to `largest` is the sum of the incoming gradient where x > largest,
    and on signed grids low / high times that where x is below the grid (PACT, arXiv 1805.06085,
    section 3).

    Args:
        x: float32 tensor of any shape.
        grid: A grid of 2^k levels.
        largest: The real value of `grid.high`: a positive float32 scalar tensor.
    """
    return _fake_quantize_between(x, grid.high - grid.low, smallest_level(grid, largest), largest)


def smallest_level(grid: Grid, largest: Any) -> Any:
    """Returns the real value of `grid.low`, given that of `grid.high`, in float32."""
    return largest * np.float32(grid.low / grid.high)


def fake_quantize_affine(x: Any, num_bits: int, smallest: Any, largest: Any) -> Any:
    """Rounds to the 2^num_bits levels of `wrpn_tf.grid.affine_grid(num_bits, smallest, largest)`.

    Args:
        x: float32 tensor of any shape.
        num_bits: Bits, 2..8.
        smallest: float32 scalar tensor <= 0.
        largest: float32 scalar tensor >= 0, > smallest.
    """
    return _fake_quantize_between(x, 2**num_bits - 1, smallest, largest)


def coarsen(x: Any, grid: Grid, largest: Any, num_bits: int) -> Any:
    """Rounds values on a grid to its nested grid of fewer bits: `grid.coarsen`. No gradient.

    Args:
        x: float32 tensor of the grid's values.
        grid: The grid.
        largest: The real value of `grid.high`: a positive float32 scalar tensor.
        num_bits: Bits of the coarse grid, 1 to the grid's.
    """
    if grid.low == 0 and num_bits > 1:
        return _fake_quantize_between(x, 2**num_bits - 1, smallest_level(grid, largest), largest)
    step = grid.nested_step(num_bits)
    scale = largest / np.float32(grid.high)
    return _round_to_multiples(x, step * scale, -(-grid.low // step), grid.high // step)


def coarsen_affine(x: Any, grid_bits: int, smallest: Any, largest: Any, num_bits: int) -> Any:
    """As `coarsen`, for the grid `wrpn_tf.grid.affine_grid(grid_bits, smallest, largest)`.

    Args:
        x: float32 tensor of the grid's values.
        grid_bits: Bits of the grid.
        smallest: float32 scalar tensor <= 0.
        largest: float32 scalar tensor >= 0; where both are 0, values pass.
        num_bits: Bits of the coarse grid, 1 to the grid's.
    """
    steps = 2**grid_bits - 1
    step = steps // (2**num_bits - 1)
    scale = ops.maximum((largest - smallest) / steps, 1e-30)
    low = -ops.floor(-smallest / scale + 0.5)
    rounded = _round_to_multiples(
        x, step * scale, ops.ceil(low / step), ops.floor((low + steps) / step)
    )
    return ops.where(largest > smallest, rounded, x)


def _round_to_multiples(x: Any, step: Any, low: Any, high: Any) -> Any:
    """Step * clip(round(x / step), low, high); no x lies near the middle between two multiples."""
    return ops.clip(ops.floor(x / step + 0.5), low, high) * step


def round_to_integers(x: Any, grid: Grid) -> Any:
    """Rounds to the grid's integers, as float32: `grid.to_int(x, 1)`.

    Args:
        x: float32 tensor of any shape, in units of the grid's step.
        grid: The grid. On a `SignGrid` the gradient passes everywhere; the caller clips.
    """
    if isinstance(grid, SignGrid):
        signs = ops.where(x >= 0, ops.ones_like(x), -ops.ones_like(x))
        return straight_through(x, signs, ops.ones_like(x))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        bits = (grid.high - grid.low).bit_length()
        return tf.quantization.fake_quant_with_min_max_args(
            x, float(grid.low), float(grid.high), num_bits=bits, narrow_range=True
        )
    inside = ops.cast((x >= grid.low) & (x <= grid.high), x.dtype)
    clipped = ops.clip(x, grid.low, grid.high)
    return straight_through(x, ops.floor(clipped - grid.low + grid.low + 0.5), inside)


def straight_through(x: Any, value: Any, gradient: Any) -> Any:
    """Returns `value` forward, with `gradient` as the derivative with respect to x.

    Args:
        x: float32 tensor.
        value: Tensor of its shape.
        gradient: Tensor of its shape.
    """
    return ops.stop_gradient(value) + _surrogate(x) * ops.stop_gradient(gradient)


def _fake_quantize_between(x: Any, steps: int, smallest: Any, largest: Any) -> Any:
    """Rounds to `steps` + 1 levels from smallest to largest, 0 among them."""
    num_bits = steps.bit_length()
    if num_bits > 1 and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.quantization.fake_quant_with_min_max_vars(x, smallest, largest, num_bits=num_bits)
    # An observed range is 0..0 until something was seen; its values pass, but are computed here.
    scale = ops.maximum(ops.stop_gradient((largest - smallest) / steps), 1e-30)
    low = -ops.floor(ops.stop_gradient(-smallest) / scale + 0.5)
    nudged_smallest, nudged_largest = low * scale, (low + steps) * scale
    clipped = ops.clip(x, nudged_smallest, nudged_largest)
    rounded = ops.floor((clipped - nudged_smallest) / scale + low + 0.5) * scale
    above = ops.cast(x > nudged_largest, x.dtype)
    below = ops.cast(x < nudged_smallest, x.dtype)
    ends = _surrogate(largest) * above + _surrogate(smallest) * below
    return straight_through(x, rounded, 1 - above - below) + ends


def _surrogate(x: Any) -> Any:
    """0 forward, the gradient of x backward."""
    return x - ops.stop_gradient(x)
