"""What every metric of this package is: images -> importance, with a configuration."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import keras
from keras import ops

from wrpn_tf.regions.image_values import check_images
from wrpn_tf.regions.tiles import check_tile


class Metric(abc.ABC):
    """How important the parts of an image are. Subclasses are frozen dataclasses.

    Attributes:
        tile: Side of the squares, in pixels, that share one importance.
    """

    tile: int

    def __call__(self, images: Any) -> Any:
        """Returns the importance of each tile.

        Args:
            images: Float tensor [batch, height, width, channels] with values in [0, 1]; all but the
                batch must be known.

        Returns:
            float32 tensor [batch, ceil(height / tile), ceil(width / tile)], finite; larger is more
            important. That of one image does not depend on the others.

        Raises:
            ValueError: If the images' shape is another, they are no floats, or a tile is larger
                than they are.
        """
        check_images(images)
        dtype = keras.backend.standardize_dtype(images.dtype)
        if "float" not in dtype:
            raise ValueError(
                f"`images` must be floats in [0, 1], got {dtype}: scale them with `scale_images`."
            )
        check_tile(self.tile, images)
        return self._importance(ops.cast(images, "float32"))

    @abc.abstractmethod
    def _importance(self, images: Any) -> Any:
        """Returns the importance for float32 images of a checked shape."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """Makes a metric from what `get_config` returned."""
        return cls(**config)
