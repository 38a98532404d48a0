"""The profile of a wider network, from the plan of its widths: nothing is built."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from wrpn_tf.analysis.profile import LayerProfile, ModelProfile
from wrpn_tf.model_graph import Shape
from wrpn_tf.widening.channel_trace import Adaptation
from wrpn_tf.widening.width_plan import WidthPlan, WidthRules, make_plan


def widened_profile(
    model: Any,
    *,
    width_multiplier: float = 2.0,
    layer_fraction: float = 1.0,
    overrides: Mapping[str, float] | None = None,
    divisor: int = 8,
) -> ModelProfile:
    """Returns the profile that `widen_model(model, ...)` would have, without building that model.

    Args and raises: as `wrpn_tf.plan_widths`.
    """
    rules = WidthRules(width_multiplier, layer_fraction, overrides or {}, divisor)
    return apply_widths(ModelProfile(model), make_plan(model, rules))


def apply_widths(profile: ModelProfile, plan: WidthPlan) -> ModelProfile:
    """Returns the profile of a float model with the widths of a plan made for the same model.

    A kernel's multiply-accumulates grow as the kernel does: widening changes channels, not how
    often each value of a kernel is used.
    """
    # `macs` of a shared layer's later calls need its weights, which only its first call lists.
    kernels = {(x.path, w.name): w.shape for x in profile.layers for w in x.weights}

    def widen(layer: LayerProfile) -> LayerProfile:
        adaptation = plan.trace.adaptations.get(layer.path, Adaptation())

        def widened(name: str) -> Shape:
            return _weight_shape(kernels[layer.path, name], name, adaptation, plan)

        groups = adaptation.config.get("groups")
        return dataclasses.replace(
            layer,
            input_shapes=_shapes(layer.inputs, layer.input_shapes, plan),
            output_shapes=_shapes(layer.outputs, layer.output_shapes, plan),
            weights=tuple(dataclasses.replace(w, shape=widened(w.name)) for w in layer.weights),
            macs=tuple(
                dataclasses.replace(
                    mac,
                    count=mac.count
                    * math.prod(widened(mac.weight))
                    // math.prod(kernels[layer.path, mac.weight]),
                    groups=mac.groups if groups is None else groups(plan.width),
                )
                for mac in layer.macs
            ),
        )

    return profile.with_layers(widen(layer) for layer in profile.layers)


def _shapes(keys: tuple[int, ...], shapes: tuple[Shape, ...], plan: WidthPlan) -> tuple[Shape, ...]:
    found = []
    for key, shape in zip(keys, shapes, strict=True):
        layout = plan.trace.layouts[key]
        sizes = list(shape)
        if layout is not None:
            sizes[layout.axis] = plan.width(layout)
        found.append(tuple(sizes))
    return tuple(found)


def _weight_shape(
    shape: tuple[int, ...], name: str, adaptation: Adaptation, plan: WidthPlan
) -> tuple[int, ...]:
    sizes = list(shape)
    for axis in adaptation.weights.get(name, ()):
        sizes[axis.axis] = plan.width(axis.layout)
    return tuple(sizes)
