"""How layers and operations without weights pass channels on."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wrpn_tf import call_arguments
from wrpn_tf.keras_flavor import KERAS, KerasFlavor
from wrpn_tf.model_graph import LayerCall, Shape
from wrpn_tf.widening import channel_trace, reshape_rules

Adaptation = channel_trace.Adaptation
ChannelTrace = channel_trace.ChannelTrace
Layout = channel_trace.Layout
Part = channel_trace.Part


def elementwise(trace: ChannelTrace, call: LayerCall) -> None:
    """Ties all inputs that have the same channels, as sums do; each output has them too.

    An input that is broadcast along the channels keeps its one channel, and what meets a constant
    keeps its width.
    """
    rank = len(call.output_shapes[0])
    if any(len(shape) > rank for shape in call.input_shapes):
        blocking(trace, call)
        return
    operands = _aligned_operands(trace, call, rank)
    axes = {layout.axis for _, layout in operands if layout is not None}
    if not axes:
        return
    axis = axes.pop()
    if axes or not 0 < axis < rank:
        trace.freeze_inputs(call, f"layer {call.path!r} mixes axes")
        return
    met = [(shape[axis], layout) for shape, layout in operands if axis < len(shape)]
    width = max((size for size, _ in met if size is not None), default=1)
    reason = f"layer {call.path!r} combines it with something of fixed width"
    same = [layout for size, layout in met if layout is not None and size == width]
    for size, layout in met:
        if size != width:  # Broadcast: its one channel must stay one.
            trace.freeze(layout, f"layer {call.path!r} broadcasts it")
        elif layout is not None or width > 1:
            trace.tie(same[0] if same else None, layout, reason)
    trace.set_output(call, same[0] if same else None)


def _aligned_operands(
    trace: ChannelTrace, call: LayerCall, rank: int
) -> list[tuple[Shape, Layout | None]]:
    """Shape and layout of each input and constant, as broadcast to `rank` axes."""
    operands: list[tuple[Shape, Layout | None]] = []
    for key, shape in zip(call.inputs, call.input_shapes, strict=True):
        layout, missing = trace.layouts[key], rank - len(shape)
        operands.append(
            ((1,) * missing + shape, layout and layout.moved(layout.axis + missing)),
        )
    for constant in call_arguments.constants(call):
        shape = np.shape(constant)
        operands.append(((1,) * (rank - len(shape)) + shape, None))
    return operands


def blocking(trace: ChannelTrace, call: LayerCall) -> None:
    """Something that is not known to leave channels apart: its inputs keep their widths."""
    trace.freeze_inputs(call, f"layer {call.path!r} ({type(call.layer).__name__}) mixes channels")


def concatenation(trace: ChannelTrace, call: LayerCall) -> None:
    """Lines channels up along their axis, or ties them when another axis is concatenated."""
    rank = len(call.output_shapes[0])
    given = call_arguments.argument(call, "axis", 1, -1)
    layouts = [trace.layouts[key] for key in call.inputs]
    axes = {layout.axis for layout in layouts if layout is not None}
    if not axes:
        return
    if len(axes) > 1 or not isinstance(given, int) or any(call_arguments.constants(call)):
        blocking(trace, call)
        return
    axis = given % rank
    if axes != {axis}:
        reason = f"layer {call.path!r} combines it with something of fixed width"
        for layout in layouts[1:]:
            trace.tie(layouts[0], layout, reason)
        trace.set_output(call, layouts[0])
        return
    parts: list[Part] = []
    for shape, layout in zip(call.input_shapes, layouts, strict=True):
        size = shape[axis]
        if layout is None and size is not None:
            layout = trace.fixed(axis, size, f"layer {call.path!r} reads a tensor of fixed width")
        parts.extend(layout.parts if layout is not None else ())
    trace.set_output(call, Layout(axis, tuple(parts)))


def transposition(trace: ChannelTrace, call: LayerCall) -> None:
    """Permute, and operations that put axes in another order."""
    layout = trace.layouts[call.inputs[0]]
    if layout is None:
        return
    order = call_arguments.axis_order(call)
    if order[0] != 0:
        blocking(trace, call)
        return
    trace.set_output(call, layout.moved(order.index(layout.axis)))


def resampling(trace: ChannelTrace, call: LayerCall) -> None:
    """Operations that pool or resize images, each channel by itself."""
    trace.set_output(call, trace.layouts[call.inputs[0]])


def padding(trace: ChannelTrace, call: LayerCall) -> None:
    """Padding: zeros along the channels are channels, too, as many as what they are added to needs.

    Shortcuts to more channels are made so where they have no weights (option A of He et al., arXiv
    1512.03385, section 3.3).
    """
    layout = trace.layouts[call.inputs[0]]
    if layout is None:
        return
    axis = layout.axis
    if call.output_shapes[0][axis] == call.input_shapes[0][axis]:
        trace.set_output(call, layout)
        return
    amounts = call_arguments.zero_padding(call)
    if amounts is None:
        blocking(trace, call)
        return
    before, after = (
        Layout(axis, (Part((trace.groups.new(count),)),) if count else ())
        for count in amounts[axis]
    )

    def new_amounts(width: channel_trace.WidthOf) -> list[tuple[int, int]]:
        return [*amounts[:axis], (width(before), width(after)), *amounts[axis + 1 :]]

    flavor = trace.graph.flavor
    if type(call.layer) is flavor.layers.ZeroPadding2D:
        first = 2 if call.layer.data_format == "channels_first" else 1
        adaptation = Adaptation({"padding": lambda width: new_amounts(width)[first : first + 2]})
    else:
        adaptation = Adaptation(replacement=lambda width: _zero_padding(flavor, new_amounts(width)))
    trace.adapt(call, adaptation)
    trace.set_output(call, Layout(axis, (*before.parts, *layout.parts, *after.parts)))


def _zero_padding(flavor: KerasFlavor, amounts: Any) -> Callable[[Any], Any]:
    if flavor is KERAS:
        return lambda tensor: flavor.keras.ops.pad(tensor, amounts)
    import tensorflow as tf

    return lambda tensor: tf.pad(tensor, amounts)


def rescaling(trace: ChannelTrace, call: LayerCall) -> None:
    """Rescaling: one factor for all channels leaves them apart; one for each fixes their number."""
    if np.size(call.layer.scale) > 1 or np.size(call.layer.offset) > 1:
        blocking(trace, call)
    else:
        elementwise(trace, call)


def repetition(trace: ChannelTrace, call: LayerCall) -> None:
    """RepeatVector: (batch, channels) to (batch, times, channels)."""
    layout = trace.layouts[call.inputs[0]]
    trace.set_output(call, layout and layout.moved(2))


def reduction(trace: ChannelTrace, call: LayerCall) -> None:
    """Sums, means and the like over other axes than the channels'; global pooling."""
    layout = trace.layouts[call.inputs[0]]
    if layout is None:
        return
    rank = len(call.input_shapes[0])
    if hasattr(call.layer, "data_format"):
        channels_first = call.layer.data_format == "channels_first"
        axes: Any = range(2, rank) if channels_first else range(1, rank - 1)
        kept = bool(getattr(call.layer, "keepdims", False))
    else:
        axes = call_arguments.argument(call, "axis", 1, None)
        kept = bool(call_arguments.argument(call, "keepdims", 2, False))
    axes = [axes] if isinstance(axes, int) else axes
    if axes is None or layout.axis in {axis % rank for axis in axes}:
        blocking(trace, call)
        return
    before = 0 if kept else sum(axis % rank < layout.axis for axis in axes)
    trace.set_output(call, layout.moved(layout.axis - before))


