"""Integer networks made by hand, whose roundings all kernels agree on.

D, the accumulator units per level, is M times an odd number, and biases are near multiples of M:
every accumulator keeps about M / 2 away from every threshold.
"""

from __future__ import annotations

import numpy as np

from tflite_export import integer_model as im
from tflite_export.storage import max_multiplier


class Builder:
    """Adds one operation after the other."""

    def __init__(self, shape, seed=0, storage="int8", scale=1 / 64, low=-100, high=155):
        self.storage = storage
        self.generator = np.random.default_rng(seed)
        self.operations = []
        self.tensors = {}
        self.image = self.tensor("image", shape, scale, low, high)

    def tensor(self, name, shape, scale, low, high) -> str:
        self.tensors[name] = im.Tensor(name, tuple(shape), np.float32(scale), low, high)
        return name

    def kernel(self, kind, shape, source, target, num_bits, axis=0, odd=5) -> im.Kernel:
        """Random weights; scales by which no accumulator comes near a threshold."""
        largest = max(1, 2 ** (num_bits - 1) - 1)
        channels = shape[axis]
        integers = self.generator.integers(-largest, largest + 1, shape).astype(np.int8)
        if num_bits == 1:
            integers = np.where(integers < 0, -1, 1).astype(np.int8)
        multiplier = max_multiplier(self.storage, kind, num_bits)
        odds = 2 * self.generator.integers(0, odd, channels) + odd
        source, target = self.tensors[source], self.tensors[target]
        scale = target.scale / (np.float64(source.scale) * multiplier * odds)
        bias = self.generator.integers(-9, 9, channels) * multiplier
        return im.Kernel(
            integers,
            num_bits,
            np.full(channels, multiplier, np.int32),
            scale.astype(np.float32),
            bias.astype(np.int32),
        )

    def conv(self, name, source, filters, num_bits=2, high=15, low=0, stride=1, kind=im.Conv2D):
        height, width, channels = self.tensors[source].shape
        up = kind is im.TransposeConv
        size = [n * stride if up else -(-n // stride) for n in (height, width)]
        self.tensor(name, (*size, filters), 1 / 16, low, high)
        if kind is im.DepthwiseConv2D:
            shape, axis = (1, 3, 3, filters), 3
        else:
            shape, axis = (filters, 3, 3, channels), 0
        kernel = self.kernel(kind, shape, source, name, num_bits, axis)
        options = {"strides": (stride, stride), "padding": "same", "relu": low == 0}
        self.operations.append(kind(name, (source,), name, kernel=kernel, **options))
        return name

    def dense(self, name, source, units, num_bits=4, low=-128, high=127):
        self.tensor(name, (units,), 1 / 8, low, high)
        shape = (units, self.tensors[source].shape[-1])
        kernel = self.kernel(im.FullyConnected, shape, source, name, num_bits)
        self.operations.append(
            im.FullyConnected(name, (source,), name, kernel=kernel, relu=low == 0)
        )
        return name

    def add(self, name, first, second, high):
        tensor = self.tensors[first]
        self.tensor(name, tensor.shape, tensor.scale, 0, high)
        self.operations.append(im.Add(name, (first, second), name, relu=True))
        return name

    def move(self, name, kind, sources, shape, **options):
        """An operation that keeps the grid."""
        tensor = self.tensors[sources[0]]
        self.tensor(name, shape, tensor.scale, tensor.low, tensor.high)
        self.operations.append(kind(name, tuple(sources), name, **options))
        return name

    def model(self, *outputs) -> im.IntegerModel:
        return im.IntegerModel(self.tensors, tuple(self.operations), ("image",), outputs)


def small(num_bits=2, high=15, seed=0, storage="int8") -> im.IntegerModel:
    """A residual block, a pool, a dense layer."""
    b = Builder((8, 8, 3), seed, storage)
    x = short = b.conv("stem", "image", 4, 6, high)
    x = b.conv("conv", x, 4, num_bits, high)
    x = b.conv("branch", x, 4, num_bits, high=127, low=-128)
    x = b.add("add", x, short, high)
    x = b.move("pool", im.MaxPool2D, [x], (4, 4, 4), pool=(2, 2), strides=(2, 2))
    x = b.move("flat", im.Reshape, [x], (64,))
    return b.model(b.dense("logits", x, 10))


def varied(seed=0) -> im.IntegerModel:
    """Most operations; two outputs, one of them a softmax."""
    b = Builder((6, 6, 3), seed)
    x = b.conv("stem", "image", 4, 6, stride=2)
    y = b.conv("depthwise", x, 4, kind=im.DepthwiseConv2D)
    z = b.conv("up", y, 4, 3, stride=2, kind=im.TransposeConv)
    z = b.conv("down", z, 4, 1, stride=2)
    x = b.move("concat", im.Concatenation, [y, z], (3, 3, 8), axis=3)
    x = b.move("pad", im.Pad, [x], (5, 4, 8), amounts=((1, 1), (0, 1), (0, 0)))
    x = b.move("up_sample", im.UpSample2D, [x], (10, 12, 8), size=(2, 3))
    x = b.move("crop", im.Crop, [x], (5, 4, 8), amounts=((4, 1), (3, 5), (0, 0)))
    x = b.conv("signed", x, 5, 3, low=-8, high=7)
    x = b.move("flat", im.Reshape, [x], (100,))
    x = b.dense("logits", x, 10)
    b.tensor("softmax", (10,), 1 / 256, 0, 255)
    b.operations.append(im.Softmax("softmax", (x,), "softmax"))
    return b.model("signed", "softmax")


def images(model: im.IntegerModel, count=20, seed=1):
    """Real images on the input's grid."""
    tensor = model.tensors["image"]
    levels = np.random.default_rng(seed).integers(
        tensor.low, tensor.high + 1, (count, *tensor.shape)
    )
    return (levels * tensor.scale).astype(np.float32)
