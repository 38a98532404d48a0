"""Which tensors of a quantized network get regions, which layers read them, and at what bits."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from wrpn_tf.caller_depth import depth_of_caller
from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import LayerCall, ModelGraph
from wrpn_tf.name_rules import near_names
from wrpn_tf.quantization.quantize_registry import (
    KERNEL_NAMES,
    Kind,
    augments,
    kind_of,
    weight_name,
)
from wrpn_tf.quantization.quantized_layers import (
    inner_layer,
    is_quantized,
    output_quantizer,
    weight_quantizers,
)
from wrpn_tf.quantization.quantizers import ObservedQuantizer, Quantizer
from wrpn_tf.quantization.region_geometry import resolutions
from wrpn_tf.regions.region_plan import FixedRead, RegionPlan, RegionRead, Resolution
from wrpn_tf.regions.region_precision import NESTED_BITS, Bits, RegionPrecision

_FULL_BITS = 8  # of what no quantizer rounds: it is counted as the accelerator's widest
_READERS = ("Conv2D", "DepthwiseConv2D")


@dataclasses.dataclass(frozen=True)
class RegionTensor:
    """A rounded tensor that convolutions read by region.

    Attributes:
        call: The call of the quantized layer that makes it.
        map_index: Its resolution, among the plan's.
        bits: Bits of rank 0, 1, ..., rising.
    """

    call: LayerCall
    map_index: int
    bits: Bits


@dataclasses.dataclass(frozen=True)
class Regions:
    """What `apply_regions` puts into a network.

    Attributes:
        image: Tensor key of the image.
        tensors: Tensor key -> what is rounded there.
        plan: What reads them.
    """

    image: int
    tensors: Mapping[int, RegionTensor]
    plan: RegionPlan


def plan_regions(graph: ModelGraph, precision: RegionPrecision) -> Regions:
    """Returns the regions of a quantized model.

    Raises:
        ValueError: If the model has no image as input, nothing in it can have regions, a rule
            matches nothing, grids are not nested, or the target cannot be reached.
    """
    image = _prepared_image(_image_input(graph), graph)
    _check_image_shape(graph.shapes[image])
    known = resolutions(graph, image)
    candidates = _candidates(graph, known, precision.input_bits is not None)
    if not candidates:
        raise ValueError(
            f"`model` must have a convolution that reads a rounded tensor behind the image, got "
            f"{graph.model.name!r} with none. Quantize it first: `wrpn_tf.quantize_model`."
        )
    bits = _bits_by_tensor(candidates, graph, precision)
    used = list(dict.fromkeys(known[key] for key in candidates))
    tensors = {
        key: RegionTensor(call, used.index(known[key]), bits[key])
        for key, call in candidates.items()
    }
    plan = _plan(graph, image, known, used, tensors)
    _check_target(precision, plan)
    return Regions(image, tensors, plan)


def source_of(key: int, graph: ModelGraph) -> int:
    """Returns the tensor that one holds the values of, if need be behind layers that move them."""
    while key in graph.producers and output_quantizer(graph.producers[key].layer) is None:
        call = graph.producers[key]
        if kind_of(inner_layer(call.layer)) is not Kind.PASS_THROUGH or len(call.inputs) != 1:
            break
        key = call.inputs[0]
    return key


def reads_regions(call: LayerCall) -> bool:
    """Returns whether a call is one of a convolution that may read by region."""
    layer = inner_layer(call.layer)
    return keras_class(layer) in _READERS and layer.data_format == "channels_last"


def _image_input(graph: ModelGraph) -> int:
    shapes = {key: graph.shapes[key] for key in graph.inputs}
    images = [key for key, shape in shapes.items() if len(shape) == 4]
    if len(images) != 1:
        raise ValueError(
            "`model` must have one input that is an image, [batch, height, width, channels], got "
            f"inputs of shapes {', '.join(str(shape) for shape in shapes.values())}."
        )
    return images[0]


def _check_image_shape(shape: tuple[int | None, ...]) -> None:
    _, height, width, channels = shape
    if None in (height, width) or channels not in (1, 3):
        raise ValueError(
            "`model` must read images of known height and width with 1 or 3 channels (last), got "
            f"the input shape {shape}."
        )


def _prepared_image(key: int, graph: ModelGraph) -> int:
    """The image as the network sees it: of its size, in training shifted, ..., not yet rescaled."""
    moved = set()
    while len(graph.consumers[key]) == 1 and _moves_pixels(graph.consumers[key][0].layer):
        (call,) = graph.consumers[key]
        moved.add(call)
        key = call.outputs[0]
    late = [call.path for call in graph.calls if augments(call.layer) and call not in moved]
    if late:
        warnings.warn(
            f"Regions are those of the image in front of {', '.join(late)}, and do not move with "
            "it in training. Put augmentation first in the model, or into the data pipeline.",
            stacklevel=depth_of_caller(),
        )
    return key


def _moves_pixels(layer: Any) -> bool:
    inner = inner_layer(layer)
    return augments(inner) or keras_class(inner) in ("CenterCrop", "Resizing")


def _candidates(
    graph: ModelGraph, known: Mapping[int, Resolution], with_input: bool
) -> dict[int, LayerCall]:
    """The rounded tensors that convolutions read: key -> the call that makes it."""
    found = {}
    for call in graph.calls:
        if not reads_regions(call) or call.inputs[0] not in known:
            continue
        key = source_of(call.inputs[0], graph)
        maker = graph.producers.get(key)
        if maker is None or key not in known or output_quantizer(maker.layer) is None:
            continue
        if with_input or not _is_input(key, graph):
            found[key] = maker
    # A layer that is called several times gets one wrapper: all its outputs have regions, or none.
    num_calls = collections.Counter(call.path for call in graph.calls)
    num_found = collections.Counter(call.path for call in found.values())
    return {k: call for k, call in found.items() if num_found[call.path] == num_calls[call.path]}


def _is_input(key: int, graph: ModelGraph) -> bool:
    """Whether a tensor is a model input, perhaps preprocessed, as it is rounded."""
    while key in graph.producers:
        layer = graph.producers[key].layer
        only_rounds = is_quantized(layer) and inner_layer(layer) is layer
        if not only_rounds and kind_of(inner_layer(layer)) is not Kind.PREPROCESSING:
            return False
        key = graph.producers[key].inputs[0]
    return key in graph.inputs


def _bits_by_tensor(
    candidates: Mapping[int, LayerCall], graph: ModelGraph, precision: RegionPrecision
) -> dict[int, Bits]:
    """Bits of rank 0, 1, ... of each tensor."""
    inputs = [key for key in candidates if _is_input(key, graph)]
    paths = list(dict.fromkeys(call.path for k, call in candidates.items() if k not in inputs))
    wanted = dict.fromkeys(inputs, precision.input_bits)
    for key in candidates.keys() - wanted.keys():
        depth = paths.index(candidates[key].path) / max(len(paths) - 1, 1)
        wanted[key] = _at_depth(precision.bits, precision.final_bits or precision.bits, depth)
    for pattern, bits in precision.overrides.items():
        matching = [key for key, call in candidates.items() if _matches(pattern, call)]
        if not matching:
            names = sorted(plain_name(call) for call in candidates.values())
            raise ValueError(
                f"`overrides`: the rule {pattern!r} matches no layer whose output convolutions "
                f"read by region. Near names: {near_names(pattern, names)}."
            )
        wanted.update(dict.fromkeys(matching, bits))
    return {
        key: _own_bits(bits, output_quantizer(candidates[key].layer)[0], candidates[key])
        for key, bits in wanted.items()
    }


def plain_name(call: LayerCall) -> str:
    """Returns the name that a layer had before it was quantized."""
    return call.name.removeprefix("quant_")


def _matches(pattern: str, call: LayerCall) -> bool:
    return any(re.fullmatch(pattern, name) for name in (call.name, plain_name(call)))


def _at_depth(first: Bits, last: Bits, depth: float) -> Bits:
    """Bits between `first` (depth 0) and `last` (depth 1), the allowed steps evenly spread."""
    places = [
        (NESTED_BITS.index(a), NESTED_BITS.index(b)) for a, b in zip(first, last, strict=True)
    ]
    return tuple(NESTED_BITS[math.floor(a + (b - a) * depth + 0.5)] for a, b in places)


def _own_bits(bits: Bits, quantizer: Quantizer, call: LayerCall) -> Bits:
    """Bits of rank 0, 1, ... in a tensor: at most its own."""
    full = quantizer.num_bits
    signed = isinstance(quantizer, ObservedQuantizer) or getattr(quantizer, "signed", False)
    # One bit cannot hold a value, its negative and 0.
    own = [min(max(b, 2) if signed and b else b, full) for b in bits]
    for b in own:
        if b and full % b:
            raise ValueError(
                f"`bits` must divide the {full} bits of layer {plain_name(call)!r} (only then its "
                f"coarse levels are levels), got {b}."
            )
    return tuple(reversed(own))


def _plan(
    graph: ModelGraph,
    image: int,
    known: Mapping[int, Resolution],
    used: list[Resolution],
    tensors: Mapping[int, RegionTensor],
) -> RegionPlan:
    reads, fixed = [], []
    for call in graph.calls:
        layer = inner_layer(call.layer)
        if kind_of(layer) is not Kind.KERNEL:
            continue
        source = source_of(call.inputs[0], graph)
        tensor = tensors.get(source) if reads_regions(call) else None
        rounding = source in graph.producers and output_quantizer(graph.producers[source].layer)
        full_bits = rounding[0].num_bits if rounding else _FULL_BITS
        if tensor is None:
            fixed.append(FixedRead(call.name, _num_macs(call), full_bits))
        else:
            reads.append((call, tensor, full_bits))
    # A tensor that is pooled before it is read has regions of its own resolution, and the reader
    # one of the pooled.
    maps = list(used)
    records = []
    for call, tensor, full_bits in reads:
        resolution = known[call.inputs[0]]
        if resolution not in maps:
            maps.append(resolution)
        records.append(_read(call, tensor, maps.index(resolution), full_bits))
    _, height, width, _ = graph.shapes[image]
    return RegionPlan((int(height), int(width)), tuple(maps), tuple(records), tuple(fixed))


def _read(call: LayerCall, tensor: RegionTensor, map_index: int, full_bits: int) -> RegionRead:
    layer = inner_layer(call.layer)
    channels = int(call.input_shapes[0][3])
    depthwise = keras_class(layer) == "DepthwiseConv2D"
    groups = channels if depthwise else layer.groups
    return RegionRead(
        name=call.name,
        source=tensor.call.name,
        map_index=map_index,
        full_bits=full_bits,
        bits=tensor.bits,
        kernel_size=tuple(layer.kernel_size),
        strides=tuple(layer.strides),
        dilation=tuple(layer.dilation_rate),
        padding=layer.padding,
        input_channels=channels // groups,
        output_channels=layer.depth_multiplier if depthwise else layer.filters // groups,
        groups=groups,
    )


def _num_macs(call: LayerCall) -> int:
    """Multiply-accumulates of a layer with one kernel: its weights, at each position."""
    layer = inner_layer(call.layer)
    quantized = [variable for variable, _ in weight_quantizers(call.layer).values()]
    kernel = next(w for w in (*quantized, *layer.weights) if weight_name(w) in KERNEL_NAMES)
    transposed = keras_class(layer).endswith("Transpose")
    shape = call.input_shapes[0] if transposed else call.output_shapes[0]
    positions = math.prod(int(size) for size in shape[1:-1])
    return positions * math.prod(int(size) for size in kernel.shape)


def _check_target(precision: RegionPrecision, plan: RegionPlan) -> None:
    if precision.target_bits is None:
        return
    least, most = plan.mean_bits(0), plan.mean_bits()
    if not least < precision.target_bits < most:
        raise ValueError(
            f"`target_bits` must be between {least:.3f} (all unimportant) and {most:.3f} (all "
            f"important) for this model and `bits`, got {precision.target_bits}."
        )
