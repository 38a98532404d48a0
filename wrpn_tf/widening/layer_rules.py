"""How the layers with weights read, make and pass on channels.

Each rule takes the trace and a call, notes the layer's `Adaptation` and the layout of its output.
"""

from __future__ import annotations

from collections.abc import Callable

from wrpn_tf.model_graph import LayerCall
from wrpn_tf.widening import channel_trace

Adaptation = channel_trace.Adaptation
ChannelTrace = channel_trace.ChannelTrace
Layout = channel_trace.Layout
Part = channel_trace.Part
WeightAxis = channel_trace.WeightAxis


def convolution(trace: ChannelTrace, call: LayerCall) -> None:
    """Conv1D, Conv2D, Conv3D, with groups or without: kernel (..., in / groups, filters)."""
    groups = getattr(call.layer, "groups", 1)
    axis = channel_axis(call)
    entry = trace.entry(call, axis)
    if groups > 1 and groups == trace.length(entry):
        _depthwise_by_groups(trace, call, entry)
        return
    out = trace.produce(call, axis, call.layer.filters)
    block = entry
    if groups > 1:
        reason = f"the groups of layer {call.path!r} do not fit its inputs"
        block = trace.tie_blocks(entry, groups, reason)
        trace.tie_blocks(out, groups, reason)
    kernel = (WeightAxis(-2, block, summed=True), WeightAxis(-1, out))
    weights = {"kernel": kernel, "bias": (WeightAxis(0, out),)}
    trace.adapt(call, Adaptation({"filters": lambda width: width(out)}, weights))
    trace.set_output(call, out)


