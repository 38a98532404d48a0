"""Weights and biases as constants of a TFLite graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tflite_export import storage as storages
from tflite_export.flatbuffer_graph import GraphBuilder
from tflite_export.flatbuffer_schema import make
from tflite_export.integer_model import (
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Tensor,
    largest_weights,
    spread_scale,
)
from tflite_export.packing import pack, pack_indices

# tflite-micro's DECODE operator, its header's length and its version of tables; see "TFLM DECODE
# Operator Design" and `tensorflow/lite/micro/compression/lut.py` in tflite-micro.
DECODE = "TFLM_DECODE"
_DECODE_HEADER_BYTES = 16
_TABLE_VERSION = 1
_INT8 = storages.WeightStorage(8)


def add_weights(graph: GraphBuilder, operation: Conv2D | FullyConnected, storage: str) -> int:
    """Adds the weights of an operation; returns the index of the tensor that its operator reads.

    Raises:
        ValueError: If weights exceed their bits, n*M does not fit the storage, or M differs where
            the storage has but one.
    """
    kernel = operation.kernel
    _check_integers(operation, storage)
    stored = _choose(operation, storage)
    if stored.form == storages.UNPACKED:
        return _add_unpacked(graph, operation, stored)
    if stored.form == storages.TABLE:
        return _add_table(graph, operation, stored)
    multiplier = kernel.multiplier.astype(np.int64).reshape(_per_channel(operation))
    packed = pack(kernel.integers * multiplier, stored.num_bits)
    return graph.constant(
        packed,
        f"INT{stored.num_bits}",
        kernel.integers.shape,
        _channel_scales(kernel.scale, _channel_axis(operation)),
        f"{operation.name}/kernel",
    )


def add_bias(graph: GraphBuilder, operation: Conv2D | FullyConnected, source: Tensor) -> int:
    """Adds the biases of an operation that reads `source`; returns the tensor's index."""
    kernel = operation.kernel
    scale = kernel.scale.astype(np.float64) * np.float64(spread_scale(source.scale, kernel.spread))
    biases = kernel.bias.astype("<i4")
    quantization = _channel_scales(scale, 0)
    return graph.constant(biases, "INT32", biases.shape, quantization, f"{operation.name}/bias")


def _add_unpacked(
    graph: GraphBuilder, operation: Conv2D | FullyConnected, stored: storages.WeightStorage
) -> int:
    """Adds n, packed, and the operators that make n*M in int8 of it."""
    kernel = operation.kernel
    multiplier = int(kernel.multiplier[0])
    if (kernel.multiplier != multiplier).any():
        raise ValueError(
            f"{operation.name!r}: weights that the graph unpacks must have one multiplier for all "
            f"channels, got {sorted({int(m) for m in kernel.multiplier})}."
        )
    packed = pack(kernel.integers, stored.num_bits)
    shape = kernel.integers.shape
    name = f"{operation.name}/kernel"
    step = _channel_scales(np.array([multiplier]), 0)
    source = graph.constant(packed, f"INT{stored.num_bits}", shape, step, f"{name}/packed")
    # Without a name, and without options, which say nothing that tensors do not: in small networks
    # these would be 2 % of the file.
    real = graph.add(None, "FLOAT32", shape)
    graph.operator("DEQUANTIZE", 6, [source], real)
    target = _add_computed(graph, operation)
    graph.operator("CAST", 1, [real], target)
    return target


