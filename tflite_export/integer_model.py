"""A quantized network as integers: what the exporter writes, proves and runs, before it is a file.

Levels are the integers of the network's grids: `real == tensor.scale * level`. A file stores
`level + tensor.zero_point` in eight bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Tensor:
    """The levels `low..high` of one activation tensor.

    Invariants: low <= 0 <= high, low < high, high - low <= 255.

    Attributes:
        name: Unique. Where the tensor is the output of a quantized Keras layer, that layer's name
            (with `:1`, `:2`, ... for its second, third call).
        shape: Without the batch dimension.
        scale: Real value of one level, a float32.
        low: Smallest level.
        high: Largest level.
    """

    name: str
    shape: tuple[int, ...]
    scale: np.float32
    low: int
    high: int

    @property
    def grid(self) -> tuple[np.float32, int, int]:
        """Scale, smallest and largest level: what tensors share whose levels mean the same."""
        return self.scale, self.low, self.high

    @property
    def zero_point(self) -> int:
        """The int8 that stands for level 0.

        Unsigned levels end at int8's largest value, so that saturation is their upper clamp and a
        fused ReLU (which clamps at the zero point) their lower one; signed levels begin at int8's
        smallest value.
        """
        return 127 - self.high if self.low == 0 else -128 - self.low


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """The weights and biases of an operation.

    The accumulator of channel c is sum(stored * spread * (q - zero_point)) + bias[c], with
    stored = integers * multiplier[c]; its real value is accumulator * unit * scale[c], with
    unit = input.scale / spread.

    Attributes:
        integers: int8, on the weights' grid, in TFLite's layout: [out, height, width, in] for
            convolutions (transposed ones too), [1, height, width, out] for depthwise ones,
            [out, in] for dense layers.
        num_bits: Bits of `integers`.
        multiplier: int32 [out]; |stored| <= 127.
        scale: float32 [out], real value of one unit of `stored`.
        bias: int32 [out].
        spread: A power of two, by which the file multiplies the input's levels (they stay in eight
            bits) before it reads them; see `storage.spread`.
    """

    integers: npt.NDArray[np.int8]
    num_bits: int
    multiplier: npt.NDArray[np.int32]
    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.int32]
    spread: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One operation of the integer graph.

    Attributes:
        name: Unique; the Keras layer's that the operation comes from.
        inputs: Names of tensors.
        output: Name of a tensor.
    """

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclasses.dataclass(frozen=True, eq=False)
class Conv2D(Operation):
    """A convolution; grouped where the kernel's last axis is shorter than the input's.

    Attributes:
        kernel: Weights and biases.
        strides: Rows, columns.
        padding: `"same"` (with level 0) or `"valid"`.
        dilation: Rows, columns.
        relu: Whether results below level 0 become level 0.
    """

    kernel: Kernel
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"
    dilation: tuple[int, int] = (1, 1)
    relu: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class DepthwiseConv2D(Conv2D):
    """A depthwise convolution: output channel c reads input channel c // depth_multiplier.

    Average pooling and a batch norm with no convolution before it are written as one.
    """


@dataclasses.dataclass(frozen=True, eq=False)
class TransposeConv(Conv2D):
    """A transposed convolution; no dilation."""


@dataclasses.dataclass(frozen=True, eq=False)
class FullyConnected(Operation):
    """A dense layer over the last axis.

    Attributes:
        kernel: Weights and biases.
        relu: Whether results below level 0 become level 0.
    """

    kernel: Kernel
    relu: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Add(Operation):
    """The sum or difference of two tensors of the same shape, rounded to the output's grid.

    Attributes:
        relu: Whether results below level 0 become level 0.
        sign: Of the second tensor: -1 in a difference.
    """

    relu: bool = False
    sign: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Multiply(Operation):
    """The product of two tensors of as many axes, each of 1 or the output's size, rounded.

    Attributes:
        relu: Whether results below level 0 become level 0.
    """

    relu: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Lookup(Operation):
    """A function of each value by itself.

    Attributes:
        table: int64, the output's level of each of the input's levels, the lowest first.
        relu: Whether results below level 0 become level 0.
    """

    table: npt.NDArray[np.int64]
    relu: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Shift(Operation):
    """Levels moved by a whole number: output level = input level + amount.

    Where kernels round negative values in different ways, an operation writes levels from 0, and
    this one moves them to where they belong.

    Attributes:
        amount: -255..255.
    """

    amount: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Move(Operation):
    """What gives levels of its inputs, or level 0: all its tensors are on one grid."""


