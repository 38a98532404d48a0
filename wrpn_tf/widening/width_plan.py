"""From channel groups and multipliers to the new width of every group."""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from wrpn_tf.caller_depth import depth_of_caller
from wrpn_tf.grid import is_positive
from wrpn_tf.model_graph import ModelGraph, model_graph
from wrpn_tf.name_rules import check_pattern, near_names
from wrpn_tf.widening import channel_trace, propagation

Layout = channel_trace.Layout

_MOST_NAMED = 5  # layers, in a warning
_QUANTIZED_CLASSES = frozenset(
    {"QuantizeAnnotate", "QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2"}
)


@dataclasses.dataclass(frozen=True)
class WidthRules:
    """What the user asked for.

    Attributes:
        width_multiplier: For every layer within the fraction.
        layer_fraction: Which layers: the first `ceil(layer_fraction * number of layers)`.
        overrides: Regular expression for layer paths -> multiplier, wherever the layer stands.
        divisor: Widths from a fractional multiplier are multiples of it.
    """

    width_multiplier: float
    layer_fraction: float
    overrides: Mapping[str, float]
    divisor: int

    def __post_init__(self) -> None:
        _check_multiplier("`width_multiplier`", self.width_multiplier)
        if not is_positive(self.layer_fraction) or self.layer_fraction > 1:
            raise ValueError(f"`layer_fraction` must be in (0, 1], got {self.layer_fraction!r}.")
        if not isinstance(self.divisor, int) or isinstance(self.divisor, bool) or self.divisor < 1:
            raise ValueError(f"`divisor` must be an integer >= 1, got {self.divisor!r}.")
        if not isinstance(self.overrides, Mapping):
            raise TypeError(
                "`overrides` must be a dictionary {regular expression: multiplier}, got "
                f"{type(self.overrides).__name__}."
            )
        for pattern, multiplier in self.overrides.items():
            _check_multiplier(f"`overrides[{pattern!r}]`", multiplier)
            check_pattern(pattern)


@dataclasses.dataclass(frozen=True)
class WidthPlan:
    """The new widths, and all that is needed to apply them.

    Attributes:
        trace: The model's channels.
        widths: Atom -> new width.
        kept: Path -> why its width stays, of each layer whose width was asked to change; without
            those that make an output of the model, and single channels, which are broadcast.
    """

    trace: channel_trace.ChannelTrace
    widths: Mapping[int, int]
    kept: Mapping[str, str]

    def width(self, layout: Layout) -> int:
        """The length of a layout after widening."""
        return channel_trace.layout_length(layout, self._total)

    def layer_widths(self) -> dict[str, int]:
        """Path -> new width, for each layer that makes channels."""
        return {path: self.width(layout) for path, layout in self.trace.producers.items()}

    def warn_of_kept_widths(self) -> None:
        """Names, in one warning, the layers whose widths cannot change, and why."""
        if not self.kept:
            return
        paths: dict[str, list[str]] = {}
        for path, reason in self.kept.items():
            paths.setdefault(reason, []).append(path)
        named = "; ".join(f"{listed(layers)}, as {why}" for why, layers in paths.items())
        warnings.warn(
            f"{len(self.kept)} of {len(self.trace.producers)} layers keep their widths: {named}.",
            stacklevel=depth_of_caller(),
        )

    def _total(self, groups: tuple[int, ...]) -> int:
        return sum(self.widths[atom] for atom in self.trace.groups.atoms(groups))


