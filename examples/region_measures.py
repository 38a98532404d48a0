"""Measures what the layers of a network with regions read of images."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import wrpn_tf
from wrpn_tf.quantization import region_maps, region_plan


@dataclasses.dataclass(frozen=True, eq=False)
class LayerBits:
    """What one layer reads of one image.

    Attributes:
        name: The layer's.
        share: Its multiply-accumulates / those of the network.
        full_bits: Bits without regions.
        shares: Bits -> the share of its multiply-accumulates that read so many.
        bits: Bits at each position, [height, width]; None: no regions reach the layer.
        extent: Where the positions are in the image: left, right, bottom, top.
    """

    name: str
    share: float
    full_bits: int
    shares: Mapping[int, float]
    bits: npt.NDArray[np.int64] | None = None
    extent: tuple[float, float, float, float] = (0, 0, 0, 0)

    @property
    def mean_bits(self) -> float:
        """Bits per multiply-accumulate."""
        return sum(bits * share for bits, share in self.shares.items())


@dataclasses.dataclass(frozen=True, eq=False)
class ImageRegions:
    """One image, and what a network reads of it.

    Attributes:
        name: The image's.
        image: [height, width, 1 or 3] in [0, 1].
        importance: [rows, columns].
        layers: The layers with kernels, in the network's order.
        mean_bits: Activation bits per multiply-accumulate of the network.
        full_bits: The same without regions.
    """

    name: str
    image: npt.NDArray[np.float32]
    importance: npt.NDArray[np.float32]
    layers: Sequence[LayerBits]
    mean_bits: float
    full_bits: float

    @property
    def saving(self) -> float:
        """The share of the computation's energy saved where activations cost their own bits."""
        return 1 - self.mean_bits / self.full_bits


def measure(
    model: Any, images: Mapping[str, npt.NDArray[np.float32]], precision: wrpn_tf.RegionPrecision
) -> list[ImageRegions]:
    """Returns what a quantized model reads of each image, were it given these regions.

    A `target_bits` is reached over these images.

    Args:
        model: A Keras model, quantized.
        images: Name -> [height, width, channels] in [0, 1].
        precision: The regions.
    """
    with_regions = wrpn_tf.apply_regions(model, precision)
    pixels = np.stack(list(images.values()))
    if precision.target_bits is not None:
        with warnings.catch_warnings():
            # Of a target that is missed: the table shows the bits reached.
            warnings.simplefilter("ignore", UserWarning)
            wrpn_tf.calibrate_regions(with_regions, pixels, verbose=False)
    maps = region_maps(with_regions)(pixels)
    plan = region_plan(with_regions)
    ranks = [np.asarray(x)[..., 0].astype(int) for x in maps["ranks"]]
    order = [layer.name.removeprefix("region_") for layer in with_regions.layers]
    return [
        ImageRegions(
            name=name,
            image=image,
            importance=np.asarray(maps["importance"][index]),
            layers=_layers(plan, [x[index] for x in ranks], order),
            mean_bits=float(maps["mean_bits"][index]),
            full_bits=plan.mean_bits(),
        )
        for index, (name, image) in enumerate(images.items())
    ]


def _layers(plan: Any, ranks: Sequence[np.ndarray], order: Sequence[str]) -> list[LayerBits]:
    found = {read.name: _varying(plan, read, ranks[read.map_index]) for read in plan.reads}
    for read in plan.fixed:
        share = read.macs / plan.macs
        found[read.name] = LayerBits(_plain(read.name), share, read.bits, {read.bits: 1.0})
    return [found[name] for name in order if name in found]


def _varying(plan: Any, read: Any, ranks: np.ndarray) -> LayerBits:
    macs = plan.macs_at(read)
    bits = np.asarray(read.bits)[ranks]
    at = plan.resolutions[read.map_index]
    (top, left), (height, width) = at.offset, np.multiply(at.stride, at.size)
    return LayerBits(
        name=_plain(read.name),
        share=float(macs.sum() / plan.macs),
        full_bits=read.full_bits,
        shares={b: float(macs[bits == b].sum() / macs.sum()) for b in sorted(set(read.bits))},
        bits=bits,
        extent=(left, left + width, top + height, top),
    )


def _plain(name: str) -> str:
    return name.removeprefix("quant_")