@dataclasses.dataclass(frozen=True, eq=False)
class Concatenation(Move):
    """Tensors of one grid, joined.

    Attributes:
        axis: Counted with the batch dimension, >= 1.
    """

    axis: int = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Maximum(Move):
    """The larger level of each two of two tensors of the same shape."""


@dataclasses.dataclass(frozen=True, eq=False)
class Minimum(Move):
    """The smaller level of each two of two tensors of the same shape."""


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool2D(Move):
    """The largest level of each window.

    Attributes:
        pool: Rows, columns.
        strides: Rows, columns.
        padding: `"same"` or `"valid"`.
    """

    pool: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"


@dataclasses.dataclass(frozen=True, eq=False)
class Pad(Move):
    """Level 0 around a tensor.

    Attributes:
        amounts: (before, after) of each axis, the batch dimension left out.
    """

    amounts: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class EdgePad(Move):
    """A tensor whose outermost levels stand once more beyond its edges.

    Attributes:
        amounts: 0 or 1, (before, after) of each axis, the batch dimension left out.
    """

    amounts: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Crop(Move):
    """A tensor without its edges.

    Attributes:
        amounts: What is cut off, (before, after) of each axis, the batch dimension left out.
    """

    amounts: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Permute(Move):
    """A tensor with its axes in another order.

    Attributes:
        order: The input's axis that each of the output's is, the batch dimension left out.
    """

    order: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class UpSample2D(Move):
    """An image each of whose pixels becomes a rectangle.

    Attributes:
        size: Rows, columns of the rectangle.
    """

    size: tuple[int, int] = (1, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Reshape(Move):
    """The same levels in the output's shape."""


@dataclasses.dataclass(frozen=True, eq=False)
class Probabilities(Operation):
    """What makes probabilities of logits, in levels of 1/256 (0..255).

    Each kernel has its own table of exponentials, so nothing exact can come behind one.
    """


@dataclasses.dataclass(frozen=True, eq=False)
class Softmax(Probabilities):
    """One probability for each class on the last axis."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sigmoid(Probabilities):
    """A probability for each value by itself."""


def lowest_level(operation: Operation, output: Tensor) -> int:
    """Returns the lowest level that an operation which rounds can write."""
    return 0 if getattr(operation, "relu", False) else output.low


def spread_scale(scale: np.float32, spread: int) -> np.float32:
    """Returns the real value of one unit of levels that a power of two has multiplied; exact."""
    return np.float32(scale / np.float32(spread))


def reachable_sums(
    operation: Conv2D | FullyConnected, source: Tensor
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the smallest and the largest sum(n q) of each channel, over all inputs.

    Padding and the edges of a transposed convolution leave terms out; as low <= 0 <= high, what is
    left lies between the same bounds.
    """
    integers = operation.kernel.integers.astype(np.int64)
    axes = _weight_axes(operation)
    positive = np.maximum(integers, 0).sum(axes)
    negative = np.minimum(integers, 0).sum(axes)
    smallest = positive * source.low + negative * source.high
    largest = positive * source.high + negative * source.low
    return smallest, largest


def largest_weights(operation: Conv2D | FullyConnected) -> npt.NDArray[np.int64]:
    """Returns the largest magnitude of each channel's integers."""
    integers = np.abs(operation.kernel.integers.astype(np.int64))
    return np.asarray(integers.max(_weight_axes(operation)))


def _weight_axes(operation: Conv2D | FullyConnected) -> tuple[int, ...]:
    """All axes of the integers but that of the output channels."""
    if isinstance(operation, DepthwiseConv2D):
        return (0, 1, 2)
    return tuple(range(1, operation.kernel.integers.ndim))


def rooms(
    smallest: npt.NDArray[np.int64], largest: npt.NDArray[np.int64], output: Tensor
) -> npt.NDArray[np.float64]:
    """Returns how many values of `reachable_sums` each channel has per output level."""
    return np.asarray((largest - smallest) / (output.high - output.low))


@dataclasses.dataclass(frozen=True)
class IntegerModel:
    """A network of integers.

    Attributes:
        tensors: Name -> tensor.
        operations: In an order in which each reads only what is known.
        inputs: Names of the input tensors, in the Keras model's order.
        outputs: Names of the output tensors, in the Keras model's order.
    """

    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
