"""`quantize_model`: a float Keras model in, a k-bit one out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from wrpn_tf import keras_flavor
from wrpn_tf.caller_depth import depth_of_caller
from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import ModelGraph, model_graph, warn_of_own_class
from wrpn_tf.quantization.finite_weights import check_finite_weights
from wrpn_tf.quantization.layer_settings import Bits, Override, QuantizationRules
from wrpn_tf.quantization.prepare import prepare
from wrpn_tf.quantization.quantize_registry import (
    SEPARABLE_LAYERS,
    Kind,
    kernel_axes,
    kind_of,
)
from wrpn_tf.quantization.quantized_layers import is_quantized
from wrpn_tf.quantization.region_insertion import apply_regions
from wrpn_tf.regions import RegionPrecision
from wrpn_tf.regions.region_precision import check_region_precision

PAPER_RECIPE: Mapping[str, Any] = MappingProxyType(
    {
        "weight_scale": "none",
        "activation_range": 1.0,
        "first_layer": "float",
        "last_layer": "float",
    }
)
"""Arguments of `quantize_model` and `widen_and_quantize` that follow WRPN to the letter.

Source: Mishra et al., arXiv 1709.01134, section 5.
"""


def quantize_model(
    model: Any,
    *,
    num_bits_weight: int = 2,
    num_bits_activation: int = 8,
    weight_scale: str | float = "mean",
    activation_range: str | float = "learned",
    first_layer: Bits = 8,
    last_layer: Bits = 8,
    overrides: Mapping[str, Override] | None = None,
    region_precision: RegionPrecision | None = None,
) -> Any:
    """Returns a copy of a float model that computes with k-bit weights and activations, and trains.

    The copy starts from the model's weights. Wherever an integer graph rounds, it rounds: inputs,
    weights, ReLUs, the branches of a sum, means, logits. Inputs are rounded behind the
    preprocessing and augmentation with which a model begins. What cannot be quantized stays float
    and is named in one warning and in `wrpn_tf.summary`.

    Args:
        model: A Functional or Sequential model, of Keras 3 or tf_keras. It is not changed. Nested
            models are flattened.
        num_bits_weight: Bits of weights, 1..8; 2 is ternary.
        num_bits_activation: Bits of activations that weights multiply, 1..8. Signed ones and those
            of observed range keep at least 2; tensors that are only added, averaged or shown (sums'
            branches, logits) keep 8.
        weight_scale: The real value of the largest weight level, by rule: `"none"` (1, the paper),
            `"initializer"`, `"mean"`, `"mean_per_channel"`, `"max"`, `"max_per_channel"`, or a
            number. See `weight_scale.compute_weight_scale`.
        activation_range: The real value of the largest activation level behind batch norm: a number
            (the paper's is 1), or `"learned"`: starts where a normalised activation is rounded
            best, and trains. `"observed"` follows what training sees, which tensors of unknown
            scale do in any case. `wrpn_tf.calibrate` sets all of them.
        first_layer: Bits of the weights of the layers that no other with weights stands before, or
            `"float"`.
        last_layer: Bits of the weights of the layers that no other with weights stands behind, or
            `"float"`, which leaves the logits unrounded too.
        overrides: Regular expression on whole layer names (`outer/inner` in nested models) -> a
            dictionary of `num_bits_weight`, `num_bits_activation`, `weight_scale`,
            `activation_range` (bits may be `"float"`), or `"float"`: weights in float, or, of a
            layer without kernels, outputs. Later rules win. Outputs are rounded at the end of a
            chain, so their settings go to its last layer: the ReLU, not the convolution before it.
        region_precision: Fewer bits for the unimportant parts of each image: see
            `wrpn_tf.RegionPrecision` and `wrpn_tf.apply_regions`.

    Returns:
        A Functional model of the model's own flavour. Layers are named as tfmot does: `quant_` and
        the original name; an activation that is no ReLU is a layer of its own, as in
        `quant_fc_tanh`. `compile` takes losses by these names: see the model's `output_names`.

    Raises:
        TypeError: If `model` is no Keras model, bits are no integers, or `overrides` is no
            dictionary.
        ValueError: If an argument is out of range, a rule matches no layer, or the model cannot be
            read, is quantized already, has nothing to quantize, or has weights that are NaN or
            infinite; or as `wrpn_tf.apply_regions`.

    Source: Mishra et al., WRPN, arXiv 1709.01134, section 5.
    """
    rules = QuantizationRules(
        num_bits_weight=num_bits_weight,
        num_bits_activation=num_bits_activation,
        weight_scale=weight_scale,
        activation_range=activation_range,
        first_layer=first_layer,
        last_layer=last_layer,
        overrides=overrides,
    )
    check_region_precision(region_precision)
    return quantize(model, rules, region_precision)


def quantize(
    model: Any,
    rules: QuantizationRules,
    region_precision: RegionPrecision | None,
    paths: Mapping[str, str] | None = None,
) -> Any:
    """Does what `quantize_model` says, with arguments that were checked.

    Args:
        model: The float model.
        rules: What is asked for.
        region_precision: Fewer bits for the unimportant parts of each image.
        paths: Path in `model` -> path in the model that the user knows, of layers for which they
            differ. Rules may use either; warnings use the user's.

    Raises:
        TypeError, ValueError: As `quantize_model`, for the model and rules that do not fit it.
    """
    source = model_graph(model)
    check_quantizable(source)
    check_finite_weights(source)
    warn_of_own_class(model)
    prepared, origin = prepare(source)
    origin = {name: (paths or {}).get(path, path) for name, path in origin.items()}
    graph = model_graph(prepared)
    if graph.flavor is keras_flavor.KERAS:
        from wrpn_tf.quantization.keras_applier import apply_rules
    else:
        from wrpn_tf.quantization.quantize_scheme import apply_rules
    quantized = apply_rules(graph, rules, origin)
    _warn_of_float_layers(graph, origin)
    return quantized if region_precision is None else apply_regions(quantized, region_precision)


def check_quantizable(graph: ModelGraph) -> None:
    """Raises a ValueError if a model is quantized already, or has no kernels to quantize."""
    layers = graph.layers()
    quantized = [path for path, layer in layers.items() if is_quantized(layer)]
    if quantized:
        raise ValueError(
            f"`model` must be a float model, got one that is quantized already: {quantized[0]}."
        )
    if not any(kernel_axes(x) or keras_class(x) in SEPARABLE_LAYERS for x in layers.values()):
        raise ValueError(
            f"`model` must have a layer with kernels to quantize (Dense, Conv, ...), got "
            f"{graph.model.name!r} with none."
        )


def _warn_of_float_layers(graph: ModelGraph, origin: Mapping[str, str]) -> None:
    """Names, in one warning, the layers whose weights have no integer form here."""
    paths = [origin[p] for p, x in graph.layers().items() if kind_of(x) is Kind.FLOAT]
    if paths:
        kinds = sorted(
            {keras_class(x) for x in graph.layers().values() if kind_of(x) is Kind.FLOAT}
        )
        warnings.warn(
            f"{len(paths)} {'layer stays' if len(paths) == 1 else 'layers stay'} float, being of "
            f"classes that are not quantized ({', '.join(kinds)}): {', '.join(paths)}.",
            stacklevel=depth_of_caller(),
        )
