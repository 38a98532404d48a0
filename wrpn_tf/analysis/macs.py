"""Multiply-accumulates of one layer call, read off the layer's configuration and shapes."""

from __future__ import annotations

import math
from typing import Any

from wrpn_tf.keras_flavor import KERAS, flavor_of, keras_class
from wrpn_tf.model_graph import Shape

# Layers whose weights scale, shift or look up one value at a time: no multiply-accumulates.
_ELEMENTWISE = frozenset(
    {
        "BatchNormalization",
        "BatchNormalizationV1",
        "Embedding",
        "GroupNormalization",
        "LayerNormalization",
        "LayerScale",
        "Normalization",
        "PReLU",
        "RMSNormalization",
        "SyncBatchNormalization",
    }
)
# Layers and operations that multiply tensors none of which is a weight of theirs. Operations of
# tf_keras' graphs go by the last word of their symbol.
_PRODUCTS = frozenset(
    {
        "AdditiveAttention",
        "Attention",
        "Conv",
        "ConvTranspose",
        "DepthwiseConv",
        "Dot",
        "DotProductAttention",
        "Einsum",
        "Inner",
        "Matmul",
        "Outer",
        "SeparableConv",
        "Tensordot",
        "Vdot",
        "conv1d",
        "conv2d",
        "conv3d",
        "convolution",
        "depthwise_conv2d",
        "einsum",
        "matmul",
        "separable_conv2d",
        "tensordot",
    }
)
# Classes that say nothing of what they compute.
_OPAQUE = frozenset({"Lambda", "Layer", "Operation"})


class UncountableError(ValueError):
    """The multiply-accumulates of a layer call cannot be told; the message says why."""


def operation_name(layer: Any) -> str:
    """Returns the name of the nearest Keras class of a layer or operation: "Conv2D", "Add".

    For a function in a tf_keras graph (a `TFOpLambda`) it is the function's name: "matmul".
    """
    name = keras_class(layer)
    return layer.symbol.rpartition(".")[2] if name == "TFOpLambda" else name


def count_macs(layer: Any, input_shape: Shape, output_shape: Shape) -> dict[str, int]:
    """Counts the multiply-accumulates of one layer call for one example, by weight.

    One multiply-add counts 1. Products with the zeros of "same" padding count, as everywhere in
    print; biases, normalizations, activations and element-wise products do not.

    | layer | multiply-accumulates |
    |---|---|
    | Dense | outputs * input features |
    | Conv, depthwise | outputs * kernel positions * input channels of a group |
    | separable | the same of its depthwise and of its pointwise kernel |
    | transposed | inputs * kernel positions * filters, cropped products included |
    | EinsumDense | product of the sizes of all axes of the equation, without the batch |

    Args:
        layer: A layer or operation of either Keras, without a quantize wrapper.
        input_shape: Shape of its first input, with the batch dimension.
        output_shape: Shape of its first output, with the batch dimension.

    Returns:
        Name of the weight's variable ("kernel", "pointwise_kernel") -> count; empty for a layer
        that multiplies activations with no weights. A depthwise layer's is "kernel" in Keras 3
        and "depthwise_kernel" in tf_keras.

    Raises:
        UncountableError: If the layer has weights and is none of the above, if it multiplies
            tensors that are not its weights, if its code is its own (a Lambda, a layer outside
            Keras), or if a size that counts is unknown.
    """
    name = operation_name(layer)
    if name in _PRODUCTS:
        raise UncountableError(f"{name} multiplies tensors that are not its weights")
    counter = _COUNTERS.get(name)
    if counter:
        return counter(layer, input_shape[1:], output_shape[1:])
    if getattr(layer, "weights", None) and name not in _ELEMENTWISE:
        raise UncountableError(f"{type(layer).__name__} has weights used in an unknown way")
    if name in _OPAQUE:
        raise UncountableError(f"{type(layer).__name__} computes what only its code says")
    return {}


def _dense(layer: Any, inputs: Shape, outputs: Shape) -> dict[str, int]:
    return {"kernel": _product(outputs) * _product(inputs[-1:])}


def _convolution(layer: Any, inputs: Shape, outputs: Shape) -> dict[str, int]:
    channels = _split(layer, inputs)[1] // layer.groups
    return {"kernel": _product(outputs) * math.prod(layer.kernel_size) * channels}


def _depthwise(layer: Any, inputs: Shape, outputs: Shape) -> dict[str, int]:
    name = "kernel" if flavor_of(layer, "layer") is KERAS else "depthwise_kernel"
    return {name: _product(outputs) * math.prod(layer.kernel_size)}


def _separable(layer: Any, inputs: Shape, outputs: Shape) -> dict[str, int]:
    positions, filters = _split(layer, outputs)
    between = _split(layer, inputs)[1] * layer.depth_multiplier
    return {
        "depthwise_kernel": positions * between * math.prod(layer.kernel_size),
        "pointwise_kernel": positions * between * filters,
    }


def _transposed(layer: Any, inputs: Shape, outputs: Shape) -> dict[str, int]:
    filters = _split(layer, outputs)[1]
    return {"kernel": _product(inputs) * math.prod(layer.kernel_size) * filters}


def _einsum_dense(layer: Any, inputs: Shape, outputs: Shape) -> dict[str, int]:
    source, _, target = layer.equation.replace(" ", "").partition("->")
    sizes: dict[str, int | None] = {}
    for labels, shape in ((source.partition(",")[0], inputs), (target, outputs)):
        before, dots, after = labels.partition("...")
        # The batch is the first axis of the equation, be it a label or part of the dots.
        covered = len(shape) + 1 - len(before) - len(after)
        axes = list(before) + [f"...{index}" for index in range(covered if dots else 0)]
        for axis, size in zip((axes + list(after))[1:], shape, strict=True):
            # Keras 3 does not tell all of an output's sizes: those of None in `output_shape`.
            sizes[axis] = sizes.get(axis) or size
    return {"kernel": _product(tuple(sizes.values()))}


def _split(layer: Any, shape: Shape) -> tuple[int, int]:
    """Returns the number of positions and of channels of a shape without the batch."""
    if layer.data_format == "channels_first":
        return _product(shape[1:]), _product(shape[:1])
    return _product(shape[:-1]), _product(shape[-1:])


def _product(sizes: Shape) -> int:
    if None in sizes:
        raise UncountableError(f"the size of an axis is unknown: {sizes}")
    return math.prod(size for size in sizes if size is not None)


_COUNTERS = {
    "Conv1D": _convolution,
    "Conv1DTranspose": _transposed,
    "Conv2D": _convolution,
    "Conv2DTranspose": _transposed,
    "Conv3D": _convolution,
    "Conv3DTranspose": _transposed,
    "Dense": _dense,
    "DepthwiseConv1D": _depthwise,
    "DepthwiseConv2D": _depthwise,
    "EinsumDense": _einsum_dense,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
}
