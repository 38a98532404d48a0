"""From a quantized Keras model to its integer graph.

`fold_model` reads the graph: it joins each kernel, batch norm and ReLU up to the rounding behind
them into one operation, in float64. `lower` then takes scales and biases to what a file holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export.batch_norm_folding import FoldedKernel
from tflite_export.graph_reader import fold_model
from tflite_export.integer_model import IntegerModel, Kernel, Operation, Tensor
from tflite_export.storage import check_storage, max_multiplier

_INT32 = np.iinfo(np.int32)


def lower(model: Any, storage: str = "int8") -> IntegerModel:
    """Returns the integers that a file of a quantized model holds.

    Each channel's scale becomes a float32 and its bias a whole number of accumulator units; on a
    snapped model (`tflite_export.snap`) that changes nothing, and every kernel rounds alike.

    Args:
        model: A model of `wrpn_tf.quantize_model` or `widen_and_quantize`, of either Keras.
        storage: `"int8"`, `"int4"`, `"int2"` or `"tflm"`: how weights are stored.

    Raises:
        TypeError, ValueError: As `fold_model`; or if `storage` is unknown.
        OverflowError: If a bias or an accumulator exceeds int32; names the layer.
    """
    check_storage(storage)
    folded = fold_model(model)
    return IntegerModel(
        tensors=folded.tensors,
        operations=tuple(_rounded(op, folded.tensors, storage) for op in folded.operations),
        inputs=folded.inputs,
        outputs=folded.outputs,
    )


def multiplier(operation: Operation, storage: str) -> int:
    """Returns what an operation's integers are multiplied by before they are stored."""
    return max_multiplier(storage, type(operation), operation.kernel.num_bits)


def reachable(operation: Operation, tensors: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the smallest and largest sum(n q) of each channel over all inputs, as int64."""
    source = tensors[operation.inputs[0]]
    positive, negative = _sums(operation.kernel)
    smallest = positive * source.low + negative * source.high
    largest = positive * source.high + negative * source.low
    return smallest, largest


def _sums(kernel: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the positive and of the negative integers of each channel."""
    channels = len(kernel.scale)
    axis = 0 if kernel.integers.shape[0] == channels else -1
    rows = np.moveaxis(kernel.integers, axis, 0).reshape(channels, -1).astype(np.int64)
    return np.maximum(rows, 0).sum(axis=1), np.minimum(rows, 0).sum(axis=1)


def _rounded(operation: Operation, tensors: Mapping[str, Tensor], storage: str) -> Operation:
    """The operation with the kernel that a file holds."""
    folded = getattr(operation, "kernel", None)
    if not isinstance(folded, FoldedKernel):
        return operation
    factor = multiplier(operation, storage)
    source = tensors[operation.inputs[0]]
    scale = (folded.scale / factor).astype(np.float32)
    unit = np.float64(source.scale) * scale.astype(np.float64)
    bias = np.floor(folded.bias / unit + 0.5)
    smallest, largest = reachable(operation, tensors)
    ends = np.stack([bias, smallest * factor + bias, largest * factor + bias])
    if ends.min() < _INT32.min or ends.max() > _INT32.max:
        raise OverflowError(
            f"{operation.name!r}: accumulators must fit 32 bits, got up to "
            f"{max(ends.max(), -ends.min()):.0f}."
        )
    kernel = Kernel(
        integers=folded.integers,
        num_bits=folded.num_bits,
        multiplier=np.full(len(scale), factor, np.int32),
        scale=scale,
        bias=bias.astype(np.int32),
    )
    return dataclasses.replace(operation, kernel=kernel)
