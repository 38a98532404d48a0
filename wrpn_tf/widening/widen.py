"""Widening: more filters per layer, the same depth.

Source: Mishra, Nurvitadhi, Cook & Marr, "WRPN: Wide Reduced-Precision Networks", section 3; the
first 30 % of the layers: Mishra & Marr, "WRPN & Apprentice".
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from wrpn_tf import keras_flavor
from wrpn_tf.caller_depth import depth_of_caller
from wrpn_tf.model_graph import LayerCall, ModelGraph, OnTensors, rebuild, warn_of_own_class
from wrpn_tf.widening import channel_trace, function_preservation, width_plan


def plan_widths(
    model: Any,
    *,
    width_multiplier: float = 2.0,
    layer_fraction: float = 1.0,
    overrides: Mapping[str, float] | None = None,
    divisor: int = 8,
) -> dict[str, int]:
    """Returns the width that each layer would get, without building anything.

    The layers counted and listed are those with weights whose configuration says how many channels
    they make: convolutions, transposed and separable ones, Dense, EinsumDense, Embedding. Depthwise
    convolutions and normalisations follow their inputs.

    Layers whose outputs are added (or multiplied, averaged, ...) share their channels and so their
    width. Such a group takes `width_multiplier` if its first layer is among the first
    `ceil(layer_fraction * number of layers)` in topological order. It keeps its width if it reaches
    an output of the model, or meets a layer that works on a fixed number of channels, which a
    warning names.

    Args:
        model: A built Functional or Sequential model, Keras 3 or tf_keras.
        width_multiplier: New filters / old filters.
        layer_fraction: The part of the layers to widen, from the input on, in (0, 1].
        overrides: Regular expression -> multiplier for the layers whose whole path it matches
            (`outer/inner` in a nested model), in or out of the fraction; the last match decides. A
            group takes the multiplier of the layers in it that are matched.
        divisor: A fractional multiplier gives the nearest multiple of this (halves up), but the
            nearest integer below it, never fewer filters than before if it is 1 or more, never more
            if it is less. An integer multiplier is exact.

    Returns:
        Layer path -> width, of every layer counted, changed or not, in topological order.

    Raises:
        TypeError: If `model` is no Keras model or `overrides` no dictionary.
        ValueError: If the model is subclassed, not built, without weights or already quantized; if
            no layer of it can change its width, or none does with these arguments; if a multiplier
            is not above 0 or leaves no filters, the fraction is outside (0, 1]; if an override
            matches nothing, only layers of fixed width, or layers of one group that another
            override gives another multiplier.
    """
    rules = width_plan.WidthRules(width_multiplier, layer_fraction, overrides or {}, divisor)
    plan = width_plan.make_plan(model, rules)
    plan.warn_of_kept_widths()
    return plan.layer_widths()


def widen_model(
    model: Any,
    *,
    width_multiplier: float = 2.0,
    layer_fraction: float = 1.0,
    overrides: Mapping[str, float] | None = None,
    divisor: int = 8,
    preserve_function: bool = False,
    noise: float = 0.0,
    seed: int | None = None,
) -> Any:
    """Returns a new model with wider layers, as `plan_widths` with the same arguments tells.

    Inputs and outputs, layer names, regularizers, trainable flags and dtype policies stay; nested
    models are flattened. The model is not compiled, and `model` is not changed.

    Without `preserve_function` the weights are drawn anew by the layers' own initialisers, for
    training from scratch as in the papers; only statistics of the data (`Normalization`) are
    copied. Frozen layers, which would then learn nothing, are named in a warning.

    With `preserve_function` channels are copied and the weights that add them up are divided by the
    number of copies. In inference the outputs are then equal but for rounding, for sums have more
    terms and another order: to about 1e-5 of the largest output in float32 (measured on twelve
    applications: 5e-6 at most), 1e-3 in mixed float16, 1e-2 in mixed bfloat16. In training, dropout
    draws for each copy by itself. Copies with equal weights get equal gradients and would stay
    equal for ever; `noise` parts them.

    Args:
        model: A built Functional or Sequential model, Keras 3 or tf_keras.
        width_multiplier: As in `plan_widths`.
        layer_fraction: As in `plan_widths`.
        overrides: As in `plan_widths`.
        divisor: As in `plan_widths`.
        preserve_function: Whether to replicate the weights so that the outputs stay equal.
        noise: Standard deviation of what is added to the kernels of copies (not to the first of
            each), relative to the kernel's own; 0.01 is enough to part them. Needs
            `preserve_function`.
        seed: Seed of the noise.

    Raises:
        TypeError: As `plan_widths`; if `preserve_function` is no bool or `seed` no integer.
        ValueError: As `plan_widths`; if `noise` or `seed` is negative; if there is noise without
            `preserve_function`; if `preserve_function` cannot be had: a multiplier below 1, a
            LayerNormalization or GroupNormalization whose channels would not all be copied equally
            often (a fractional multiplier), a layer unknown to this package that does not treat
            copies alike.
    """
    rules = width_plan.WidthRules(width_multiplier, layer_fraction, overrides or {}, divisor)
    check_preservation(preserve_function, noise, seed)
    wide, _ = widen(model, rules, preserve_function, noise, seed)
    return wide


def widen(
    model: Any,
    rules: width_plan.WidthRules,
    preserve_function: bool,
    noise: float,
    seed: int | None,
) -> tuple[Any, dict[str, Any]]:
    """Does what `widen_model` says, with arguments that were checked.

    Returns:
        The wider model, and its layers by their paths in `model`, without what stands for
        operations that knew their number of channels.

    Raises:
        TypeError, ValueError: As `widen_model`, for the model and what it does not allow.
    """
    plan = width_plan.make_plan(model, rules)
    plan.warn_of_kept_widths()
    warn_of_own_class(model)
    replication = function_preservation.Replication(plan) if preserve_function else None
    wide, layers = _build(plan)
    if replication is None:
        new = _copy_data_statistics(plan.trace.graph, layers)
        _warn_of_frozen_layers(new)
        return wide, layers
    _copy_weights(replication, plan, layers)
    function_preservation.check_guessed_layers(replication, plan.trace, layers)
    if noise:
        _copy_weights(replication, plan, layers, noise, seed)
    return wide, layers


def _copy_weights(
    replication: function_preservation.Replication,
    plan: width_plan.WidthPlan,
    layers: Mapping[str, Any],
    noise: float = 0.0,
    seed: int | None = None,
) -> None:
    """Gives the wide layers copies of the model's weights, parted by noise."""
    rng = np.random.default_rng(seed)
    for path, layer in plan.trace.graph.layers().items():
        if getattr(layers.get(path), "weights", None):
            layers[path].set_weights(replication.weights(path, layer, noise, rng))


