"""How reshapes pass channels on: the number of channels written into them becomes the new one."""

from __future__ import annotations

import math

from wrpn_tf.model_graph import LayerCall, Shape
from wrpn_tf.widening import channel_trace

Adaptation = channel_trace.Adaptation
ChannelTrace = channel_trace.ChannelTrace
Layout = channel_trace.Layout
Part = channel_trace.Part


def flattening(trace: ChannelTrace, call: LayerCall) -> None:
    """Flatten; with channels first it puts them last before it flattens."""
    layout = trace.layouts[call.inputs[0]]
    shape = call.input_shapes[0]
    if layout is not None and call.layer.data_format == "channels_first" and len(shape) > 1:
        axis = len(shape) - 1 if layout.axis == 1 else layout.axis - 1
        layout = layout.moved(axis)
        shape = (shape[0], *shape[2:], shape[1])
    trace.set_output(call, layout and _reshaped(trace, call, layout, shape))


def reshaping(trace: ChannelTrace, call: LayerCall) -> None:
    """Reshapes whose result has an axis with all the channels: `Reshape((1, 1, 64))`.

    The number of channels written into the layer becomes the new one.
    """
    layout = trace.layouts[call.inputs[0]]
    shape = call.output_shapes[0]
    if layout is None or len(call.inputs) > 1 or sum(size is None for size in shape[1:]) > 1:
        trace.freeze_inputs(call, f"layer {call.path!r} has a shape that depends on data")
        return
    made = _reshaped(trace, call, trace.entry(call, layout.axis), call.input_shapes[0])
    if made is None:
        return
    target = [-1 if size is None else size for size in shape[1:]]

    def new_target(width: channel_trace.WidthOf) -> tuple[int, ...]:
        at = made.axis - 1
        return (*target[:at], width(made), *target[at + 1 :])

    flavor = trace.graph.flavor
    if type(call.layer) is flavor.layers.Reshape:
        adaptation = Adaptation({"target_shape": new_target})
    else:
        adaptation = Adaptation(
            replacement=lambda width: flavor.layers.Reshape(new_target(width), name=call.name)
        )
    trace.adapt(call, adaptation)
    trace.set_output(call, made)


def shape_preserving(trace: ChannelTrace, call: LayerCall) -> None:
    """Squeeze and expand_dims operations: reshapes that name no number of channels."""
    layout = trace.layouts[call.inputs[0]]
    trace.set_output(call, layout and _reshaped(trace, call, layout, call.input_shapes[0]))


def _reshaped(trace: ChannelTrace, call: LayerCall, layout: Layout, shape: Shape) -> Layout | None:
    """The layout after a row-major reshape; None, and fixed, if no axis has all channels."""
    after = call.output_shapes[0]
    length = trace.length(layout)
    behind = _product(shape[layout.axis + 1 :])
    for axis in range(len(after) - 1, 0, -1):
        still_behind, size = _product(after[axis + 1 :]), after[axis]
        if not behind or not still_behind or size is None or behind % still_behind:
            continue
        inner = behind // still_behind
        if size % (length * inner) == 0:
            parts = _repeated_parts(layout.parts, size // (length * inner), inner)
            if parts is not None:
                return Layout(axis, parts)
    trace.freeze(layout, f"layer {call.path!r} takes its channels apart")
    return None


def _repeated_parts(parts: tuple[Part, ...], tiles: int, inner: int) -> tuple[Part, ...] | None:
    """Parts of which each channel stands `inner` times and the whole run `tiles` times."""
    if tiles == 1:
        return tuple(Part(p.groups, p.tiles, p.inner * inner) for p in parts)
    if len(parts) == 1:
        return (Part(parts[0].groups, parts[0].tiles * tiles, parts[0].inner * inner),)
    if all(part.is_plain for part in parts):
        return (Part(tuple(g for part in parts for g in part.groups), tiles, inner),)
    return None


def _product(sizes: Shape) -> int | None:
    """The product of the sizes; None if one is unknown."""
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None