def make_plan(model: Any, rules: WidthRules) -> WidthPlan:
    """Decides the width of every channel group of a model.

    Raises:
        TypeError, ValueError: As `wrpn_tf.widening.plan_widths`.
    """
    graph = model_graph(model)
    _check_not_quantized(graph)
    trace = propagation.trace_channels(graph)
    producers = _producers_by_atom(trace)
    _check_can_widen(trace, producers)
    chosen = _overridden_layers(trace, rules.overrides)
    count = math.ceil(rules.layer_fraction * len(trace.producers) - 1e-9)
    first_layers = set(list(trace.producers)[:count])
    widths = {}
    for atom in _all_atoms(trace):
        makers = producers.get(atom, ())
        if trace.groups.frozen_because(atom) is not None or not makers:
            widths[atom] = trace.groups.size(atom)
            continue
        multiplier = _override_of(makers, chosen)
        if multiplier is None:
            multiplier = rules.width_multiplier if makers[0] in first_layers else 1.0
        widths[atom] = _new_width(trace, atom, makers, multiplier, rules.divisor)
    _check_something_changes(trace, widths, rules)
    asked = dict.fromkeys(first_layers, rules.width_multiplier)
    asked.update({path: multiplier for path, (_, multiplier) in chosen.items()})
    return WidthPlan(trace, widths, _kept_widths(trace, asked))


def round_width(width: int, multiplier: float, divisor: int) -> int:
    """Returns `width * multiplier` as a number of channels.

    An integer multiplier is exact. Otherwise it is the nearest multiple of `divisor`, halves up, or
    the nearest integer if the product is below `divisor`; never less than `width` for a multiplier
    of 1 or more, never more than `width` for one below. The result may be 0.
    """
    product = width * multiplier
    if float(multiplier).is_integer():
        return int(product)
    unit = divisor if product >= divisor else 1
    rounded = math.floor(product / unit + 0.5) * unit
    return max(rounded, width) if multiplier >= 1 else min(rounded, width)


def _new_width(
    trace: channel_trace.ChannelTrace,
    atom: int,
    makers: tuple[str, ...],
    multiplier: float,
    divisor: int,
) -> int:
    """An atom's new width; one of many in a layer needs only its share of the divisor."""
    repeats = [trace.groups.atoms(trace.producers[path].groups).count(atom) for path in makers]
    share = divisor // math.gcd(divisor, *repeats)
    size = trace.groups.size(atom)
    width = round_width(size, multiplier, share)
    if width < 1:
        raise ValueError(
            "`width_multiplier` and `overrides` must leave every layer at least one filter, got "
            f"{multiplier} for layer "
            f"{makers[0]!r} with {size * repeats[0]} filters."
        )
    return width


def _all_atoms(trace: channel_trace.ChannelTrace) -> list[int]:
    layouts = [layout for layout in trace.layouts.values() if layout is not None]
    layouts += trace.producers.values()
    for adaptation in trace.adaptations.values():
        layouts += [axis.layout for axes in adaptation.weights.values() for axis in axes]
    groups = (group for layout in layouts for group in layout.groups)
    return sorted(set(trace.groups.atoms(dict.fromkeys(groups))))


def _kept_widths(trace: channel_trace.ChannelTrace, asked: Mapping[str, float]) -> dict[str, str]:
    """Path -> why, of the layers of which no channel can change, by the multipliers asked for."""
    layouts = [trace.layouts[key] for key in trace.graph.outputs]
    groups = [group for layout in layouts if layout is not None for group in layout.groups]
    outputs = set(trace.groups.atoms(groups))
    kept = {}
    for path, layout in trace.producers.items():
        reason = _fixed_because(trace, path)
        is_asked = asked.get(path, 1) != 1 and trace.length(layout) > 1
        if (
            reason is not None
            and is_asked
            and outputs.isdisjoint(trace.groups.atoms(layout.groups))
        ):
            kept[path] = reason
    return kept


def listed(paths: list[str]) -> str:
    """Names of layers, the first few of many."""
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(map(repr, paths[:_MOST_NAMED])) + more


def _producers_by_atom(trace: channel_trace.ChannelTrace) -> dict[int, tuple[str, ...]]:
    """Atom -> the layers that make its channels, in the order of first call."""
    makers: dict[int, list[str]] = {}
    for path, layout in trace.producers.items():
        for atom in dict.fromkeys(trace.groups.atoms(layout.groups)):
            makers.setdefault(atom, []).append(path)
    return {atom: tuple(paths) for atom, paths in makers.items()}


