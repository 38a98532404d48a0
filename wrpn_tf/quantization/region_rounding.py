"""Rounding quantized values to fewer bits, position by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from wrpn_tf.quantization.quantizers import Quantizer


def round_by_rank(
    values: Any,
    ranks: Any,
    bits: Sequence[int],
    quantizer: Quantizer,
    variables: Mapping[str, Any],
) -> Any:
    """Rounds a quantized tensor to the bits of each position's rank.

    Gradient: 1, and 0 at positions of 0 bits.

    Args:
        values: What `quantizer` gave, [batch, height, width, channels].
        ranks: float32 [batch, height, width, 1].
        bits: Bits of rank 0, 1, ..., rising; at the last, and wherever bits are the quantizer's or
            more, values stay as they are.
        quantizer: The values' quantizer.
        variables: Its variables.
    """
    coarse = {b for b in bits if b < quantizer.num_bits}
    ranks_of = {b: max(rank for rank, own in enumerate(bits) if own == b) for b in coarse}

    def forward(x: Any) -> Any:
        result = x
        for num_bits in sorted(coarse, reverse=True):
            rounded = quantizer.coarsen(x, num_bits, variables) if num_bits else ops.zeros_like(x)
            result = _select_rows(ranks > ranks_of[num_bits], result, rounded)
        return result

    if not coarse:
        return values
    result = ops.stop_gradient(forward(ops.stop_gradient(values)))
    # `result` forward, the gradient of `values` backward, without a pass over either.
    return _with_gradient(values, result, ranks > ranks_of[0] if 0 in coarse else None)


def _with_gradient(values: Any, result: Any, passes: Any) -> Any:
    """`result` forward; backward the gradient goes to `values`, at `passes` (None: everywhere)."""

    @ops.custom_gradient
    def replace(x: Any, y: Any) -> tuple[Any, Any]:
        def grad(*args: Any, upstream: Any = None) -> tuple[Any, Any]:
            upstream = args[0] if upstream is None else upstream
            nothing = ops.zeros_like(upstream)
            return upstream if passes is None else _select_rows(passes, upstream, nothing), nothing

        return y, grad

    return replace(values, result)


def _select_rows(condition: Any, chosen: Any, other: Any) -> Any:
    """`chosen` where `condition` [batch, height, width, 1], else `other` [..., channels]."""
    if keras.backend.backend() != "tensorflow":
        return ops.where(condition, chosen, other)
    import tensorflow as tf

    # A vector that selects rows runs three times as fast as a condition that is broadcast.
    shape = tf.shape(chosen)
    rows = tf.stack([-1, shape[-1]])
    selected = tf.compat.v1.where(
        tf.reshape(condition, [-1]), tf.reshape(chosen, rows), tf.reshape(other, rows)
    )
    return tf.ensure_shape(tf.reshape(selected, shape), chosen.shape)