def slicing(trace: ChannelTrace, call: LayerCall) -> None:
    """Slices: `x[:, 1:-1]` leaves the channels alone, `x[..., :8]` takes some of them."""
    layout = trace.layouts[call.inputs[0]]
    if layout is None:
        return
    entries = call_arguments.slice_entries(call) if len(call.inputs) == 1 else None
    found = entries and call_arguments.sliced_axis(entries, layout.axis)
    if not entries or not found:
        blocking(trace, call)
        return
    index, axis = found
    size = trace.length(layout)
    start, stop, step = entries[index].indices(size)
    if (start, stop, step) == (0, size, 1):
        trace.set_output(call, layout.moved(axis))
        return
    if step != 1 or start >= stop or not layout.is_plain:
        blocking(trace, call)
        return
    before, kept, _ = trace.cut(layout, (start, stop - start, size - stop))

    def wider_slice(width: channel_trace.WidthOf) -> Callable[[Any], Any]:
        first = width(before)
        wide = (*entries[:index], slice(first, first + width(kept)), *entries[index + 1 :])
        return operator.itemgetter(wide)

    trace.adapt(call, Adaptation(replacement=wider_slice))
    trace.set_output(call, kept.moved(axis))


def splitting(trace: ChannelTrace, call: LayerCall) -> None:
    """A split: each piece has channels of its own, or, along another axis, all of them."""
    layout = trace.layouts[call.inputs[0]]
    if layout is None:
        return
    axis, total = layout.axis, trace.length(layout)
    sizes = [shape[axis] or 0 for shape in call.output_shapes]
    if set(sizes) == {total}:
        trace.set_output(call, layout)
        return
    if sum(sizes) != total or not layout.is_plain:
        blocking(trace, call)
        return
    pieces, flavor = trace.cut(layout, sizes), trace.graph.flavor
    trace.adapt(
        call,
        Adaptation(
            replacement=lambda width: _split(flavor, [width(piece) for piece in pieces], axis)
        ),
    )
    trace.layouts.update(zip(call.outputs, pieces, strict=True))


