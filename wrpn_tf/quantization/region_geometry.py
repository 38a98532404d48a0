"""Which part of the input image each position of each tensor of a network stands for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from wrpn_tf.accelerator.windows import window_axis
from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import LayerCall, ModelGraph, Shape
from wrpn_tf.quantization.quantized_layers import inner_layer, output_quantizer
from wrpn_tf.regions.region_plan import Resolution

_Pair = tuple[float, float]
_NO_REACH = ((0.0, 0.0), (0.0, 0.0))


def resolutions(graph: ModelGraph, image: int) -> dict[int, Resolution]:
    """Returns the resolution of each tensor whose positions stand for parts of the image.

    A position stands for the image positions under its stride window: the middle of a kernel's
    window, as long as the stride. Strides, pooling, padding, cropping and upsampling are followed;
    layers that keep height and width keep the resolution. Behind anything else (global pooling,
    reshapes) positions stand for the image no more.

    Args:
        graph: The model's graph.
        image: The image's tensor key.
    """
    _, height, width, _ = graph.shapes[image]
    known = {image: Resolution((1.0, 1.0), (0.0, 0.0), (int(height), int(width)))}
    for call in graph.calls:
        sources = [known[key] for key in call.inputs if key in known]
        for key in call.outputs:
            found = _follow(call, sources, graph.shapes[key]) if sources else None
            if found is not None and _is_whole(found):
                is_rounded = output_quantizer(call.layer) is not None
                # What is rounded here is rounded by its own position's rank.
                known[key] = dataclasses.replace(found, reach=_NO_REACH) if is_rounded else found
    return known


def _is_whole(resolution: Resolution) -> bool:
    """Whether positions stand for whole positions of the image, or divide them evenly."""
    for stride, offset in zip(resolution.stride, resolution.offset, strict=True):
        unit = min(stride, 1.0)
        if not (1 / unit).is_integer() or not (stride / unit).is_integer():
            return False
        if not (offset / unit).is_integer():
            return False
    return True


def _follow(call: LayerCall, sources: list[Resolution], shape: Shape) -> Resolution | None:
    """The resolution behind a call, or None where it ends."""
    if len(shape) != 4 or None in shape[1:]:
        return None
    size = (int(shape[1]), int(shape[2]))
    layer = inner_layer(call.layer)
    if getattr(layer, "data_format", "channels_last") == "channels_first":
        return None
    rule = _RULES.get(keras_class(layer))
    if rule is not None:
        return rule(layer, sources[0], size)
    # Of a product with a vector of channels, the tensor of the result's size counts.
    return next((source for source in sources if source.size == size), None)


def _windows(layer: Any, source: Resolution, size: tuple[int, int]) -> Resolution:
    kernel = getattr(layer, "kernel_size", None) or layer.pool_size
    dilation = getattr(layer, "dilation_rate", (1, 1))
    offsets = []
    for axis in (0, 1):
        stride = layer.strides[axis]
        before = window_axis(
            source.size[axis], kernel[axis], stride, dilation[axis], layer.padding
        ).before
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        offsets.append(max((reach - stride) // 2, 0) - before)
    return _moved(source, (offsets[0], offsets[1]), tuple(layer.strides), size)


def _pooled(layer: Any, source: Resolution, size: tuple[int, int]) -> Resolution:
    """Max pooling moves values, each from anywhere in its window."""
    reach = []
    for axis in (0, 1):
        over = max(layer.pool_size[axis] - layer.strides[axis], 0)
        unit, (before, after) = source.stride[axis], source.reach[axis]
        reach.append((before + unit * (over // 2), after + unit * (over - over // 2)))
    return dataclasses.replace(_windows(layer, source, size), reach=tuple(reach))


def _padded(layer: Any, source: Resolution, size: tuple[int, int]) -> Resolution:
    (top, _), (left, _) = layer.padding
    return _moved(source, (-top, -left), (1, 1), size)


def _cropped(layer: Any, source: Resolution, size: tuple[int, int]) -> Resolution:
    (top, _), (left, _) = layer.cropping
    return _moved(source, (top, left), (1, 1), size)


def _upsampled(layer: Any, source: Resolution, size: tuple[int, int]) -> Resolution | None:
    factors = layer.size if hasattr(layer, "size") else layer.strides
    expected = tuple(length * factor for length, factor in zip(source.size, factors, strict=True))
    if expected != size:
        return None  # a transposed convolution that gives more than its stride's
    return _moved(source, (0, 0), (1 / factors[0], 1 / factors[1]), size)


def _moved(source: Resolution, offset: _Pair, stride: _Pair, size: tuple[int, int]) -> Resolution:
    """The resolution of a tensor whose position i begins at offset + stride * i of the source's."""
    down, right = source.stride
    return Resolution(
        (down * stride[0], right * stride[1]),
        (source.offset[0] + down * offset[0], source.offset[1] + right * offset[1]),
        size,
        source.reach,
    )


_RULES: dict[str, Callable[[Any, Resolution, tuple[int, int]], Resolution | None]] = {
    "AveragePooling2D": _windows,
    "Conv2D": _windows,
    "Conv2DTranspose": _upsampled,
    "Cropping2D": _cropped,
    "DepthwiseConv2D": _windows,
    "MaxPooling2D": _pooled,
    "UpSampling2D": _upsampled,
    "ZeroPadding2D": _padded,
}
