"""What is known about a model's channels while its graph is followed, call by call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wrpn_tf.model_graph import LayerCall, ModelGraph
from wrpn_tf.widening import channel_groups

Layout = channel_groups.Layout
Part = channel_groups.Part
WidthOf = Callable[[Layout], int]  # a layout's length once the model is widened


@dataclasses.dataclass(frozen=True)
class WeightAxis:
    """An axis of a weight along which channels stand.

    Attributes:
        axis: The axis; negative ones count from the end.
        layout: The channels along it.
        summed: Whether the layer adds up over this axis, as a convolution does over its input
            channels: a weight of a channel that there is `n` times must then be divided by `n`.
    """

    axis: int
    layout: Layout
    summed: bool = False


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """How a layer follows the widths of its channels.

    Attributes:
        config: Configuration entry -> its new value, given the new widths.
        weights: Name of a weight -> its axes with channels; axes not named keep their length.
        normalized: The channels over which the layer takes statistics, if it does.
        replacement: Makes what stands for the layer on its tensor alone, given the new widths, if
            a changed configuration is not enough.
    """

    config: Mapping[str, Callable[[WidthOf], Any]] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, tuple[WeightAxis, ...]] = dataclasses.field(default_factory=dict)
    normalized: Layout | None = None
    replacement: Callable[[WidthOf], Any] | None = None


class ChannelTrace:
    """The layouts of all tensors seen so far, and how each layer follows them.

    Attributes:
        graph: The model's graph.
        groups: The channel groups.
        layouts: Tensor key -> layout; `None` for a tensor of which no axis may change.
        adaptations: Path -> how the layer follows.
        producers: Path -> the channels that the layer makes, in the order of first call.
        guessed: Calls of layers that this package does not know and takes to work channel by
            channel.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self.graph = graph
        self.groups = channel_groups.ChannelGroups()
        self.layouts: dict[int, Layout | None] = dict.fromkeys(graph.inputs)
        self.adaptations: dict[str, Adaptation] = {}
        self.producers: dict[str, Layout] = {}
        self.guessed: list[LayerCall] = []
        self._entries: dict[str, Layout] = {}

    def length(self, layout: Layout) -> int:
        """The length of a layout in the model as it is."""
        return layout_length(layout, self.groups.total)

    def freeze(self, layout: Layout | None, reason: str) -> None:
        """Fixes the widths of a layout's channels."""
        if layout is not None:
            self.groups.freeze(layout.groups, reason)

    def freeze_inputs(self, call: LayerCall, reason: str) -> None:
        """Fixes the widths of everything that a call reads."""
        for key in call.inputs:
            self.freeze(self.layouts[key], reason)

    def fixed(self, axis: int, size: int, reason: str) -> Layout:
        """A layout of new channels whose number is fixed."""
        group = self.groups.new(size)
        self.groups.freeze([group], reason)
        return Layout(axis, (Part((group,)),))

    def tie(self, first: Layout | None, second: Layout | None, reason: str) -> None:
        """Makes two layouts agree; fixes both where they cannot be compared channel by channel."""
        if first is None or second is None or first.axis != second.axis:
            self.freeze(first, reason)
            self.freeze(second, reason)
        elif first.is_plain and second.is_plain:
            self.groups.tie(first.groups, second.groups)
        elif self._shape_of(first) == self._shape_of(second):
            for left, right in zip(first.parts, second.parts, strict=True):
                self.groups.tie(left.groups, right.groups)
        else:
            self.freeze(first, reason)
            self.freeze(second, reason)

    def tie_blocks(self, layout: Layout, count: int, reason: str) -> Layout:
        """Makes a layout consist of `count` blocks with the same channels; returns one block."""
        if not layout.is_plain:
            self.freeze(layout, reason)
            return self.fixed(layout.axis, self.length(layout) // count, reason)
        first, *others = self.groups.split(layout.groups, count)
        for block in others:
            self.groups.tie(first, block)
        return Layout(layout.axis, (Part(first),))

    def cut(self, layout: Layout, sizes: Sequence[int]) -> list[Layout]:
        """Makes a plain layout consist of runs of these lengths; returns each."""
        runs = [(self.groups.new(size),) if size else () for size in sizes]
        self.groups.tie([group for run in runs for group in run], layout.groups)
        return [Layout(layout.axis, (Part(run),) if run else ()) for run in runs]

    def entry(self, call: LayerCall, axis: int) -> Layout:
        """The channels that a layer reads along `axis`; the calls of a shared layer are tied.

        What has its channels along another axis is fixed.
        """
        layout = self.layouts[call.inputs[0]]
        if layout is None or layout.axis != axis:
            reason = f"layer {call.path!r} reads another axis"
            self.freeze(layout, reason)
            size = call.input_shapes[0][axis]
            layout = self.fixed(axis, size if size is not None else 1, reason)
        first = self._entries.setdefault(call.path, layout)
        if first is not layout:
            self.tie(first, layout, f"layer {call.path!r} is shared")
        return layout

    def produce(self, call: LayerCall, axis: int, size: int) -> Layout:
        """The channels that a layer makes; the same ones in each call of a shared layer."""
        if call.path not in self.producers:
            group = self.groups.new(size)
            self.producers[call.path] = Layout(axis, (Part((group,)),))
        return self.producers[call.path].moved(axis)

    def adapt(self, call: LayerCall, adaptation: Adaptation) -> None:
        """Notes how a layer follows; fixes all it touches if that leaves out one of its weights."""
        self.adaptations.setdefault(call.path, adaptation)
        has_weights = bool(getattr(call.layer, "weights", None))  # An operation has no such list.
        if has_weights and not self._covers(call.layer, adaptation):
            reason = f"layer {call.path!r} ({type(call.layer).__name__}) has unknown weights"
            for axes in adaptation.weights.values():
                for weight_axis in axes:
                    self.freeze(weight_axis.layout, reason)

    def set_output(self, call: LayerCall, layout: Layout | None) -> None:
        """Notes the channels of a call's outputs; fixes them where an output's shape disagrees."""
        for key, shape in zip(call.outputs, call.output_shapes, strict=True):
            agrees = (
                layout is not None
                and layout.axis < len(shape)
                and shape[layout.axis] == self.length(layout)
            )
            if not agrees:
                self.freeze(layout, f"layer {call.path!r} changes their number")
            self.layouts[key] = layout if agrees else None

    def _shape_of(self, layout: Layout) -> list[tuple[int, int, int]]:
        return [(self.groups.total(p.groups), p.tiles, p.inner) for p in layout.parts]

    def _covers(self, layer: Any, adaptation: Adaptation) -> bool:
        """Whether all weights of a layer are adapted, with the channels where expected."""
        return all(
            name in adaptation.weights
            and all(
                variable.shape[a.axis] == self.length(a.layout) for a in adaptation.weights[name]
            )
            for name, variable in zip(weight_names(layer), layer.weights, strict=True)
        )


def layout_length(layout: Layout, width_of_groups: Callable[[tuple[int, ...]], int]) -> int:
    """The length of a layout, given the summed widths of groups."""
    return sum(part.tiles * part.inner * width_of_groups(part.groups) for part in layout.parts)


def weight_names(layer: Any) -> list[str]:
    """The names of a layer's own weights: `kernel`, `bias`, `moving_mean`."""
    # What tf_keras' layers that look words up hold has none.
    names = [getattr(variable, "name", "") for variable in layer.weights]
    return [name.split("/")[-1].split(":")[0] for name in names]
