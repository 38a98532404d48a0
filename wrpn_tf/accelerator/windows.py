"""Where the windows of a convolution stand, as TensorFlow places them."""

from __future__ import annotations

import dataclasses
from typing import Literal

from wrpn_tf.accelerator.checks import check_int

Padding = Literal["same", "valid", "causal"]
PADDINGS = ("same", "valid", "causal")


@dataclasses.dataclass(frozen=True)
class Axis:
    """The windows along one axis.

    Attributes:
        before: Padding before the first value.
        after: Padding after the last.
        outputs: How many windows there are.
    """

    before: int
    after: int
    outputs: int


def window_axis(length: int, kernel: int, stride: int, dilation: int, padding: Padding) -> Axis:
    """Returns the windows of a convolution along an axis.

    "valid": every window lies inside. "same": ceil(length / stride) windows; what they reach
    beyond the input is split evenly, the odd one after. "causal": as many, which end at the values
    that they stand for and reach beyond the input before it alone.

    Raises:
        ValueError: If no window fits.
    """
    reach = (kernel - 1) * dilation + 1
    if padding == "valid":
        if reach > length:
            raise ValueError(f"`n` reaches over {reach} values, but `q` has only {length}.")
        return Axis(0, 0, (length - reach) // stride + 1)
    outputs = -(-length // stride)
    if padding == "causal":
        return Axis(reach - 1, 0, outputs)
    total = max((outputs - 1) * stride + reach - length, 0)
    return Axis(total // 2, total - total // 2, outputs)


def transposed_axis(length: int, kernel: int, stride: int, padding: Padding) -> Axis:
    """Returns the outputs of a transposed convolution along an axis; the padding is cut off.

    "valid": length * stride + max(kernel - stride, 0) outputs. "same": length * stride; of what
    is over, half is cut off before, the odd one after.
    """
    over = max(kernel - stride, 0)
    if padding == "valid":
        return Axis(0, 0, length * stride + over)
    return Axis(over // 2, over - over // 2, length * stride)


def pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """Returns a setting for height and width; one number stands for both.

    Raises:
        TypeError: If it is no int or pair of ints.
        ValueError: If one is below 1, or they are not two.
    """
    both = value if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        raise ValueError(f"`{name}` must be one or two numbers, got {value!r}.")
    return check_int(name, both[0], 1), check_int(name, both[1], 1)


def check_padding(padding: str, known: tuple[str, ...] = PADDINGS) -> None:
    """Checks the name of a padding.

    Raises:
        ValueError: If it is none of the known ones.
    """
    if padding not in known:
        raise ValueError(f"`padding` must be one of {known}, got {padding!r}.")