def _build(plan: width_plan.WidthPlan) -> tuple[Any, dict[str, Any]]:
    graph = plan.trace.graph

    def make_layer(call: LayerCall) -> Any:
        adaptation = plan.trace.adaptations.get(call.path, channel_trace.Adaptation())
        if adaptation.replacement is not None:
            return OnTensors(adaptation.replacement(plan.width))
        if not isinstance(call.layer, graph.flavor.layers.Layer):
            return call.layer
        changes = {entry: value(plan.width) for entry, value in adaptation.config.items()}
        return keras_flavor.clone_layer(call.layer, name=call.name, **changes)

    def check_shape(key: int, tensor: Any) -> Any:
        expected = list(graph.shapes[key])
        layout = plan.trace.layouts[key]
        if layout is not None:
            expected[layout.axis] = plan.width(layout)
        if list(tensor.shape) != expected:
            path = graph.producers[key].path
            raise ValueError(
                f"`model` must have layers that work at any width, got layer {path!r}, which gives "
                f"{tuple(tensor.shape)} instead of {tuple(expected)}. Keep its inputs as they are "
                "with an override of 1."
            )
        return tensor

    model, made = rebuild(graph, make_layer, check_shape)
    return model, {path: layer for path, layer in made.items() if not isinstance(layer, OnTensors)}


def _copy_data_statistics(graph: ModelGraph, layers: Mapping[str, Any]) -> dict[str, Any]:
    """Copies what was measured of data; returns the other layers, whose weights are new."""
    new = dict(layers)
    for path, layer in graph.layers().items():
        if type(layer).__name__ == "Normalization":
            new.pop(path).set_weights(layer.get_weights())
    return new


def _warn_of_frozen_layers(layers: Mapping[str, Any]) -> None:
    frozen = [
        path
        for path, layer in layers.items()
        if getattr(layer, "weights", None) and not layer.trainable
    ]
    if frozen:
        warnings.warn(
            f"{len(frozen)} layers have new weights and are frozen, as in `model`: they learn "
            f"nothing. {width_plan.listed(frozen)}. Set their `trainable` to True, or keep the "
            "weights of `model` by `preserve_function=True`.",
            stacklevel=depth_of_caller(),
        )


def check_preservation(preserve_function: bool, noise: float, seed: int | None) -> None:
    """Checks the arguments that say where a widened model's weights come from.

    Raises:
        TypeError: If `preserve_function` is no bool, or `seed` neither None nor an integer.
        ValueError: If `noise` or `seed` is negative, or there is noise without `preserve_function`.
    """
    if not isinstance(preserve_function, bool):
        raise TypeError(f"`preserve_function` must be True or False, got {preserve_function!r}.")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"`seed` must be None or an integer, got {seed!r}.")
    if seed is not None and seed < 0:
        raise ValueError(f"`seed` must be >= 0, got {seed}.")
    if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise < math.inf:
        raise ValueError(f"`noise` must be a finite number >= 0, got {noise!r}.")
    if noise and not preserve_function:
        raise ValueError(
            f"`noise` must be 0 without `preserve_function=True`, got {noise!r}: new weights are "
            "random anyway."
        )
