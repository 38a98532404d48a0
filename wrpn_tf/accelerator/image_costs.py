"""What each image costs a network whose activations have their own bits at each position."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping

from wrpn_tf.accelerator.activation_energy import ENERGY_MODELS, ActivationCost, Reals
from wrpn_tf.accelerator.image_costs_table import table_lines
from wrpn_tf.accelerator.image_statistics import Distribution, distribution
from wrpn_tf.accelerator.systolic_array import SystolicArray


@dataclasses.dataclass(frozen=True, eq=False)
class LayerCosts:
    """What one call of a layer with a kernel costs, for each image.

    Attributes:
        name: The layer's.
        macs: Multiply-accumulates for one image.
        full_bits: Bits of what the layer reads, were all of it important.
        bits_by_rank: Bits where the rank is 0, 1, ...; None where they are the same everywhere.
        costs: Model of hardware -> cost, for each of `ENERGY_MODELS`.
    """

    name: str
    macs: int
    full_bits: int
    bits_by_rank: tuple[int, ...] | None
    costs: Mapping[str, ActivationCost]

    @property
    def bits(self) -> Reals:
        """Mean activation bits of a multiply-accumulate, float64 [images]."""
        return self.costs["bit_serial"].bit_operations / self.macs


@dataclasses.dataclass(frozen=True, eq=False)
class ImageCosts:
    """What each image costs a network, layer by layer; `str()` of it is the table.

    Models of hardware are those of `ENERGY_MODELS`; `activation_energy` says what they count.

    Attributes:
        name: The network's.
        regions: What makes parts of an image important, in words.
        array: The accelerator.
        layers: One for each call of a layer with a kernel, those without regions too, so that the
            sum is the whole network's.
    """

    name: str
    regions: str
    array: SystolicArray
    layers: tuple[LayerCosts, ...]

    @functools.cached_property
    def total(self) -> Mapping[str, ActivationCost]:
        """Model of hardware -> cost of all layers, one after the other."""
        return {
            name: functools.reduce(operator.add, (layer.costs[name] for layer in self.layers))
            for name in ENERGY_MODELS
        }

    @property
    def num_images(self) -> int:
        """How many images there are."""
        return len(self.bits)

    @property
    def bits(self) -> Reals:
        """Mean activation bits of a multiply-accumulate, over the network: float64 [images]."""
        macs = sum(layer.macs for layer in self.layers)
        return self.total["bit_serial"].bit_operations / macs

    def energy(self, model: str = "bit_serial") -> Reals:
        """Returns each image's energy relative to the same network without regions."""
        return self.total[model].energy

    def cycles(self, model: str = "bit_serial") -> Reals:
        """Returns each image's cycles."""
        return self.total[model].cycles

    def saving(self, model: str = "bit_serial") -> Reals:
        """Returns the share of the energy that each image saves: 1 - energy."""
        return 1 - self.energy(model)

    def distribution(self, model: str = "bit_serial") -> Distribution:
        """Returns how the energy saved is distributed, with the best and the worst image."""
        return distribution(self.saving(model))

    def cycle_saving(self, model: str = "bit_serial") -> Reals:
        """Returns the share of the cycles that each image saves."""
        return 1 - self.total[model].relative_cycles

    def to_table(self) -> str:
        """Returns a table of layers and images, of at most 100 columns."""
        return "\n".join(table_lines(self))

    def __str__(self) -> str:
        return self.to_table()
