"""Means over windows and whole images, as pending convolutions whose integers are 1."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tflite_export.batch_norm_folding import Origin
from tflite_export.integer_model import Conv2D, Crop, Tensor
from tflite_export.kernel_layers import by_ones
from tflite_export.pending import Pending, Step, joined

# XNNPACK is slow at depthwise convolutions with large windows: a ResNet-20 whose mean of 8 x 8
# pixels is one takes 4 % longer. As a convolution of 4, 8 or 16 channels at once it costs little.
_CHANNELS_AT_ONCE = 4


@dataclasses.dataclass(frozen=True)
class _Span:
    """Neighbouring windows along one axis which hold equally many values.

    Attributes:
        begin: The first value that they read.
        end: Behind the last one.
        window: How many values each holds.
        count: How many windows these are.
    """

    begin: int
    end: int
    window: int
    count: int


def average_pool(
    name: str,
    source: Tensor,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    shape: tuple[int, ...],
) -> Pending:
    """Returns the pending mean of each window.

    Padding is in no mean, so that windows at the edges divide by fewer values. As one operation has
    one divisor, the edges are averaged apart, and joined with the rest.

    Args:
        name: Of the operation.
        source: What it reads, [(height,) width, channels].
        window: Rows, columns.
        strides: Rows, columns.
        padding: `"same"` or `"valid"`.
        shape: Of the result.
    """
    height, width, channels = (1, *source.shape)[-3:]
    if padding == "valid":
        return _means(name, source, window, strides, shape)
    rows, columns = _spans(height, window[0], strides[0]), _spans(width, window[1], strides[1])
    stripes = []
    for i, row in enumerate(rows):
        parts = []
        for j, column in enumerate(columns):
            part = _means(
                f"{name}/{i}/{j}",
                source,
                (row.window, column.window),
                strides,
                (row.count, column.count, channels)[-len(shape) :],
            )
            read = (row.end - row.begin, column.end - column.begin, channels)
            edges = (row.begin, height - row.end), (column.begin, width - column.end), (0, 0)
            crop = Step("crop", Crop("", (), "", edges), read)
            moves = (crop,) if read != (height, width, channels) else ()
            parts.append(dataclasses.replace(part, moves=moves))
        stripe = (row.count, *shape[-2:])[-len(shape) :]
        stripes.append(joined(f"{name}/{i}", parts, stripe, axis=len(shape) - 1))
    return joined(name, stripes, shape, axis=1)


def mean_of_image(name: str, source: Tensor, shape: tuple[int, ...]) -> Pending:
    """Returns the pending mean over all pixels, as a convolution along one column of pixels.

    Columns hold `_CHANNELS_AT_ONCE` channels each, of which the weights, 1 or 0, pick one.
    """
    pixels = math.prod(source.shape[:-1])
    group = math.gcd(source.shape[-1], _CHANNELS_AT_ONCE)
    columns = source.shape[-1] // group
    integers = np.zeros((group, pixels, 1, group), np.int8)
    integers[range(group), :, 0, range(group)] = 1
    return Pending(
        operation=Conv2D(name, (source.name,), "", None),
        sources=(source,),
        shape=shape,
        inner_shapes=((pixels, columns, group), (1, columns, group)),
        integers=integers,
        num_bits=2,
        channel_axis=0,
        origin=Origin(np.full(group, 1.0 / pixels)),
    )


def _means(
    name: str,
    source: Tensor,
    window: tuple[int, int],
    strides: tuple[int, int],
    shape: tuple[int, ...],
) -> Pending:
    """The pending means of windows that lie within an image."""
    share = np.full(source.shape[-1], 1.0 / math.prod(window))
    return by_ones(name, source, window, strides, shape, Origin(share))


def _spans(size: int, window: int, stride: int) -> list[_Span]:
    """The windows of padding "same" along one axis; those that are whole are one span."""
    count = -(-size // stride)
    before = max((count - 1) * stride + window - size, 0) // 2
    spans: list[_Span] = []
    for start in range(-before, count * stride - before, stride):
        begin, end = max(start, 0), min(start + window, size)
        if spans and end - begin == spans[-1].window == window:
            spans[-1] = dataclasses.replace(spans[-1], end=end, count=spans[-1].count + 1)
        else:
            spans.append(_Span(begin, end, end - begin, count=1))
    return spans
