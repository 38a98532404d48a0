"""Reading quantized layers of either Keras: their quantizers, and the variables of these."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from wrpn_tf.quantization.quantize_registry import weight_name
from wrpn_tf.quantization.quantizers import Quantizer


def has_regions(layer: Any) -> bool:
    """Returns whether a layer rounds its output by region: a wrapper around a quantized layer."""
    return type(layer).__name__ == "RegionWrapper"


def is_region_map(layer: Any) -> bool:
    """Returns whether a layer is one that makes maps of images, no part of the network."""
    return type(layer).__name__ in ("Importance", "RegionMap")


def quantized_layer(layer: Any) -> Any:
    """Returns the quantized layer inside a region wrapper; any other layer as it is."""
    return layer.layer if has_regions(layer) else layer


def is_quantized(layer: Any) -> bool:
    """Returns whether a layer is one that quantization made."""
    layer = quantized_layer(layer)
    return type(layer).__name__ in ("QuantizeWrapper", "QuantizeWrapperV2", "QuantizeLayer")


def inner_layer(layer: Any) -> Any:
    """Returns the layer inside its wrappers; any other layer as it is."""
    layer = quantized_layer(layer)
    return layer.layer if type(layer).__name__.startswith("QuantizeWrapper") else layer


def weight_quantizers(layer: Any) -> dict[str, tuple[Any, Quantizer]]:
    """Returns a layer's quantized weights: name -> (latent variable, quantizer).

    `quantizer.to_int(variable)` gives the integers, `quantizer.scale(variable)` their unit.
    """
    layer = quantized_layer(layer)
    if hasattr(layer, "_weight_vars"):
        # tfmot's wrapper takes the variables out of its layer and puts tensors in their place.
        pairs = [(variable, quantizer) for variable, quantizer, _ in layer._weight_vars]
    elif is_quantized(layer) and hasattr(layer, "quantize_config"):
        pairs = layer.quantize_config.get_weights_and_quantizers(layer.layer)
    else:
        pairs = []
    return {weight_name(variable): (variable, quantizer) for variable, quantizer in pairs}


def output_quantizer(layer: Any) -> tuple[Quantizer, dict[str, Any]] | None:
    """Returns the quantizer that rounds a layer's output, and its variables; None if nothing does.

    `quantizer.to_int(values, variables)` gives the integers, `quantizer.scale(variables)` their
    unit.
    """
    if not is_quantized(layer):
        return None
    layer = quantized_layer(layer)
    if hasattr(layer, "quantize_config"):
        quantizer = layer.quantize_config.output_quantizer
    else:
        quantizer = layer.quantizer
    for name in ("output_quantizer_vars", "_output_quantizer_vars", "quantizer_vars"):
        if quantizer is not None and hasattr(layer, name):
            return quantizer, dict(getattr(layer, name))
    return None


@contextlib.contextmanager
def unrounded(layer: Any) -> Iterator[None]:
    """Within the context, a layer gives its output unrounded; its weights stay quantized."""
    if has_regions(layer):
        with _changed(layer, "bits", ()), unrounded(quantized_layer(layer)):
            yield
        return
    name = "_output_quantizers" if hasattr(layer, "_output_quantizers") else "quantizer"
    if not is_quantized(layer):
        yield
        return
    with _changed(layer, name, [] if name == "_output_quantizers" else None):
        yield


@contextlib.contextmanager
def _changed(layer: Any, name: str, value: Any) -> Iterator[None]:
    """Within the context, an attribute has another value."""
    kept = getattr(layer, name)
    setattr(layer, name, value)
    try:
        yield
    finally:
        setattr(layer, name, kept)
