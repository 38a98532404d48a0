"""Which Keras models have an integer graph at all; every refusal names what is in its way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import ModelGraph
from wrpn_tf.quantization import (
    check_finite_weights,
    has_regions,
    inner_layer,
    is_quantized,
    weight_quantizers,
)
from wrpn_tf.quantization.quantize_registry import Kind, kind_of


def check_graph(graph: ModelGraph) -> None:
    """Checks that a model is quantized throughout, at one precision per tensor.

    Raises:
        ValueError: If it has regions, is a float model, or has layers that multiply float weights,
            or weights that are NaN or infinite.
    """
    _check_uniform(graph)
    _check_quantized(graph)
    check_finite_weights(graph)


def _check_uniform(graph: ModelGraph) -> None:
    """Refuses a model whose precision depends on the position."""
    if any(has_regions(call.layer) for call in graph.calls):
        raise ValueError(
            f"`model` must have the same precision everywhere, got {graph.model.name!r} with "
            "regions: a .tflite file has one precision per tensor. `wrpn_tf.drop_regions(model)` "
            "gives the model at full precision, which can be exported."
        )


def _check_quantized(graph: ModelGraph) -> None:
    """Refuses a float model, and one with layers that multiply float weights; names these."""
    if not any(is_quantized(call.layer) for call in graph.calls):
        raise ValueError(
            f"`model` must be quantized, got the float model {graph.model.name!r}. Pass it through "
            "`wrpn_tf.quantize_model` or `wrpn_tf.widen_and_quantize`, and train it, first."
        )
    left = [
        f"{path} ({keras_class(inner_layer(layer))})"
        for path, layer in graph.layers().items()
        if _is_float(layer)
    ]
    if left:
        raise ValueError(f"`model` must have no layer left in float, got {_listed(left)}.")


def _is_float(layer: Any) -> bool:
    kind = kind_of(inner_layer(layer))
    if type(layer).__name__ == "QuantizeLayer":
        return False
    return (kind is Kind.KERNEL and not weight_quantizers(layer)) or kind is Kind.FLOAT


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
