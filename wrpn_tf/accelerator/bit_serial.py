"""What a convolution costs whose activations have their own bits at each position.

All channels of a position have the same bits b, so a map [images, height, width] says it all. A
product of a b-bit activation counts b bit operations: as many cycles as a bit-serial multiplier
takes, and as much energy. Products with the zeros of padding count as multiply-accumulates, in
print and in this project; each is charged the bits of the nearest position of the map. So a map of
b bits everywhere costs exactly b times the multiply-accumulates.

Neighbours that go through the hardware in lock step all take the time of the one with the most
bits. On the output stationary array (`timing`) these are the R windows that a fold's rows hold, row
by row of one image. An activation enters bit by bit, those of the next row of engines one cycle
later, and the weight that meets it waits until its last bit is through:

| | bit-parallel | bit-serial |
|---|---|---|
| step k of a fold, K = taps * input channels of a group | 1 cycle | d_k = max of its rows' bits |
| streamed for T cycles | K | sum of d_k = input channels * sum over taps of d |
| a fold's cycles, mode "drain" | 2R + C + T - 2 | 2R + C + T - 2; 0 if T = 0 |
| folds of one pass | ceil(M / R) * ceil(N / C) | the same |
| passes | groups * planes of the weights | the same |

A step whose rows all have 0 bits is skipped, and so is a fold of such steps: the maps are known
before. A map of 8 bits everywhere takes T = 8K, and the same fill and drain as the bit-parallel
array.

A b-bit level m stands for the level s * m of the full grid, s = (2^k - 1) / (2^b - 1), which is 17,
85 or 255 for k = 8. It takes b cycles all the same: the engine adds its weight times s * 2^j for
bit j of m, one constant per bit and precision, with no multiplier.

Sources: P. Judd et al., "Stripes: Bit-Serial Deep Neural Network Computing", MICRO 2016: cycles and
energy proportional to the activations' bits. A. Delmas et al., "Dynamic Stripes", arXiv 1706.00504,
and DNNsim, github.com/isakedo/DNNsim, `DynamicStripes`: a group costs its maximum; there a group of
zeros still takes a cycle, for it is found only when read.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.checks import check_int
from wrpn_tf.accelerator.systolic_array import SystolicArray
from wrpn_tf.accelerator.windows import Padding, check_padding, pair, window_axis

Integers = npt.NDArray[np.int64]
MAX_ACTIVATION_BITS = 8


@dataclasses.dataclass(frozen=True)
class ConvolutionShape:
    """How a convolution reads its input; a depthwise one has a group for each channel.

    Attributes:
        kernel_size: Height and width; one number stands for both, here and below.
        strides: Of the windows.
        dilation: Distance between the values of a window.
        padding: "same" or "valid", as TensorFlow's, or "causal", as Keras' `Conv1D`'s.
        input_channels: Of a group.
        output_channels: Of a group: how often a value is used at one tap.
        groups: Of channels, each with its own filters.

    Raises:
        TypeError, ValueError: If a number is no int, or below 1, or the padding is unknown.
    """

    kernel_size: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: Padding = "valid"
    input_channels: int = 1
    output_channels: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        for name in ("kernel_size", "strides", "dilation"):
            object.__setattr__(self, name, pair(name, getattr(self, name)))
        for name in ("input_channels", "output_channels", "groups"):
            check_int(name, getattr(self, name), 1)
        check_padding(self.padding)

    @property
    def depth(self) -> int:
        """K, the products in each output."""
        return math.prod(self.kernel_size) * self.input_channels

    @property
    def macs_per_tap(self) -> int:
        """Multiply-accumulates of one window at one tap, over all channels."""
        return self.input_channels * self.output_channels * self.groups

    def num_windows(self, height: int, width: int) -> int:
        """Returns M, the output positions for an input of that size.

        Raises:
            ValueError: If no window fits.
        """
        return math.prod(len(read) for read in self.reads(height, width))

    def macs(self, height: int, width: int) -> int:
        """Returns the multiply-accumulates for an input of that size, padding's included."""
        taps = math.prod(self.kernel_size)
        return self.num_windows(height, width) * taps * self.macs_per_tap

    def reads(self, height: int, width: int) -> tuple[Integers, Integers]:
        """Returns which rows and which columns of the input the windows read.

        Returns:
            Rows [windows, taps] and columns [windows, taps]; for padding, the nearest ones.

        Raises:
            ValueError: If no window fits.
        """
        rows, cols = (self._reads(axis, length) for axis, length in enumerate((height, width)))
        return rows, cols

    def _reads(self, axis: int, length: int) -> Integers:
        kernel, stride, step = (x[axis] for x in (self.kernel_size, self.strides, self.dilation))
        reach = (kernel - 1) * step + 1
        if self.padding == "valid" and reach > length:
            raise ValueError(f"`bits` must hold a window of {reach} positions, got {length}.")
        windows = window_axis(length, kernel, stride, step, self.padding)
        starts = np.arange(windows.outputs) * stride - windows.before
        reads: Integers = starts[:, np.newaxis] + np.arange(kernel) * step
        return reads.clip(0, length - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class WindowSums:
    """What one channel's bits add up to over a layer's windows: int64 [images] each.

    Layers that read a map through the same windows share it; see `window_sums`.

    Attributes:
        own: Sum of the bits over windows and taps.
        groups: The same with each group's most bits for all its windows.
        streamed: Sum over groups and taps of the most bits: the cycles of a fold, of all folds.
        busy_groups: Groups with a bit at all.
    """

    own: Integers
    groups: Integers
    streamed: Integers
    busy_groups: Integers


def window_sums(bits: npt.ArrayLike, shape: ConvolutionShape, group_size: int) -> WindowSums:
    """Returns what bits add up to, for one channel; the number of channels does not matter.

    Args:
        bits: Of the input's values at each position, integers in 0..8, [images, height, width].
        shape: How the convolution reads them.
        group_size: Output positions of a group, row by row; an image's last may have fewer.

    Raises:
        TypeError: If `bits` holds no integers, or `group_size` is none.
        ValueError: If they are out of range, or `bits` is of another shape, or no window fits.
    """
    levels = check_bits(bits)
    folds = _fold_bits(levels, shape, check_int("group_size", group_size, 1))
    windows = np.full(folds.shape[1], group_size)
    windows[-1] -= folds.shape[1] * group_size - shape.num_windows(*levels.shape[1:])
    return WindowSums(
        own=_own_bits(levels, shape),
        groups=folds @ windows,
        streamed=folds.sum(axis=1),
        busy_groups=np.count_nonzero(folds, axis=1),
    )


def bit_operations(bits: npt.ArrayLike, shape: ConvolutionShape) -> Integers:
    """Returns the sum of the activation's bits over all multiply-accumulates, each on its own.

    Args:
        bits: Of the input's values at each position, integers in 0..8, [images, height, width].
        shape: How the convolution reads them.

    Returns:
        int64 [images].

    Raises:
        TypeError: If `bits` holds no integers.
        ValueError: If they are out of range, or of another shape, or no window fits.
    """
    return _own_bits(check_bits(bits), shape) * shape.macs_per_tap


def group_bit_operations(
    bits: npt.ArrayLike, shape: ConvolutionShape, group_size: int = 8
) -> Integers:
    """Returns the same where neighbouring windows go in lock step: a group costs its maximum.

    Args:
        bits: As in `bit_operations`.
        shape: As in `bit_operations`.
        group_size: As in `window_sums`.

    Returns:
        int64 [images]; `bit_operations` for a group of 1.

    Raises:
        TypeError, ValueError: As `window_sums`.
    """
    return window_sums(bits, shape, group_size).groups * shape.macs_per_tap


def serial_cycles(
    bits: npt.ArrayLike, shape: ConvolutionShape, array: SystolicArray, planes: int = 1
) -> Integers:
    """Returns the cycles of a bit-serial array, by the table of the module.

    Args:
        bits: As in `bit_operations`.
        shape: As in `bit_operations`.
        array: Its rows and columns; output stationary.
        planes: Ternary planes of the weights, each a pass.

    Returns:
        int64 [images], for each image until the last value has left the array.

    Raises:
        TypeError, ValueError: As `fold_cycles` and `window_sums`.
    """
    return fold_cycles(window_sums(bits, shape, array.rows), shape, array, planes)


def fold_cycles(
    sums: WindowSums, shape: ConvolutionShape, array: SystolicArray, planes: int = 1
) -> Integers:
    """Returns the same from sums whose groups are the array's rows.

    Raises:
        TypeError, ValueError: If `planes` is no int >= 1, or the array is weight stationary.
    """
    if array.dataflow != "os":
        raise ValueError(f"`array` must be output stationary, 'os', got {array.dataflow!r}.")
    passes = shape.groups * check_int("planes", planes, 1)
    fill_and_drain = 2 * array.rows + array.cols - 2
    one_column = shape.input_channels * sums.streamed + fill_and_drain * sums.busy_groups
    return one_column * (-(-shape.output_channels // array.cols) * passes)


def check_bits(bits: npt.ArrayLike, largest: int = MAX_ACTIVATION_BITS) -> npt.NDArray[np.uint8]:
    """Returns a map of bits as uint8.

    Raises:
        TypeError: If it holds no integers.
        ValueError: If it is not [images, height, width], or one is outside 0..largest.
    """
    array = np.asarray(bits)
    if array.dtype.kind not in "iu":
        raise TypeError(f"`bits` must hold integers, got {array.dtype}.")
    if array.ndim != 3 or not array.size:
        raise ValueError(f"`bits` must be [images, height, width], got shape {array.shape}.")
    if array.min() < 0 or array.max() > largest:
        raise ValueError(f"`bits` must be in 0..{largest}, got {array.min()}..{array.max()}.")
    return array.astype(np.uint8)


def _own_bits(levels: npt.NDArray[np.uint8], shape: ConvolutionShape) -> Integers:
    """The sum of one channel's bits over windows and taps."""
    rows, cols = (
        np.bincount(reads.ravel(), minlength=length)
        for reads, length in zip(shape.reads(*levels.shape[1:]), levels.shape[1:], strict=True)
    )
    total: Integers = (levels @ cols) @ rows
    return total


def _fold_bits(levels: npt.NDArray[np.uint8], shape: ConvolutionShape, lanes: int) -> Integers:
    """The cycles of each fold for one channel: sum over taps of its windows' most bits."""
    rows, cols = shape.reads(*levels.shape[1:])
    windows = len(rows) * len(cols)
    folds = -(-windows // lanes)
    padded = np.zeros((len(levels), folds * lanes), np.uint8)
    total = np.zeros((len(levels), folds), np.int64)
    for row in rows.T:
        read = levels[:, row]
        for col in cols.T:
            padded[:, :windows] = read[:, :, col].reshape(len(levels), windows)
            total += padded.reshape(len(levels), folds, lanes).max(axis=2)
    return total
