"""Weights and biases as constants of a TFLite graph."""

from __future__ import annotations

import numpy as np

from tflite_export.flatbuffer_graph import GraphBuilder
from tflite_export.flatbuffer_schema import make, schema
from tflite_export.integer_model import (
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Tensor,
)
from tflite_export.packing import pack
from tflite_export.storage import WeightStorage, largest_integer, max_multiplier, weight_storage


def weights(graph: GraphBuilder, operation: Conv2D | FullyConnected, storage: str) -> int:
    """Adds the weights of an operation; returns the index of the tensor that its operator reads.

    Raises:
        ValueError: If n*M does not fit the storage, or M differs where the storage has but one.
    """
    kernel = operation.kernel
    stored = weight_storage(storage, type(operation), kernel.num_bits)
    axis = 3 if isinstance(operation, DepthwiseConv2D) else 0
    shape = kernel.integers.shape
    quantization = make(
        "QuantizationParametersT",
        scale=kernel.scale.astype(np.float32),
        zeroPoint=np.zeros(kernel.scale.size, np.int64),
        quantizedDimension=axis,
    )
    name = f"{operation.name}/kernel"
    if stored.unpacked:
        return _unpacked_weights(graph, operation, stored, quantization)
    broadcast = [1] * kernel.integers.ndim
    broadcast[axis] = -1
    integers = kernel.integers.astype(np.int64) * kernel.multiplier.reshape(broadcast)
    limit = largest_integer(stored.num_bits)
    if np.abs(integers).max(initial=0) > limit:
        largest = max_multiplier(storage, type(operation), kernel.num_bits)
        raise ValueError(
            f"{operation.name!r}: storage {storage!r} keeps weights of {kernel.num_bits} bits as "
            f"n*M with M <= {largest}, got M = {kernel.multiplier.max()}."
        )
    packed = pack(integers, stored.num_bits)
    return graph.constant(packed, stored.type_name, shape, quantization, name)


def bias(graph: GraphBuilder, operation: Conv2D | FullyConnected, source: Tensor) -> int:
    """Adds the biases of an operation that reads `source`; returns the tensor's index."""
    kernel = operation.kernel
    quantization = make(
        "QuantizationParametersT",
        scale=(kernel.scale.astype(np.float64) * np.float64(source.scale)).astype(np.float32),
        zeroPoint=np.zeros(kernel.scale.size, np.int64),
    )
    biases = kernel.bias.astype("<i4")
    return graph.constant(biases, "INT32", biases.shape, quantization, f"{operation.name}/bias")


def _unpacked_weights(
    graph: GraphBuilder,
    operation: Conv2D | FullyConnected,
    stored: WeightStorage,
    quantization: object,
) -> int:
    """Adds n, packed, and the operators that make n*M in int8 of it."""
    kernel = operation.kernel
    multiplier = int(kernel.multiplier[0])
    if (kernel.multiplier != multiplier).any():
        raise ValueError(
            f"{operation.name!r}: weights that the graph unpacks must have one multiplier for all "
            f"channels, got {sorted({int(m) for m in kernel.multiplier})}."
        )
    shape = kernel.integers.shape
    step = make(
        "QuantizationParametersT",
        scale=np.array([multiplier], np.float32),
        zeroPoint=np.array([0], np.int64),
    )
    packed = pack(kernel.integers, stored.num_bits)
    name = f"{operation.name}/kernel"
    source = graph.constant(packed, stored.type_name, shape, step, f"{name}/packed")
    real = graph.add(f"{name}/unpacked", "FLOAT32", shape)
    target = graph.add(name, "INT8", shape, quantization=quantization)
    graph.operator("DEQUANTIZE", 6, [source], real, make("DequantizeOptionsT"))
    types = schema().TensorType
    options = make("CastOptionsT", inDataType=types.FLOAT32, outDataType=types.INT8)
    graph.operator("CAST", 1, [real], target, options)
    return target
