"""What a simulation gives: levels, outputs, and what each layer costs on the array."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator import ImageCosts, SystolicArray, Trace, to_gemm_csv
from wrpn_tf.grid import Grid
from wrpn_tf.simulation.table import table_lines
from wrpn_tf.simulation.values import Integers


@dataclasses.dataclass(frozen=True)
class LayerRecord:
    """What one call of a layer with a kernel costs on the array, for one image.

    Attributes:
        name: As in `Simulation.levels`, though a layer behind it may do the rounding.
        num_bits_weight: Bits of the weights: `num_bits_weight - 1` ternary planes (1 for one bit).
        trace: Matrix products, cycles, engines used, SRAM and DRAM traffic in bits per operand;
            accumulators from `smallest` to `largest`, over all images.
    """

    name: str
    num_bits_weight: int
    trace: Trace

    @property
    def accumulator_bits(self) -> int:
        """The bits of the shortest two's complement number that holds all accumulators."""
        largest = max(self.trace.largest, -self.trace.smallest - 1)
        return largest.bit_length() + 1


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation:
    """What `wrpn_tf.simulate` returns; `str()` of it is the table.

    Names of tensors are those of the layers that round them; with `:1`, `:2`, ... where a layer is
    called for the second, third time.

    Attributes:
        name: The model's name.
        num_images: Examples simulated; costs are per example.
        array: The accelerator.
        levels: Name -> int32 [batch, ...], for every rounded tensor, in order of computation;
            real value = scales[name] * levels[name].
        scales: Name -> distance between the tensor's levels.
        grids: Name -> the integers that the tensor may hold.
        outputs: The levels of the model's outputs, in its order, int32 [batch, ...]; of an output
            that is a softmax or a sigmoid, the levels before it.
        output_names: The names of these in `scales` and `grids`.
        probabilities: For each output, the softmax or sigmoid that ends it, float32; else None.
        layers: One record for each call of a layer with a kernel, in order of computation; at full
            activation bits.
        read_levels: Name -> what convolutions read of that tensor, where it is rounded by region;
            empty for a model without regions, as `image_costs` is None.
        image_costs: What each image costs with its regions, by models of hardware.
    """

    name: str
    num_images: int
    array: SystolicArray
    levels: Mapping[str, Integers]
    scales: Mapping[str, float]
    grids: Mapping[str, Grid]
    outputs: tuple[Integers, ...]
    output_names: tuple[str, ...]
    probabilities: tuple[npt.NDArray[np.float32] | None, ...]
    layers: tuple[LayerRecord, ...]
    read_levels: Mapping[str, Integers] = dataclasses.field(default_factory=dict)
    image_costs: ImageCosts | None = None

    @property
    def total(self) -> Trace:
        """All layers' traces, added up: one image, layer after layer."""
        return functools.reduce(operator.add, (layer.trace for layer in self.layers))

    @property
    def cycles(self) -> int:
        """Cycles for one image, layer after layer."""
        return self.total.cycles

    def to_table(self) -> str:
        """Returns a table of the layers and their total, of at most 100 columns."""
        return "\n".join(table_lines(self))

    def to_scale_sim_csv(self) -> str:
        """Returns the matrix products as SCALE-Sim's GEMM topology: `Layer, M, N, K,`.

        A product that the array does in several passes (bit planes, groups) is listed as often.
        """
        return to_gemm_csv((x.name, gemm) for x in self.layers for gemm in x.trace.gemms)

    def __str__(self) -> str:
        return self.to_table()
