"""Weights for a widened model that computes what the narrow one did: Net2Wider by replication.

Channel `j` of a group of `n` copies channel `j % n`. A layer that adds up over the channels divides
its weights by the number of copies of each, so that the sum stays.

Source: Chen, Goodfellow & Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", section
3.2, with copies assigned in turn instead of at random.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wrpn_tf.model_graph import LayerCall
from wrpn_tf.widening import channel_trace, width_plan

# What the checks of unknown layers allow between equal results: they may add up in another order.
_PROBE_TOLERANCE = 1e-3


class Replication:
    """Copies of channels, for the widths of a plan.

    Raises:
        ValueError: If a group gets narrower, or a layer takes statistics over channels of which
            some would be copied more often than others.
    """

    def __init__(self, plan: width_plan.WidthPlan) -> None:
        self._plan = plan
        self._check_widths()
        self._check_statistics()

    def sources(self, layout: channel_trace.Layout) -> np.ndarray:
        """Position along the widened axis -> the position that it copies."""
        runs, start = [], 0
        for part in layout.parts:
            channels = self._channel_sources(part.groups)
            length = self._plan.trace.groups.total(part.groups)
            inner = (channels[:, None] * part.inner + np.arange(part.inner)).ravel()
            tiles = start + np.arange(part.tiles) * length * part.inner
            runs.append((tiles[:, None] + inner).ravel())
            start += part.tiles * length * part.inner
        return np.concatenate(runs)

    def weights(self, path: str, layer: Any, noise: float, rng: np.random.Generator) -> list[Any]:
        """The weights of a layer's widened counterpart, in the order of `layer.get_weights()`.

        Args:
            path: The layer's path.
            layer: The layer of the narrow model.
            noise: Standard deviation of what is added to copies, relative to that of the kernel.
            rng: Where the noise comes from.
        """
        adaptation = self._plan.trace.adaptations.get(path)
        axes = adaptation.weights if adaptation is not None else {}
        names = channel_trace.weight_names(layer)
        return [
            self._widened(value, axes.get(name, ()), noise, rng)
            for name, value in zip(names, layer.get_weights(), strict=True)
        ]

    def _widened(
        self,
        value: np.ndarray,
        axes: tuple[channel_trace.WeightAxis, ...],
        noise: float,
        rng: np.random.Generator,
    ) -> np.ndarray:
        wide = value
        copied = np.zeros((1,) * value.ndim, bool)
        for weight_axis in axes:
            axis = weight_axis.axis % value.ndim
            sources = self.sources(weight_axis.layout)
            along = [1] * value.ndim
            along[axis] = len(sources)
            wide = np.take(wide, sources, axis)
            if weight_axis.summed:
                # float16 kernels too: a quotient is rounded once.
                wide = (wide / np.bincount(sources)[sources].reshape(along)).astype(value.dtype)
            else:
                first = np.unique(sources, return_index=True)[1]
                copied = copied | ~np.isin(np.arange(len(sources)), first).reshape(along)
        if noise and value.ndim > 1 and copied.any():
            added = rng.normal(0, noise * float(np.std(wide)), wide.shape)
            wide = wide + np.where(copied, added, 0).astype(wide.dtype)
        return wide

    def _channel_sources(self, groups: tuple[int, ...]) -> np.ndarray:
        """The channel that each widened channel of a run of groups copies."""
        found, start = [], 0
        for atom in self._plan.trace.groups.atoms(groups):
            size = self._plan.trace.groups.size(atom)
            found.append(start + np.arange(self._plan.widths[atom]) % size)
            start += size
        return np.concatenate(found)

    def _check_widths(self) -> None:
        trace = self._plan.trace
        for path, layout in trace.producers.items():
            for atom in trace.groups.atoms(layout.groups):
                if self._plan.widths[atom] < trace.groups.size(atom):
                    raise ValueError(
                        "`preserve_function=True` must have multipliers >= 1, got one below for "
                        f"layer {path!r}: {trace.length(layout)} filters become "
                        f"{self._plan.width(layout)}."
                    )

    def _check_statistics(self) -> None:
        for path, adaptation in self._plan.trace.adaptations.items():
            if adaptation.normalized is None:
                continue
            counts = set(np.bincount(self.sources(adaptation.normalized)).tolist())
            if len(counts) > 1:
                raise ValueError(
                    "`preserve_function=True` must copy all channels equally often where a layer "
                    f"takes statistics over them, got {sorted(counts)} copies at layer {path!r}. "
                    "Use an integer multiplier, or keep its inputs with an override of 1."
                )


def check_guessed_layers(
    replication: Replication, trace: channel_trace.ChannelTrace, layers: dict[str, Any]
) -> None:
    """Runs the layers that this package does not know on random channels and on their copies.

    Raises:
        ValueError: If the copies' results are not copies of the results.
    """
    rng = np.random.default_rng(0)
    for call in trace.guessed:
        if any(trace.layouts[key] is not None for key in (*call.inputs, *call.outputs)):
            _check_guessed_layer(replication, trace, call, layers[call.path], rng)


def _check_guessed_layer(
    replication: Replication,
    trace: channel_trace.ChannelTrace,
    call: LayerCall,
    layer: Any,
    rng: np.random.Generator,
) -> None:
    narrow = {}
    for key, shape in zip(call.inputs, call.input_shapes, strict=True):
        narrow[key] = rng.normal(size=[2 if size is None else size for size in shape])
    wide = {key: _copied(replication, trace.layouts[key], value) for key, value in narrow.items()}
    flatten = trace.graph.flatten
    before = flatten(call.invoke(call.layer, _tensors(narrow)))
    after = flatten(call.invoke(layer, _tensors(wide)))
    for key, expected, got in zip(call.outputs, before, after, strict=True):
        expected = _copied(replication, trace.layouts[key], np.asarray(expected))
        # A layer may be undefined for some of the numbers drawn (a logarithm): alike is enough.
        got, tolerance = np.asarray(got), _PROBE_TOLERANCE
        if not np.allclose(expected, got, tolerance, tolerance, equal_nan=True):
            raise ValueError(
                "`preserve_function=True` must meet only layers that treat copies of a channel "
                f"alike, got layer {call.path!r} ({type(call.layer).__name__}), which does not. "
                "Keep its inputs as they are with an override of 1."
            )


def _copied(
    replication: Replication, layout: channel_trace.Layout | None, value: np.ndarray
) -> np.ndarray:
    if layout is None:
        return value
    return np.take(value, replication.sources(layout), layout.axis)


def _tensors(values: dict[int, np.ndarray]) -> dict[int, Any]:
    import tensorflow as tf

    return {key: tf.constant(value, tf.float32) for key, value in values.items()}
