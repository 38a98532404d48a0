"""Which bits, scale and range each layer gets: defaults, first and last layers, overrides."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

from wrpn_tf.grid import check_num_bits, is_positive
from wrpn_tf.model_graph import ModelGraph
from wrpn_tf.name_rules import check_pattern, near_names
from wrpn_tf.quantization.placement import end_layers, rounded_tensors
from wrpn_tf.quantization.quantize_registry import Kind, kind_of
from wrpn_tf.quantization.weight_scale import check_weight_scale

Bits = int | Literal["float"]
Override = Mapping[str, Any] | Literal["float"]

_OF_WEIGHTS = ("num_bits_weight", "weight_scale")
_OF_ACTIVATIONS = ("num_bits_activation", "activation_range")


@dataclasses.dataclass(frozen=True)
class LayerSettings:
    """How one layer is quantized.

    Attributes:
        num_bits_weight: Bits of the kernels, or `"float"`.
        num_bits_activation: Bits of the outputs that kernels multiply, or `"float"`.
        weight_scale: Rule for the real value of the largest weight level.
        activation_range: A fixed range, `"learned"` or `"observed"`.
        is_end: The layer is among the model's first or last.

    Raises:
        TypeError, ValueError: If a value is out of range.
    """

    num_bits_weight: Bits
    num_bits_activation: Bits
    weight_scale: str | float
    activation_range: str | float
    is_end: bool = False

    def __post_init__(self):
        for argument in ("num_bits_weight", "num_bits_activation"):
            _check_bits(getattr(self, argument), argument)
        check_weight_scale(self.weight_scale)
        if self.activation_range in ("learned", "observed"):
            return
        if not is_positive(self.activation_range):
            raise ValueError(
                '`activation_range` must be a positive number, "learned" or "observed", '
                f"got {self.activation_range!r}."
            )


@dataclasses.dataclass(frozen=True)
class QuantizationRules:
    """What `quantize_model` is asked for; its arguments.

    Raises:
        TypeError, ValueError: If a value is out of range.
    """

    num_bits_weight: Bits = 2
    num_bits_activation: Bits = 8
    weight_scale: str | float = "mean"
    activation_range: str | float = "learned"
    first_layer: Bits = 8
    last_layer: Bits = 8
    overrides: Mapping[str, Override] | None = None

    def __post_init__(self):
        for argument in ("num_bits_weight", "num_bits_activation"):
            check_num_bits(getattr(self, argument), argument)
        for argument in ("first_layer", "last_layer"):
            _check_bits(getattr(self, argument), argument)
        if not isinstance(self.overrides, Mapping | None):
            raise TypeError(
                "`overrides` must be a dictionary {regular expression: settings}, got "
                f"{self.overrides!r}."
            )
        base = self._base()
        for pattern, override in (self.overrides or {}).items():
            check_pattern(pattern)
            if override != "float":
                _check_override(base, override, pattern)

    def settings(self, graph: ModelGraph, origin: Mapping[str, str]) -> dict[str, LayerSettings]:
        """Returns the settings of each layer of a prepared model, by path.

        Args:
            graph: The prepared model's graph.
            origin: Path in the prepared model -> path in the user's model; either may match a rule.

        Raises:
            ValueError: If an override matches nothing, or nothing that it has an effect on.
        """
        settings = dict.fromkeys(graph.layers(), self._base())
        for paths, bits in zip(end_layers(graph), (self.first_layer, self.last_layer), strict=True):
            end = dataclasses.replace(self._base(), num_bits_weight=bits, is_end=True)
            settings.update(dict.fromkeys(paths, end))
        if not self.overrides:
            return settings
        kinds = {path: kind_of(layer) for path, layer in graph.layers().items()}
        producers = map(graph.producers.get, rounded_tensors(graph))
        rounded = {call.path for call in producers if call is not None}
        for pattern, override in self.overrides.items():
            paths = _matching(pattern, graph, origin)
            for path in paths:
                settings[path] = _override(settings[path], override, graph.layers()[path])
            _check_effect(override, pattern, paths, kinds, rounded)
        return settings

    def _base(self) -> LayerSettings:
        return LayerSettings(
            self.num_bits_weight,
            self.num_bits_activation,
            self.weight_scale,
            self.activation_range,
        )


def _check_bits(bits: Any, argument: str) -> None:
    if isinstance(bits, str) and bits != "float":
        raise TypeError(f'`{argument}` must be an int in 1..8 or "float", got {bits!r}.')
    if bits != "float":
        check_num_bits(bits, argument)


def _check_override(base: LayerSettings, override: Mapping[str, Any], pattern: str) -> None:
    keys = (*_OF_WEIGHTS, *_OF_ACTIVATIONS)
    if not isinstance(override, Mapping) or not override or not set(override) <= set(keys):
        raise ValueError(
            f'`overrides[{pattern!r}]` must be "float" or a dictionary of {", ".join(keys)}, got '
            f"{override!r}."
        )
    try:
        dataclasses.replace(base, **override)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`overrides[{pattern!r}]`: {error}") from error


def _matching(pattern: str, graph: ModelGraph, origin: Mapping[str, str]) -> list[str]:
    rule = re.compile(pattern)
    paths = [p for p in graph.layers() if rule.fullmatch(p) or rule.fullmatch(origin[p])]
    if not paths:
        names = sorted({*graph.layers(), *origin.values()})
        raise ValueError(
            f"`overrides`: the rule {pattern!r} matches no layer. Near names: "
            f"{near_names(pattern, names)}."
        )
    return paths


def _override(settings: LayerSettings, override: Override, layer: Any) -> LayerSettings:
    if override == "float":
        is_kernel = kind_of(layer) is Kind.KERNEL
        argument = "num_bits_weight" if is_kernel else "num_bits_activation"
        return dataclasses.replace(settings, **{argument: "float"})
    return dataclasses.replace(settings, **override)


def _check_effect(
    override: Override,
    pattern: str,
    paths: list[str],
    kinds: Mapping[str, Kind],
    rounded: set[str],
) -> None:
    """Refuses settings of weights or activations where the rule's layers have none quantized."""
    kernels = {path for path, kind in kinds.items() if kind is Kind.KERNEL}
    outputs = (
        "outputs that are rounded (behind a convolution, at the batch norm or ReLU that ends its "
        "chain)"
    )
    if override == "float":
        in_float = {path for path, kind in kinds.items() if kind is Kind.FLOAT}  # as is asked for
        checks = [('"float"', kernels | rounded | in_float, f"kernels, or {outputs}")]
    else:
        able = dict.fromkeys(_OF_WEIGHTS, (kernels, "kernels"))
        able |= dict.fromkeys(_OF_ACTIVATIONS, (rounded, outputs))
        checks = [(f"`{key}`", *able[key]) for key in override]
    for what, layers, wanted in checks:
        if layers.isdisjoint(paths):
            raise ValueError(
                f"`overrides[{pattern!r}]` sets {what} and must match a layer with {wanted}, got "
                f"{', '.join(paths)}."
            )
