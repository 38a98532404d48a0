"""Border cropping: strips at the image's borders are unimportant."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from wrpn_tf.regions.gradient import color_gradient
from wrpn_tf.regions.metric import Metric

SIDES = ("top", "bottom", "left", "right")
_AUTO = "auto"


def all_crops() -> tuple[tuple[str, ...], ...]:
    """Returns the paper's 16 crops: all combinations of `SIDES`, from none to all four."""
    return tuple(
        sides for count in range(len(SIDES) + 1) for sides in itertools.combinations(SIDES, count)
    )


def border_strips(height: int, width: int, fraction: float) -> np.ndarray:
    """Marks the strips along the four borders of an image.

    Args:
        height: The image's height.
        width: The image's width.
        fraction: A strip's width as a part of the image's height (top, bottom) or width (left,
            right); rounded to whole positions, halves up.

    Returns:
        bool [4, height, width], in the order of `SIDES`. Strips share the image's corners.

    Raises:
        ValueError: If a strip would be empty, or two would leave nothing between them.
    """
    rows, columns = (math.floor(fraction * size + 0.5) for size in (height, width))
    for size, strip in ((height, rows), (width, columns)):
        if strip < 1 or 2 * strip >= size:
            raise ValueError(
                f"`fraction` must make strips of at least one position that leave an interior, got "
                f"{fraction}: {strip} of {size} positions in images of {height} x {width}."
            )
    strips = np.zeros((len(SIDES), height, width), bool)
    strips[0, :rows] = strips[1, height - rows :] = True
    strips[2, :, :columns] = strips[3, :, width - columns :] = True
    return strips


def strip_importance(images: Any, strips: np.ndarray) -> Any:
    """Compares each strip's mean colour gradient with its image's.

    importance = strip / (strip + image)

    from 0 through 1/2 (the strip is as busy as its image) to below 1; 1/2 in a constant image. A
    position in two strips has the smaller of both, one in no strip 1.

    Args:
        images: float32 tensor [batch, height, width, channels].
        strips: bool [strips, height, width].

    Returns:
        float32 tensor [batch, height, width].

    Source: Ours. The paper's predictor of the crop is not published.
    """
    weights = strips / strips.sum(axis=(1, 2), keepdims=True, dtype=np.float32)
    gradient = color_gradient(images)[:, None]
    strip_means = ops.sum(gradient * weights, axis=(2, 3))
    totals = strip_means + ops.mean(gradient, axis=(2, 3))
    relative = strip_means / ops.where(totals > 0, totals, ops.ones_like(totals))
    relative = ops.where(totals > 0, relative, 0.5 * ops.ones_like(relative))
    return ops.min(ops.where(strips, relative[:, :, None, None], 1.0), axis=1)


@dataclasses.dataclass(frozen=True)
class BorderCrop(Metric):
    """Importance is 1 inside, and less in strips along the borders.

    Fixed sides: 0 in their strips, the paper's cropping. `"auto"`: each image's four strips have
    the importance of `strip_importance`, so that a threshold between 0 and 1 picks one of the 16
    crops for each image; 1/2 crops the strips that are less busy than their image.

    Args:
        sides: `"auto"`, or those of "top", "bottom", "left" and "right" that are unimportant.
        fraction: A strip's width as a part of the image's height or width, in (0, 0.5); see
            `border_strips`. The default is the paper's 25 of 224 pixels.

    Raises:
        ValueError: If an argument is out of its range; when called, if an image is too small for
            its strips.

    Source: "A Case for Dynamic Activation Quantization in CNNs", EMC2 2018, for the strips and
        their width; `"auto"` is ours.
    """

    sides: Sequence[str] | str = _AUTO
    fraction: float = 25 / 224

    def __post_init__(self) -> None:
        if self.sides != _AUTO:
            known = not isinstance(self.sides, str) and set(self.sides) <= set(SIDES)
            if not known or len(set(self.sides)) != len(self.sides):
                raise ValueError(
                    f'`sides` must be "auto" or a sequence of {", ".join(SIDES)}, each at most '
                    f"once, got {self.sides!r}."
                )
            object.__setattr__(self, "sides", tuple(side for side in SIDES if side in self.sides))
        if not 0.0 < self.fraction < 0.5:
            raise ValueError(f"`fraction` must be in (0, 0.5), got {self.fraction!r}.")

    @property
    def tile(self) -> int:
        """Side of a tile: full resolution."""
        return 1

    def _importance(self, images: Any) -> Any:
        batch, height, width, _ = ops.shape(images)
        strips = border_strips(height, width, self.fraction)
        if self.sides == _AUTO:
            return strip_importance(images, strips)
        cropped = strips[[SIDES.index(side) for side in self.sides]].any(axis=0)
        importance = np.where(cropped, 0.0, 1.0).astype(np.float32)
        return ops.broadcast_to(importance[None], (batch, height, width))
