"""A callback that shows in TensorBoard which regions are important, and what that saves."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.quantization import region_maps, region_plan
from wrpn_tf.regions import RegionPlan
from wrpn_tf.regions.image_values import scale_images
from wrpn_tf.regions.region_plan import tile_size
from wrpn_tf.training.distiller import trained_network
from wrpn_tf.training.flavored_callback import TensorBoardCallback


class RegionTensorBoard(TensorBoardCallback):
    """Writes the regions of some images for TensorBoard, at the end of epochs.

    Scalars, means over `images`:
        mean_activation_bits: Activation bits per multiply-accumulate.
        energy_saving: 1 - mean_activation_bits / full, "full" with everything important: the energy
            of the computation where each activation costs its own bits (bit-serial hardware).

    Images, one of each for every image, of the image's size:
        image: As it is, its smallest value black and its largest white.
        importance: The metric's map, its smallest value black and its largest white.
        bits_I_HxW: Bits at the plan's resolution I, of H x W positions, 0 black and 8 white; where
            its layers have different bits, their mean, each multiply-accumulate counted.

    They are a run of their own, `log_dir`/regions, beside those of Keras' `TensorBoard` callback.

    ```python
    model = wrpn_tf.apply_regions(quantized, wrpn_tf.RegionPrecision(target_bits=6))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, callbacks=[wrpn_tf.training.RegionTensorBoard(model, "logs", x_test[:8])])
    ```

    The result is a callback of the model's Keras.

    Args:
        model: The model with regions that is trained, or a Distiller whose student has some.
        log_dir: The folder of the logs, as of Keras' `TensorBoard`.
        images: The images to show, as the model takes them: an array [images, height, width,
            channels]. A few; all are one batch.
        freq: Write after every so many epochs.

    Raises:
        TypeError: If `model` belongs to neither Keras.
        ValueError: If it has no regions, the images do not fit it, or `freq` is no positive whole
            number.
        ImportError: If TensorBoard is not installed: TensorFlow writes no summaries without it.
    """

    def __init__(self, model: Any, log_dir: str | os.PathLike, images: Any, *, freq: int = 1):
        super().__init__(os.path.join(log_dir, "regions"), freq)
        network = trained_network(model)
        self._plan = region_plan(network)
        self._maps = region_maps(network)
        self._images = _checked_images(images, tuple(network.input_shape[1:]))

    def write(self, summary: Any, logs: dict[str, Any]) -> None:
        """Writes the scalars and images of one epoch."""
        del logs
        maps = self._maps(self._images, training=False)
        mean_bits = float(np.mean(maps["mean_bits"]))
        summary.scalar("mean_activation_bits", mean_bits)
        summary.scalar("energy_saving", 1 - mean_bits / self._plan.mean_bits())
        for name, pictures in self._pictures(maps).items():
            summary.image(name, pictures, max_outputs=len(pictures))

    def _pictures(self, maps: Any) -> dict[str, npt.NDArray[np.float32]]:
        """Returns what is shown: name -> [images, height, width, channels] in [0, 1]."""
        size = self._plan.image_size
        importance = np.asarray(scale_images(maps["importance"][..., None], "auto"))
        tile = tile_size(size, importance.shape[1:3])
        pictures = {
            "image": np.asarray(scale_images(self._images, "auto")),
            "importance": _at_size(importance, size, (tile, tile), (0, 0)),
        }
        for index, at in enumerate(self._plan.resolutions):
            bits = bits_of_ranks(self._plan, index)
            if bits is not None:
                ranks = np.asarray(maps["ranks"][index]).astype(np.int64)
                # Eight bits are the most that an activation has.
                levels = bits[ranks] / np.float32(8)
                name = f"bits_{index}_{at.size[0]}x{at.size[1]}"
                pictures[name] = _at_size(levels, size, at.stride, at.offset)
        return pictures


def bits_of_ranks(plan: RegionPlan, map_index: int) -> npt.NDArray[np.float32] | None:
    """Returns the bits of rank 0, 1, ... at one resolution, or None where nothing reads there.

    The mean over what reads there, each multiply-accumulate counted.

    Args:
        plan: What reads the regions.
        map_index: The resolution, among those of the plan.
    """
    reads = [read for read in plan.reads if read.map_index == map_index]
    if not reads:
        return None
    macs = [int(plan.macs_at(read).sum()) for read in reads]
    return np.average([read.bits for read in reads], axis=0, weights=macs).astype(np.float32)


def _at_size(
    pictures: npt.NDArray[np.float32],
    size: tuple[int, int],
    stride: tuple[float, float],
    offset: tuple[float, float],
) -> npt.NDArray[np.float32]:
    """Repeats positions [images, rows, columns, channels] where they are in images of `size`."""
    for axis in (0, 1):
        places = np.floor((np.arange(size[axis]) - offset[axis]) / stride[axis]).astype(np.int64)
        last = pictures.shape[axis + 1] - 1
        pictures = np.take(pictures, np.clip(places, 0, last), axis=axis + 1)
    return pictures


def _checked_images(images: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    array = np.asarray(images, np.float32)
    if not len(array) or array.shape[1:] != shape:
        raise ValueError(
            f"`images` must have the shape [images, {', '.join(map(str, shape))}] with at least "
            f"one image, got {list(array.shape)}."
        )
    return array
