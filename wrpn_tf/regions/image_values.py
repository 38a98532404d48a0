"""Images as the metrics read them: float32 in [0, 1], and grey values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

# Rec. 601 luma of red, green and blue, as in most colour codecs.
_LUMA = (0.299, 0.587, 0.114)


def scale_images(images: Any, value_range: tuple[float, float] | str) -> Any:
    """Scales images to [0, 1].

    scaled = clip((image - low) / (high - low), 0, 1)

    Args:
        images: Integers or floats [batch, height, width, channels].
        value_range: `(low, high)`, the values that become 0 and 1; or `"auto"`: of each image its
            own smallest and largest value, whatever else is in the batch. A constant image then
            becomes 0.

    Returns:
        float32 tensor of the images' shape.

    Raises:
        ValueError: If the range or the images' rank is wrong.
    """
    check_images(images)
    images = ops.cast(images, "float32")
    if isinstance(value_range, str):
        if value_range != "auto":
            raise ValueError(
                f'`value_range` must be a pair (low, high) or "auto", got {value_range!r}.'
            )
        low = ops.min(images, axis=(1, 2, 3), keepdims=True)
        spread = ops.max(images, axis=(1, 2, 3), keepdims=True) - low
        return (images - low) / ops.where(spread > 0, spread, ops.ones_like(spread))
    low, high = _checked_range(value_range)
    # As a factor: TensorFlow divides by a constant so in a graph, but not outside of one.
    return ops.clip((images - low) * (np.float32(1.0) / (high - low)), 0.0, 1.0)


def grey_values(images: Any) -> Any:
    """Returns [batch, height, width]: Rec. 601 luma of three channels, the mean of any others."""
    if images.shape[-1] != len(_LUMA):
        return ops.mean(images, axis=-1)
    red, green, blue = (images[..., channel] * _LUMA[channel] for channel in range(len(_LUMA)))
    return red + green + blue


def check_images(images: Any) -> None:
    """Raises ValueError unless images are [batch, height, width, channels], all but batch known."""
    shape = tuple(images.shape)
    if len(shape) != 4 or any(size is None or size < 1 for size in shape[1:]):
        raise ValueError(
            "`images` must have the shape [batch, height, width, channels] with known height, "
            f"width and channels, got {shape}."
        )


def _checked_range(value_range: Any) -> tuple[np.float32, np.float32]:
    """Returns low and high in float32."""
    pair = isinstance(value_range, Sequence) and len(value_range) == 2
    if not pair or not -math.inf < value_range[0] < value_range[1] < math.inf:
        raise ValueError(
            f"`value_range` must be (low, high) with finite low < high, got {value_range!r}."
        )
    return np.float32(value_range[0]), np.float32(value_range[1])
