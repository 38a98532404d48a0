"""What reads which part of an image at which precision: a network's regions, as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator.windows import Padding, window_axis


@dataclasses.dataclass(frozen=True)
class Resolution:
    """Which part of the image each position of a tensor stands for, along both axes.

    Position i of an axis stands for the image positions offset + stride * i .. offset + stride *
    (i + 1) - 1; what lies outside the image is padding. Behind max pooling whose windows overlap,
    values come from `reach` more positions before and after these.

    Attributes:
        stride: Image positions for one position of the tensor (down, right); 1 / u after an
            upsampling by u.
        offset: Image position of the first position's first (down, right).
        size: The tensor's (height, width).
        reach: More image positions that values may come from: (before, after), down and right.
    """

    stride: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]
    reach: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 0.0), (0.0, 0.0))


@dataclasses.dataclass(frozen=True)
class RegionRead:
    """One convolution that reads a tensor whose precision depends on the position.

    Attributes:
        name: The convolution's.
        source: Name of the layer that rounds the tensor.
        map_index: The tensor's resolution, among those of the plan.
        full_bits: Bits of the tensor's levels.
        bits: Bits of the values at positions of rank 0, 1, ...; rising, at most `full_bits`.
        kernel_size: (down, right).
        strides: (down, right).
        dilation: (down, right).
        padding: `"same"` or `"valid"`.
        input_channels: Channels that one output reads.
        output_channels: Outputs that read one value at one place of the kernel.
        groups: input_channels * groups == channels of the tensor.
    """

    name: str
    source: str
    map_index: int
    full_bits: int
    bits: tuple[int, ...]
    kernel_size: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    padding: Padding
    input_channels: int
    output_channels: int
    groups: int

    @property
    def macs_per_use(self) -> int:
        """Multiply-accumulates of one position at one place of the kernel, over all channels."""
        return self.input_channels * self.groups * self.output_channels


@dataclasses.dataclass(frozen=True)
class FixedRead:
    """One layer with kernels whose input has the same precision everywhere.

    Attributes:
        name: The layer's.
        macs: Its multiply-accumulates for one example.
        bits: Bits of its input's levels.
    """

    name: str
    macs: int
    bits: int


@dataclasses.dataclass(frozen=True)
class RegionPlan:
    """All layers with kernels of a network, and what they read.

    Attributes:
        image_size: (height, width) of the input image.
        resolutions: The resolutions at which tensors have regions.
        reads: The layers whose input's precision depends on the position.
        fixed: All other layers with kernels.
    """

    image_size: tuple[int, int]
    resolutions: tuple[Resolution, ...]
    reads: tuple[RegionRead, ...]
    fixed: tuple[FixedRead, ...]

    def macs_at(self, read: RegionRead) -> npt.NDArray[np.int64]:
        """Returns the multiply-accumulates of each position that a layer reads: [height, width].

        Products with padding count, as everywhere; each counts for the nearest position.
        """
        rows, columns = (
            axis_uses(
                size,
                read.kernel_size[axis],
                read.strides[axis],
                read.dilation[axis],
                read.padding,
            )
            for axis, size in enumerate(self.resolutions[read.map_index].size)
        )
        return np.multiply.outer(rows, columns) * read.macs_per_use

    def weighed(self) -> dict[tuple[int, tuple[int, ...]], npt.NDArray[np.int64]]:
        """Returns the multiply-accumulates by position of all reads: (map, bits) -> [H, W]."""
        total: dict[tuple[int, tuple[int, ...]], npt.NDArray[np.int64]] = {}
        for read in self.reads:
            key = (read.map_index, read.bits)
            total[key] = total.get(key, 0) + self.macs_at(read)
        return total

    @property
    def macs(self) -> int:
        """The network's multiply-accumulates for one image."""
        varying = sum(int(macs.sum()) for macs in self.weighed().values())
        return varying + sum(read.macs for read in self.fixed)

    @property
    def fixed_bit_macs(self) -> int:
        """Multiply-accumulates times activation bits of the layers without regions."""
        return sum(read.macs * read.bits for read in self.fixed)

    def mean_bits(self, rank: int | None = None) -> float:
        """Returns the mean activation bits per multiply-accumulate, were all positions of one rank.

        Args:
            rank: The rank; None: full precision.
        """
        varying = sum(
            int(self.macs_at(read).sum()) * (read.full_bits if rank is None else read.bits[rank])
            for read in self.reads
        )
        return (varying + self.fixed_bit_macs) / self.macs

    def get_config(self) -> dict[str, Any]:
        """Returns the plan as JSON-ready data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RegionPlan:
        """Returns the plan that `get_config` describes."""
        return cls(
            _tuples(config["image_size"]),
            tuple(Resolution(**_tuples(entry)) for entry in config["resolutions"]),
            tuple(RegionRead(**_tuples(entry)) for entry in config["reads"]),
            tuple(FixedRead(**entry) for entry in config["fixed"]),
        )


def axis_uses(
    length: int, kernel: int, stride: int, dilation: int, padding: Padding
) -> npt.NDArray[np.int64]:
    """Returns how often a convolution's windows read each position of an axis.

    What they read of the padding counts for the nearest position.
    """
    axis = window_axis(length, kernel, stride, dilation, padding)
    starts = np.arange(axis.outputs) * stride - axis.before
    places = starts[:, None] + np.arange(kernel) * dilation
    return np.bincount(np.clip(places, 0, length - 1).ravel(), minlength=length)


def tile_size(image_size: tuple[int, int], map_size: tuple[int, int]) -> int:
    """Returns the side of the squares of an image that one value of a map stands for.

    Raises:
        ValueError: If there is none: sides are not those of a grid of such squares.
    """
    tile = math.ceil(image_size[0] / map_size[0]) if all(map_size) else 0
    fitting = tile and all(
        math.ceil(length / tile) == count
        for length, count in zip(image_size, map_size, strict=True)
    )
    if not fitting:
        raise ValueError(
            f"`metric` must give one value for each square tile of the {image_size[0]}x"
            f"{image_size[1]} image, got a map of {map_size[0]}x{map_size[1]}."
        )
    return tile


def _tuples(data: Any) -> Any:
    """JSON's lists as tuples."""
    if isinstance(data, Mapping):
        return {key: _tuples(value) for key, value in data.items()}
    return tuple(_tuples(x) for x in data) if isinstance(data, list | tuple) else data
