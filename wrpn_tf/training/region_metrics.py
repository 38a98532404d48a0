"""What a training with regions reports: mean activation bits, and the energy saved."""

from __future__ import annotations

from typing import Any

from wrpn_tf import keras_flavor
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import has_regions, region_maps, region_plan


class RegionMetrics:
    """Keras metrics of the maps that a model with regions makes of its inputs.

    mean_activation_bits: bits per multiply-accumulate, over the network and the images.
    energy_saving: 1 - mean_activation_bits / the same without regions, the share of the
        computational energy that a bit-serial data path saves.

    Attributes:
        metrics: The two metrics; none for a model without regions.
    """

    def __init__(self, model: Any):
        self.metrics: list[Any] = []
        if any(has_regions(layer) for layer in model_graph(model).layers().values()):
            keras = keras_flavor.flavor_of(model).keras
            names = ("mean_activation_bits", "energy_saving")
            self.metrics = [keras.metrics.Mean(name=name) for name in names]
            self._maps = region_maps(model)
            self._full_bits = region_plan(model).mean_bits()

    def update(self, inputs: Any) -> None:
        """Adds a batch of the model's inputs.

        The maps are made anew; where a graph is compiled, it makes them once.
        """
        if self.metrics:
            bits = self._maps(inputs, training=False)["mean_bits"]
            mean_bits, saving = self.metrics
            mean_bits.update_state(bits)
            saving.update_state(1 - bits / self._full_bits)
