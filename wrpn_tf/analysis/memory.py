"""Memory footprint of training and inference: weights against activations, by batch size.

Two rules, each by its name:

| rule | training | inference |
|---|---|---|
| "figure" | W + b * A | W + b * 2 * max M |
| "text" | W + b * (A + max dZ + max dX) | W + b * (max X + max Z) |

W: the weights; b: the batch size; A: all feature maps; M: one feature map; X, Z: the maps that a
layer with weights reads and makes; dX, dZ: their gradients. "text" is how WRPN describes its
Figure 1 in section 2, "figure" what gives the figure's numbers: gradients are not in them.

A feature map is a model's input, the output of a layer with multiplied weights, or that of a
pooling layer; normalizations and activations work in place. A map takes the bits at which it is
stored: those of the quantizer at the end of its chain.

Source: Mishra et al., "WRPN" (arXiv 1709.01134), section 2 and Figure 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from wrpn_tf.analysis.cost import check_profile
from wrpn_tf.analysis.model_summary import check_batch_size
from wrpn_tf.analysis.precision import FLOAT_BITS
from wrpn_tf.analysis.profile import LayerProfile, ModelProfile
from wrpn_tf.model_graph import Shape

_PHASES = ("training", "inference")
_RULES = ("figure", "text")
_COUNTINGS = ("parameters", "kernels", "convolutions")


@dataclasses.dataclass(frozen=True)
class MemoryFootprint:
    """The memory of one batch.

    Attributes:
        phase: "training" or "inference".
        rule: "figure" or "text".
        batch_size: Examples per batch.
        weight_bytes: Bytes of the weights, whatever the batch.
        activation_bytes: Bytes of the feature maps of the batch.
        gradient_bytes: Bytes of the gradient maps of the batch; 0 where the rule has none.
    """

    phase: str
    rule: str
    batch_size: int
    weight_bytes: int
    activation_bytes: int
    gradient_bytes: int

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self.weight_bytes + self.activation_bytes + self.gradient_bytes

    @property
    def weight_share(self) -> float:
        """The weights' part of all of it, in [0, 1]."""
        return self.weight_bytes / self.num_bytes


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """A tensor that is kept in memory, for one example.

    Attributes:
        path: The layer that makes it; "" for a model input.
        num_values: Its size.
        num_bits: Bits at which it is stored.
    """

    path: str
    num_values: int
    num_bits: int

    def num_bytes(self, batch_size: int = 1) -> int:
        """Bytes of a batch, densely packed."""
        return -(-batch_size * self.num_values * self.num_bits // 8)


def memory_footprint(
    profile: ModelProfile,
    *,
    batch_size: int = 1,
    phase: str = "inference",
    rule: str = "text",
    counting: str = "parameters",
) -> MemoryFootprint:
    """Returns the memory that a batch takes, by a rule of the module's table.

    In training, weights take 32 bits whatever their bits: quantizers read a float copy. So do
    gradients, which WRPN does not quantize.

    Args:
        profile: A model's profile, of any bits.
        batch_size: Examples per batch.
        phase: "training" or "inference".
        rule: "figure" or "text".
        counting: What is counted. "parameters": all parameters, and all feature maps; "kernels":
            only weights that are multiplied, and all feature maps (the ResNets of Figure 1);
            "convolutions": kernels of convolutions, and only their outputs and the model's inputs
            (its AlexNet).

    Raises:
        TypeError: If `profile` is no `ModelProfile` or `batch_size` no integer.
        ValueError: If `batch_size` is below 1 or another argument not among those above; if a
            feature map's size is unknown, or a layer with weights is one that is not understood;
            if there is nothing to count.
    """
    check_batch_size(batch_size)
    for argument, value, allowed in (
        ("phase", phase, _PHASES),
        ("rule", rule, _RULES),
        ("counting", counting, _COUNTINGS),
    ):
        if value not in allowed:
            names = ", ".join(f'"{name}"' for name in allowed)
            raise ValueError(f"`{argument}` must be one of {names}, got {value!r}.")
    maps = feature_maps(profile, counting=counting)
    activations = maps
    gradients: list[FeatureMap] = []
    if rule == "figure" and phase == "inference":
        activations = 2 * [_largest(maps)]
    elif rule == "text":
        reads, makes = _layer_maps(profile, counting)
        ends = [_largest(reads), _largest(makes)]
        if phase == "training":
            gradients = [dataclasses.replace(end, num_bits=FLOAT_BITS) for end in ends]
        else:
            activations = ends
    return MemoryFootprint(
        phase=phase,
        rule=rule,
        batch_size=batch_size,
        weight_bytes=_weight_bytes(profile, counting, phase),
        activation_bytes=sum(x.num_bytes(batch_size) for x in activations),
        gradient_bytes=sum(x.num_bytes(batch_size) for x in gradients),
    )


def memory_table(
    profile: ModelProfile,
    *,
    batch_sizes: Sequence[int] = (1, 32),
    rule: str = "text",
    counting: str = "parameters",
) -> tuple[MemoryFootprint, ...]:
    """Returns the footprints of training, then of inference, by batch size.

    Args and raises: as `memory_footprint`.
    """
    return tuple(
        memory_footprint(profile, batch_size=size, phase=phase, rule=rule, counting=counting)
        for phase in _PHASES
        for size in batch_sizes
    )


def feature_maps(profile: ModelProfile, *, counting: str = "parameters") -> list[FeatureMap]:
    """Returns the tensors that are kept in memory: inputs first, then in order of computation.

    Args:
        profile: A model's profile.
        counting: As in `memory_footprint`; "convolutions" leaves out pools and dense layers.

    Raises:
        TypeError, ValueError: As `memory_footprint`.
    """
    check_known(profile)
    tensors = Tensors(profile)
    maps = [tensors.feature_map("", key, shape) for key, shape in profile.inputs.items()]
    for layer in profile.layers:
        is_pool = "Pooling" in layer.class_name and counting != "convolutions"
        if is_pool or _is_counted(layer, counting):
            maps += tensors.made_by(layer)
    return maps


def _layer_maps(profile: ModelProfile, counting: str) -> tuple[list[FeatureMap], list[FeatureMap]]:
    """The maps that layers with multiplied weights read, and those that they make."""
    tensors = Tensors(profile)
    layers = [layer for layer in profile.layers if _is_counted(layer, counting)]
    reads = [made for layer in layers for made in tensors.read_by(layer)]
    return reads, [made for layer in layers for made in tensors.made_by(layer)]


class Tensors:
    """The tensors of a profile as they are kept in memory."""

    def __init__(self, profile: ModelProfile) -> None:
        self._outputs = profile.outputs
        self._readers: dict[int, list[LayerProfile]] = {}
        self._made_bits: dict[int, int] = {}
        for layer in profile.layers:
            self._made_bits.update(zip(layer.outputs, layer.num_bits_output, strict=True))
            for key in dict.fromkeys(layer.inputs):
                self._readers.setdefault(key, []).append(layer)

    def num_readers(self, key: int) -> int:
        """The number of layer calls that read a tensor."""
        return len(self._readers.get(key, []))

    def is_in_place(self, layer: LayerProfile) -> bool:
        """Whether a layer's output takes over its input's memory: it alone reads so many values."""
        if layer.macs or len(layer.inputs) != 1 or len(layer.outputs) != 1:
            return False
        before, after = (
            _num_values(layer.path, shape) for shape in (*layer.input_shapes, *layer.output_shapes)
        )
        alone = self.num_readers(layer.inputs[0]) == 1 and layer.inputs[0] not in self._outputs
        return before == after and alone and "Pooling" not in layer.class_name

    def read_by(self, layer: LayerProfile) -> list[FeatureMap]:
        """The tensors that a layer reads."""
        pairs = zip(layer.inputs, layer.input_shapes, strict=True)
        return [self.feature_map(layer.path, key, shape) for key, shape in pairs]

    def made_by(self, layer: LayerProfile) -> list[FeatureMap]:
        """The tensors that a layer makes."""
        pairs = zip(layer.outputs, layer.output_shapes, strict=True)
        return [self.feature_map(layer.path, key, shape) for key, shape in pairs]

    def feature_map(self, path: str, key: int, shape: Shape) -> FeatureMap:
        """A tensor by its key; raises a ValueError if a size is unknown."""
        return FeatureMap(path, _num_values(path, shape), self._stored_bits(key))

    def _stored_bits(self, key: int) -> int:
        """The bits of a tensor at the end of the chain of layers that work on it in place."""
        while True:
            readers = self._readers.get(key, [])
            if not readers or not self.is_in_place(readers[0]):
                break
            key = readers[0].outputs[0]
        if readers:
            return readers[0].num_bits_input[readers[0].inputs.index(key)]
        return self._made_bits.get(key, FLOAT_BITS)


def _is_counted(layer: LayerProfile, counting: str) -> bool:
    """Whether a layer's weights are multiplied, by a convolution if only those count."""
    return bool(layer.macs) and (counting != "convolutions" or "Conv" in layer.class_name)


def _num_values(path: str, shape: Shape) -> int:
    """The size of a map without the batch."""
    if None in shape[1:]:
        raise ValueError(
            "`profile` must be of a model with known sizes, got an input or output of shape "
            f"{shape}{f' at {path!r}' if path else ''}. Give the model a fixed input shape."
        )
    return math.prod(size for size in shape[1:] if size is not None)


def _weight_bytes(profile: ModelProfile, counting: str, phase: str) -> int:
    kernels = {
        (layer.path, mac.weight)
        for layer in profile.layers
        if _is_counted(layer, counting)
        for mac in layer.macs
    }
    total = 0
    for layer in profile.layers:
        for weight in layer.weights:
            if counting == "parameters" or (layer.path, weight.name) in kernels:
                is_float = phase == "training"
                total += 4 * weight.num_parameters if is_float else weight.num_bytes
    return total


def _largest(maps: Sequence[FeatureMap]) -> FeatureMap:
    if not maps:
        raise ValueError("`profile` must have a layer that counts (`counting`), got none.")
    return max(maps, key=lambda x: x.num_bytes())


def check_known(profile: ModelProfile) -> None:
    """Checks that it can be told what a model keeps in memory.

    Raises:
        TypeError: If `profile` is no `ModelProfile`.
        ValueError: If an input's size is unknown, or a layer with weights is not understood.
    """
    check_profile(profile, "profile")
    for shape in profile.inputs.values():
        _num_values("", shape)
    unknown = {
        layer.path: layer.uncounted for layer in profile.layers if layer.uncounted and layer.weights
    }
    if unknown:
        names = "; ".join(f"{path!r}: {reason}" for path, reason in unknown.items())
        raise ValueError(f"`profile` must have only layers that are understood, got {names}.")