def _split(flavor: KerasFlavor, sizes: Sequence[int], axis: int) -> Callable[[Any], Any]:
    if flavor is KERAS:
        ends = list(itertools.accumulate(sizes))[:-1]
        return lambda tensor: flavor.keras.ops.split(tensor, ends, axis)
    import tensorflow as tf

    return lambda tensor: tf.split(tensor, sizes, axis)


Rule = Callable[[ChannelTrace, LayerCall], None]

# Class name -> rule, for the layers of both Keras that need one; others are taken as elementwise.
WEIGHTLESS_RULES: dict[str, Rule] = {
    "AdditiveAttention": blocking,
    "Attention": blocking,
    "Concatenate": concatenation,
    "Dot": blocking,
    "Flatten": reshape_rules.flattening,
    "Permute": transposition,
    "RepeatVector": repetition,
    "Rescaling": rescaling,
    "Reshape": reshape_rules.reshaping,
    "Softmax": blocking,
    "UnitNormalization": blocking,
    **{f"GlobalAveragePooling{d}D": reduction for d in "123"},
    **{f"GlobalMaxPooling{d}D": reduction for d in "123"},
    **{f"ZeroPadding{d}D": padding for d in "123"},
}

# Layers known to work on each channel by itself. What is in no list is a guess.
CHANNELWISE_LAYERS = frozenset(
    {
        *("Activation", "ActivityRegularization", "Add", "AlphaDropout", "Average", "CenterCrop"),
        *("Dropout", "ELU", "GaussianDropout", "GaussianNoise", "Identity", "LeakyReLU"),
        *("Masking", "Maximum", "Minimum", "Multiply", "ReLU", "Resizing", "StochasticDepth"),
        *("Subtract", "ThresholdedReLU"),
        *(f"AveragePooling{d}D" for d in "123"),
        *(f"Cropping{d}D" for d in "123"),
        *(f"MaxPooling{d}D" for d in "123"),
        *(f"SpatialDropout{d}D" for d in "123"),
        *(f"UpSampling{d}D" for d in "123"),
    }
)

# Operations by name, in lower case without underscores: `keras.ops.add`, `tf.math.add`, `x + y`.
# What is in no list blocks.
_ELEMENTWISE_OPERATIONS = """
    abs absolute add addn addv2 biasadd cast celu clip clipbyvalue cos div divide elu erf exp
    expm1 floor gelu hardsigmoid hardsilu hardswish hardtanh identity leakyrelu log log1p
    logsigmoid maximum minimum mish mul multiply neg negative pow power realdiv reciprocal relu
    relu6 round rsqrt selu sigmoid sign silu sin softplus softsign sqrt square squareplus
    squareddifference stopgradient sub subtract swish tanh truediv truedivide
"""
_RESAMPLING_OPERATIONS = """
    averagepool avgpool avgpool1d avgpool2d avgpool3d maxpool maxpool1d maxpool2d maxpool3d resize
"""
OPERATION_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE_OPERATIONS.split(), elementwise),
    **dict.fromkeys(("concat", "concatenate"), concatenation),
    **dict.fromkeys(("expanddims", "squeeze"), reshape_rules.shape_preserving),
    "getitem": slicing,
    **dict.fromkeys(("max", "mean", "min", "sum"), reduction),
    **dict.fromkeys(("reducemax", "reducemean", "reducemin", "reducesum"), reduction),
    **dict.fromkeys(("moveaxis", "swapaxes", "transpose"), transposition),
    **dict.fromkeys(("pad", "padv2"), padding),
    **dict.fromkeys(_RESAMPLING_OPERATIONS.split(), resampling),
    "reshape": reshape_rules.reshaping,
    "split": splitting,
}
