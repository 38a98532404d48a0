"""Regions in a simulation: maps of the images, and the levels that convolutions read by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator import ImageCosts, SystolicArray
from wrpn_tf.model_graph import LayerCall, ModelGraph
from wrpn_tf.quantization.region_costs import RegionCounter
from wrpn_tf.quantization.region_graph import ranks_key
from wrpn_tf.quantization.region_reading import region_layers
from wrpn_tf.simulation.values import Integers, Levels


class Regions:
    """The regions of a simulation while it walks the graph.

    Attributes:
        read_levels: Name of a rounded tensor -> what convolutions read of it.

    Args:
        graph: Of a model with regions.
        array: The accelerator.

    Raises:
        ValueError: If the array is weight stationary.
    """

    def __init__(self, graph: ModelGraph, array: SystolicArray):
        self.read_levels: dict[str, Integers] = {}
        self._graph = graph
        self._map_layer = region_layers(graph.model)[1]
        self._counter = RegionCounter(graph, array)
        self._maps: dict[int, npt.NDArray[Any]] = {}  # importance and ranks

    def make_maps(self, call: LayerCall, images: Mapping[int, npt.NDArray[Any]]) -> None:
        """Runs a layer that makes maps, as Keras does."""
        results = self._graph.flatten(call.invoke(call.layer, {**images, **self._maps}))
        maps = [np.asarray(result) for result in results]
        self._maps.update(zip(call.outputs, maps, strict=True))
        if call.layer is self._map_layer:
            self._counter.add(maps[:-1])

    def read(self, call: LayerCall, levels: Levels) -> Levels:
        """Returns what convolutions read of the levels that a region wrapper's layer made."""
        ranks = self._maps[ranks_key(call)]
        integers = coarsened(levels, ranks, call.layer.bits)
        self.read_levels[levels.name] = integers
        return dataclasses.replace(levels, integers=integers)

    def costs(self) -> ImageCosts:
        """Returns what each image costs."""
        return self._counter.result()


def coarsened(levels: Levels, ranks: npt.NDArray[np.float32], bits: Sequence[int]) -> Integers:
    """Returns levels rounded by position to the nested grids of fewer bits: `Grid.coarsen`.

    Args:
        levels: [batch, height, width, channels].
        ranks: [batch, height, width, 1].
        bits: Bits where the rank is 0, 1, ..., rising, at most those of the levels.

    Returns:
        int32, shaped as the levels.
    """
    by_rank = [levels.grid.coarsen(levels.integers, num_bits) for num_bits in bits]
    return np.choose(ranks.astype(np.intp), by_rank)