def _add_table(
    graph: GraphBuilder, operation: Conv2D | FullyConnected, stored: storages.WeightStorage
) -> int:
    """Adds indices, the table of each channel, and the operator that looks them up."""
    kernel = operation.kernel
    if kernel.num_bits == 1:
        levels = np.array([-1, 1])
        indices = (kernel.integers > 0).astype(np.uint8)
    else:
        largest = storages.largest_weight(kernel.num_bits)
        levels = np.arange(-largest, largest + 1)
        indices = (kernel.integers.astype(np.int64) + largest).astype(np.uint8)
    header = np.zeros(_DECODE_HEADER_BYTES, np.uint8)
    header[1] = header[4] = _TABLE_VERSION
    header[5] = _channel_axis(operation) << 4 | stored.num_bits
    header[6] = levels.size
    tables = (kernel.multiplier.reshape(-1, 1) * levels).astype(np.int8)
    ancillary = np.concatenate([header, tables.reshape(-1).view(np.uint8)])
    packed = pack_indices(indices, stored.num_bits)
    name = f"{operation.name}/kernel"
    inputs = [
        graph.constant(packed, "UINT8", packed.shape, name=f"{name}/packed"),
        graph.constant(ancillary, "UINT8", ancillary.shape, name=f"{name}/tables"),
    ]
    target = _add_computed(graph, operation)
    graph.custom_operator(DECODE, inputs, target)
    return target


def _add_computed(graph: GraphBuilder, operation: Conv2D | FullyConnected) -> int:
    """Adds the int8 tensor of weights that an operator computes."""
    kernel = operation.kernel
    return graph.add(
        f"{operation.name}/kernel",
        "INT8",
        kernel.integers.shape,
        quantization=_channel_scales(kernel.scale, _channel_axis(operation)),
    )


def _choose(operation: Conv2D | FullyConnected, storage: str) -> storages.WeightStorage:
    """Returns the storage's form or, where that does not pay or work, int8."""
    kernel = operation.kernel
    stored = storages.weight_storage(storage, type(operation), kernel.num_bits)
    channels, size = kernel.bias.size, kernel.integers.size
    if stored.form == storages.TABLE:
        tables = channels * 2 * storages.largest_weight(kernel.num_bits)
        return stored if tables + size * stored.num_bits // 8 < size else _INT8
    if stored.form == storages.STORED and stored.num_bits == 4:
        largest = int(kernel.multiplier.max()) * storages.largest_weight(kernel.num_bits)
        if largest > storages.largest_weight(4):
            stored = storages.WeightStorage(4, storages.UNPACKED)
    # XNNPACK in tf.lite takes the scale of one unit for that of a tensor, and fails on int4.
    one_unit = isinstance(operation, FullyConnected) and channels == 1
    return _INT8 if one_unit and stored.num_bits == 4 else stored


def _check_integers(operation: Conv2D | FullyConnected, storage: str) -> None:
    kernel = operation.kernel
    largest = storages.largest_weight(kernel.num_bits)
    found = int(np.abs(kernel.integers.astype(np.int64)).max(initial=0))
    if found > largest:
        raise ValueError(
            f"{operation.name!r}: weights of {kernel.num_bits} bits must be in "
            f"{-largest}..{largest}, got one of magnitude {found}."
        )
    products = kernel.multiplier * largest_weights(operation)
    if kernel.multiplier.min() < 1 or products.max() > storages.largest_weight(8):
        raise ValueError(
            f"{operation.name!r}: storage {storage!r} needs weights times multipliers >= 1 to fit "
            f"int8, got multipliers of {kernel.multiplier.min()}..{kernel.multiplier.max()} and "
            f"products up to {products.max()}."
        )


def _channel_axis(operation: Conv2D | FullyConnected) -> int:
    return 3 if isinstance(operation, DepthwiseConv2D) else 0


def _per_channel(operation: Conv2D | FullyConnected) -> list[int]:
    """Returns the shape in which one number per channel meets the weights."""
    shape = [1] * operation.kernel.integers.ndim
    shape[_channel_axis(operation)] = -1
    return shape


def _channel_scales(scale: npt.NDArray[Any], axis: int) -> Any:
    """Returns quantization parameters with zero points of 0, as many as scales (readers ask it)."""
    return make(
        "QuantizationParametersT",
        scale=scale.astype(np.float32),
        zeroPoint=np.zeros(scale.size, np.int64),
        quantizedDimension=axis,
    )
