"""`region_energy`: what each image costs a network with regions, from the network's own maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator import ImageCosts, SystolicArray
from wrpn_tf.analysis.model_summary import check_batch_size
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import region_maps
from wrpn_tf.quantization.region_costs import RegionCounter


def region_energy(
    model: Any,
    images: npt.ArrayLike,
    *,
    batch_size: int = 128,
    array: SystolicArray | None = None,
    verbose: bool = True,
) -> ImageCosts:
    """Counts the bits, energy and cycles of each image, layer by layer, by models of hardware.

    Only the maps are computed, not the network: ranks of each image's positions become bits, and
    bits become costs (`wrpn_tf.accelerator.activation_costs`). Layers without regions count at
    their full bits, so totals and savings are of the whole network.

    Args:
        model: A model of either Keras with regions.
        images: [images, height, width, channels], as the model takes them.
        batch_size: Images at once.
        array: The accelerator, output stationary; by default 8 x 8 engines.
        verbose: Whether to show a progress bar.

    Returns:
        Costs of each image and each layer under "bit_serial", "bit_serial_group" and "fixed";
        `to_table()` of it says how they are distributed over the images.

    Raises:
        TypeError: If `model` is no Keras model, or an argument is of a wrong type.
        ValueError: If it has no regions, the images do not fit it or are none, `batch_size` is
            below 1, or the array is weight stationary.

    Source: "A Case for Dynamic Activation Quantization in CNNs", EMC2 2018, for energy saved by
        image; models of hardware as `wrpn_tf.accelerator.activation_energy` says.
    """
    check_batch_size(batch_size)
    maps = region_maps(model)
    graph = model_graph(model)
    examples = np.asarray(images)
    (key,) = graph.inputs
    shape, dtype = graph.shapes[key], graph.dtypes[key]
    if examples.shape[1:] != shape[1:] or not len(examples):
        raise ValueError(
            f"`images` must have the shape {shape}, one image or more, got {examples.shape}."
        )
    counter = RegionCounter(graph, array)
    progress = graph.flavor.keras.utils.Progbar(
        len(examples), verbose=int(verbose), unit_name="image"
    )
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size].astype(dtype)
        counter.add([np.asarray(x) for x in maps(batch, training=False)["ranks"]])
        progress.update(min(start + batch_size, len(examples)))
    return counter.result()
