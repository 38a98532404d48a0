"""The computational energy that cropping saves: an image's borders at 0 bits in every layer.

The published experiment of dynamic activation quantization (the "AQuA" system): of the strips at
the top, bottom, left and right, N = 25 of 224 pixels wide, some or all get 0 bits, in 16
combinations, and a strip's width is scaled to each feature map. The slides show 25, 10, 8, 5, 2 and
no rule. What gives these widths on VGG-16's maps of 224, 112, 56, 28 and 14 positions:

| rule | widths | on the slides |
|---|---|---|
| N * map / 224 | 25, 12.5, 6.25, 3.125, 1.5625 | 25; 2 if rounded up |
| less 1 for each 3x3 convolution, half for each pooling | 25, 11.5, 4.75, 0.9, - | 25 |
| half once, and less 1 for each 3x3 convolution: 2, 2, 3, 3 | 25, 10, 8, 5, 2 | all |

The last was found by trying, and is no geometry: the later poolings halve a map too. So both are
here: the proportional widths, rounded down, so that a position is cropped only if all pixels under
it are; and the slides'.

Source: K. Taht et al., "A Case for Dynamic Activation Quantization in CNNs", EMC2 2018. The slides
name neither the network nor the model of energy; they refer to VGG, and to Stripes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from wrpn_tf.accelerator import ConvolutionShape, bit_operations
from wrpn_tf.regions.border_crop import SIDES, all_crops

_FULL_BITS = 8
LayerInput: TypeAlias = tuple[int, ConvolutionShape]
"""Height and width of a layer's input, and how the layer reads it."""


def _vgg16() -> Iterator[LayerInput]:
    channels = 3
    for size, filters, convolutions in (
        (224, 64, 2),
        (112, 128, 2),
        (56, 256, 3),
        (28, 512, 3),
        (14, 512, 3),
    ):
        for _ in range(convolutions):
            yield (
                size,
                ConvolutionShape(
                    (3, 3), padding="same", input_channels=channels, output_channels=filters
                ),
            )
            channels = filters
    # The first dense layer reads a map of 7 x 7, as a convolution with one window does.
    yield 7, ConvolutionShape((7, 7), input_channels=512, output_channels=4096)
    yield 1, ConvolutionShape(input_channels=4096, output_channels=4096)
    yield 1, ConvolutionShape(input_channels=4096, output_channels=1000)


VGG16: Sequence[LayerInput] = tuple(_vgg16())
"""The layers of VGG-16 (Simonyan & Zisserman, arXiv 1409.1556, configuration D) at 224 x 224."""
SLIDE_WIDTHS: Mapping[int, int] = {224: 25, 112: 10, 56: 8, 28: 5, 14: 2, 7: 0, 1: 0}
"""Size of a map -> width of a cropped strip as on the slides, if their maps are VGG-16's."""


def proportional_widths(layers: Sequence[LayerInput] = VGG16, width: int = 25) -> dict[int, int]:
    """Returns the width of a strip in each map: floor(width * map / image).

    Args:
        layers: The first reads the image.
        width: In the image.

    Raises:
        ValueError: If strips of that width leave no interior, or it is negative.
    """
    image = layers[0][0]
    if not 0 <= 2 * width < image:
        raise ValueError(f"`width` must be in 0..{(image - 1) // 2}, got {width}.")
    return {size: width * size // image for size, _ in layers}


def crop_savings(
    layers: Sequence[LayerInput] = VGG16, widths: Mapping[int, int] | None = None
) -> dict[tuple[str, ...], float]:
    """Returns the share of all computational energy that each of the 16 crops saves.

    saving = 1 - sum of bit operations / sum of those with all activations at full bits

    Energy is proportional to an activation's bits ("bit_serial" of `accelerator`); values in a
    strip have none. All outputs are computed, those in strips too, from what they read outside.

    Args:
        layers: Of a network.
        widths: Size of a map -> width of a strip; by default `proportional_widths(layers)`.

    Returns:
        Sides at 0 bits -> saving, from none to all four.

    Raises:
        ValueError: If `widths` lacks a map.
    """
    chosen = proportional_widths(layers) if widths is None else widths
    missing = {size for size, _ in layers} - set(chosen)
    if missing:
        raise ValueError(f"`widths` must have an entry for every map, none for {sorted(missing)}.")
    crops = all_crops()
    operations = np.zeros(len(crops), np.int64)
    full = 0
    for size, shape in layers:
        bits = np.stack([_cropped(size, chosen[size], sides) for sides in crops])
        operations += bit_operations(bits, shape)
        full += _FULL_BITS * shape.macs(size, size)
    return dict(zip(crops, (1 - operations / full).tolist(), strict=True))


def _cropped(size: int, width: int, sides: Sequence[str]) -> np.ndarray:
    """A map of full bits, and 0 in the strips of some sides."""
    bits = np.full((size, size), _FULL_BITS, np.uint8)
    top, bottom, left, right = (width if side in sides else 0 for side in SIDES)
    bits[:top] = bits[size - bottom :] = 0
    bits[:, :left] = bits[:, size - right :] = 0
    return bits


def crop_table() -> str:
    """Returns what each of the 16 crops saves of VGG-16's energy, by both rules, as a table."""
    proportional, slides = crop_savings(), crop_savings(widths=SLIDE_WIDTHS)
    rows = [f"{'0 bits at':<28}{'proportional':>14}{'as on the slides':>18}"]
    for sides, saving in proportional.items():
        name = ", ".join(sides) or "-"
        rows.append(f"{name:<28}{saving:>14.1%}{slides[sides]:>18.1%}")
    return "\n".join(rows)