def _overridden_layers(
    trace: channel_trace.ChannelTrace, overrides: Mapping[str, float]
) -> dict[str, tuple[str, float]]:
    """Path -> the last rule that matches it and its multiplier."""
    chosen: dict[str, tuple[str, float]] = {}
    names = list(trace.producers)
    for pattern, multiplier in overrides.items():
        matched = [path for path in names if re.fullmatch(pattern, path)]
        if not matched:
            raise ValueError(
                "`overrides` must match whole paths of layers that make channels, got "
                f"{pattern!r}, which matches none. Near names: {near_names(pattern, names)}."
            )
        reasons = [_fixed_because(trace, path) for path in matched]
        if multiplier != 1 and None not in reasons:
            raise ValueError(
                f"`overrides` must match a layer whose width can change, got {pattern!r}, which "
                f"matches only layers of fixed width: {matched[0]!r}, because {reasons[0]}."
            )
        chosen.update(dict.fromkeys(matched, (pattern, multiplier)))
    return chosen


def _override_of(makers: tuple[str, ...], chosen: Mapping[str, tuple[str, float]]) -> float | None:
    """The multiplier that the overrides give a group, if any of its layers is matched."""
    matched = [path for path in makers if path in chosen]
    multipliers = {chosen[path][1] for path in matched}
    if len(multipliers) > 1:
        first, second = (
            next(path for path in matched if chosen[path][1] == value)
            for value in sorted(multipliers)[:2]
        )
        raise ValueError(
            "`overrides` must give layers that are added together the same multiplier, got "
            f"{chosen[first][1]} for {first!r} and {chosen[second][1]} for {second!r}."
        )
    return multipliers.pop() if multipliers else None


def _fixed_because(trace: channel_trace.ChannelTrace, path: str) -> str | None:
    """Why no channel of a layer can change; None if one can."""
    atoms = trace.groups.atoms(trace.producers[path].groups)
    reasons = [trace.groups.frozen_because(atom) for atom in atoms]
    return None if None in reasons else reasons[0]


def _check_can_widen(
    trace: channel_trace.ChannelTrace, producers: Mapping[int, tuple[str, ...]]
) -> None:
    if any(trace.groups.frozen_because(atom) is None for atom in producers):
        return
    reasons = [f"{path!r}: {_fixed_because(trace, path)}" for path in list(trace.producers)[:5]]
    raise ValueError(
        "`model` must have a layer whose width can change, got none. "
        + ("; ".join(reasons) or "No layer makes channels: it has no convolution or dense layer")
        + "."
    )


def _check_something_changes(
    trace: channel_trace.ChannelTrace, widths: Mapping[int, int], rules: WidthRules
) -> None:
    asked = {rules.width_multiplier, *rules.overrides.values()} != {1}
    if asked and all(trace.groups.size(atom) == width for atom, width in widths.items()):
        raise ValueError(
            "The multipliers must change a width, got "
            f"`width_multiplier={rules.width_multiplier}`, `layer_fraction={rules.layer_fraction}` "
            f"and `divisor={rules.divisor}`, which leave all as they are: the layers within the "
            "fraction have fixed widths, or rounding undoes it."
        )


def _check_not_quantized(graph: ModelGraph) -> None:
    for path, layer in graph.layers().items():
        if type(layer).__name__ in _QUANTIZED_CLASSES:
            raise ValueError(
                f"`model` must be a float model, got one that is already quantized: layer {path!r} "
                f"is a {type(layer).__name__}. Widen before quantizing."
            )


def _check_multiplier(argument: str, multiplier: Any) -> None:
    if not is_positive(multiplier):
        raise ValueError(f"{argument} must be a finite number > 0, got {multiplier!r}.")