def _depthwise_by_groups(trace: ChannelTrace, call: LayerCall, entry: Layout) -> None:
    """A convolution with a group per channel: depthwise in all but name (ConvNeXt)."""
    out = repeated(entry, call.layer.filters // trace.length(entry))
    config = {"filters": lambda width: width(out), "groups": lambda width: width(entry)}
    weights = {"kernel": (WeightAxis(-1, out),), "bias": (WeightAxis(0, out),)}
    trace.adapt(call, Adaptation(config, weights))
    trace.set_output(call, out)


def transposed_convolution(trace: ChannelTrace, call: LayerCall) -> None:
    """Conv1DTranspose, Conv2DTranspose, Conv3DTranspose: kernel (..., filters, in)."""
    axis = channel_axis(call)
    entry = trace.entry(call, axis)
    out = trace.produce(call, axis, call.layer.filters)
    kernel = (WeightAxis(-2, out), WeightAxis(-1, entry, summed=True))
    weights = {"kernel": kernel, "bias": (WeightAxis(0, out),)}
    trace.adapt(call, Adaptation({"filters": lambda width: width(out)}, weights))
    trace.set_output(call, out)


def depthwise_convolution(trace: ChannelTrace, call: LayerCall) -> None:
    """DepthwiseConv1D, DepthwiseConv2D: kernel (..., in, multiplier)."""
    entry = trace.entry(call, channel_axis(call))
    out = repeated(entry, call.layer.depth_multiplier)
    kernel = (WeightAxis(-2, entry),)
    weights = {"kernel": kernel, "depthwise_kernel": kernel, "bias": (WeightAxis(0, out),)}
    trace.adapt(call, Adaptation(weights=weights))
    trace.set_output(call, out)


def separable_convolution(trace: ChannelTrace, call: LayerCall) -> None:
    """SeparableConv1D, SeparableConv2D: a depthwise convolution, then one of 1x1."""
    axis = channel_axis(call)
    entry = trace.entry(call, axis)
    between = repeated(entry, call.layer.depth_multiplier)
    out = trace.produce(call, axis, call.layer.filters)
    weights = {
        "depthwise_kernel": (WeightAxis(-2, entry),),
        "pointwise_kernel": (WeightAxis(-2, between, summed=True), WeightAxis(-1, out)),
        "bias": (WeightAxis(0, out),),
    }
    trace.adapt(call, Adaptation({"filters": lambda width: width(out)}, weights))
    trace.set_output(call, out)


def dense(trace: ChannelTrace, call: LayerCall) -> None:
    """Dense: kernel (in, units), on the last axis."""
    axis = len(call.input_shapes[0]) - 1
    entry = trace.entry(call, axis)
    out = trace.produce(call, axis, call.layer.units)
    kernel = (WeightAxis(0, entry, summed=True), WeightAxis(1, out))
    weights = {"kernel": kernel, "bias": (WeightAxis(0, out),)}
    trace.adapt(call, Adaptation({"units": lambda width: width(out)}, weights))
    trace.set_output(call, out)


def embedding(trace: ChannelTrace, call: LayerCall) -> None:
    """Embedding: embeddings (vocabulary, output_dim)."""
    trace.freeze_inputs(call, f"layer {call.path!r} looks its inputs up")
    out = trace.produce(call, len(call.output_shapes[0]) - 1, call.layer.output_dim)
    weights = {"embeddings": (WeightAxis(1, out),)}
    trace.adapt(call, Adaptation({"output_dim": lambda width: width(out)}, weights))
    trace.set_output(call, out)


def batch_normalization(trace: ChannelTrace, call: LayerCall) -> None:
    """BatchNormalization over one axis: every weight (channels,)."""
    axes = normalized_axes(call)
    if len(axes) > 1:
        trace.freeze_inputs(call, f"layer {call.path!r} normalises several axes")
        return
    entry = trace.entry(call, axes[0])
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    trace.adapt(call, Adaptation(weights={name: (WeightAxis(0, entry),) for name in names}))
    trace.set_output(call, entry)


def layer_normalization(trace: ChannelTrace, call: LayerCall) -> None:
    """LayerNormalization, RMSNormalization: weights shaped as the axes normalised over."""
    axes = normalized_axes(call)
    layout = trace.layouts[call.inputs[0]]
    entry = trace.entry(call, layout.axis if layout is not None else axes[-1])
    inside = entry.axis in axes
    channels = (WeightAxis(axes.index(entry.axis), entry),) if inside else ()
    weights = dict.fromkeys(("gamma", "beta", "scale"), channels)
    trace.adapt(call, Adaptation(weights=weights, normalized=entry if inside else None))
    trace.set_output(call, entry)


def group_normalization(trace: ChannelTrace, call: LayerCall) -> None:
    """GroupNormalization: as many groups after as before, or still one per channel."""
    entry = trace.entry(call, normalized_axes(call)[0])
    weights = {name: (WeightAxis(0, entry),) for name in ("gamma", "beta")}
    if call.layer.groups == trace.length(entry):
        adaptation = Adaptation({"groups": lambda width: width(entry)}, weights)
    else:
        reason = f"the groups of layer {call.path!r} do not fit its inputs"
        block = trace.tie_blocks(entry, call.layer.groups, reason)
        adaptation = Adaptation(weights=weights, normalized=block)
    trace.adapt(call, adaptation)
    trace.set_output(call, entry)


def parametric_relu(trace: ChannelTrace, call: LayerCall) -> None:
    """PReLU: alpha shaped as one example, with length 1 along the shared axes."""
    layout = trace.layouts[call.inputs[0]]
    entry = trace.entry(call, layout.axis if layout is not None else channel_axis(call))
    shared = entry.axis in (call.layer.shared_axes or ())
    channels = () if shared else (WeightAxis(entry.axis - 1, entry),)
    trace.adapt(call, Adaptation(weights={"alpha": channels}))
    trace.set_output(call, entry)


def layer_scale(trace: ChannelTrace, call: LayerCall) -> None:
    """ConvNeXt's LayerScale: a factor (projection_dim,) for the last axis."""
    entry = trace.entry(call, len(call.input_shapes[0]) - 1)
    # tf_keras names the weight, Keras 3 numbers it.
    weights = {name: (WeightAxis(0, entry),) for name in channel_trace.weight_names(call.layer)}
    trace.adapt(call, Adaptation({"projection_dim": lambda width: width(entry)}, weights))
    trace.set_output(call, entry)


def einsum_dense(trace: ChannelTrace, call: LayerCall) -> None:
    """EinsumDense that contracts its input's channels into one new axis, as `abc,cd->abd` does.

    With several new axes (`abc,cde->abde`) it reads wider inputs but its own outputs stay as they
    are.
    """
    operands, _, result = call.layer.equation.replace(" ", "").partition("->")
    source, kernel = operands.split(",")
    entry = trace.entry(call, len(call.input_shapes[0]) - 1)
    read, made = source[-1], [letter for letter in kernel if letter not in source]
    if read not in kernel or read in result:
        trace.freeze(entry, f"layer {call.path!r} does not sum over its last axis")
        return
    axes = [WeightAxis(kernel.index(read), entry, summed=True)]
    size = call.output_shapes[0][-1]
    if len(made) != 1 or result[-1] != made[0] or size is None:
        trace.adapt(call, Adaptation(weights={"kernel": tuple(axes), "bias": ()}))
        return
    out = trace.produce(call, len(call.output_shapes[0]) - 1, size)
    axes.append(WeightAxis(kernel.index(made[0]), out))
    settings = call.layer.get_config()
    # The bias has its axes in the order of the result, in which the channels come last.
    bias = (WeightAxis(-1, out),) if made[0] in (settings["bias_axes"] or "") else ()
    before = settings["output_shape"]
    before = (before,) if isinstance(before, int) else tuple(before)
    config = {"output_shape": lambda width: (*before[:-1], width(out))}
    trace.adapt(call, Adaptation(config, {"kernel": tuple(axes), "bias": bias}))
    trace.set_output(call, out)


def channel_axis(call: LayerCall) -> int:
    """The axis of a call's channels, by the layer's data format."""
    first = getattr(call.layer, "data_format", None) == "channels_first"
    return 1 if first else len(call.input_shapes[0]) - 1


def normalized_axes(call: LayerCall) -> list[int]:
    """The axes of a normalisation layer, counted from 0 with the batch."""
    axis, rank = call.layer.axis, len(call.input_shapes[0])
    return [a % rank for a in ([axis] if isinstance(axis, int) else axis)]


def repeated(layout: Layout, times: int) -> Layout:
    """A layout in which each channel stands `times` as often, on the spot."""
    parts = tuple(Part(p.groups, p.tiles, p.inner * times) for p in layout.parts)
    return Layout(layout.axis, parts)


Rule = Callable[[ChannelTrace, LayerCall], None]

# Class name -> rule, for the layers of both Keras.
WEIGHTED_RULES: dict[str, Rule] = {
    "BatchNormalization": batch_normalization,
    "Dense": dense,
    "EinsumDense": einsum_dense,
    "Embedding": embedding,
    "GroupNormalization": group_normalization,
    "LayerNormalization": layer_normalization,
    "LayerScale": layer_scale,
    "PReLU": parametric_relu,
    "RMSNormalization": layer_normalization,
    "SyncBatchNormalization": batch_normalization,
    **{f"Conv{d}D": convolution for d in "123"},
    **{f"Conv{d}DTranspose": transposed_convolution for d in "123"},
    **{f"DepthwiseConv{d}D": depthwise_convolution for d in "12"},
    **{f"SeparableConv{d}D": separable_convolution for d in "12"},
}
