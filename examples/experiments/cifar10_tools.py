"""The networks of `cifar10.py` that tfmot, QKeras and Larq quantize, all tf_keras.

They quantize the same layers as the papers: all but the first and the last. Each is used as its
documentation has it for residual networks, in the variant that fits a 2-bit net best:

* tfmot: `DefaultNBitQuantizeScheme`; weights in the range of their extremes, activations in a
  moving average's.
* QKeras: `quantized_bits(bits, 0, alpha="auto")`, which finds a scale for each output channel, and
  `quantized_relu(bits, 2)`, which clips at 4.
* Larq: `DoReFa` for weights and inputs, with the `weight_clip` that it asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tf_keras

_FIRST = ("stem_conv", "stem_bn")
_LAST = "predictions"


def quantize(network: Any, name: str, num_bits_weight: int, num_bits_activation: int) -> Any:
    """Returns a copy of a `CIFARResNet`, with its weights, that a tool has quantized.

    Args:
        network: The float network.
        name: "larq", "qkeras" or "tfmot".
        num_bits_weight: Bits of its weights.
        num_bits_activation: Bits of its activations.
    """
    return _TOOLS[name](network, num_bits_weight, num_bits_activation)


def _tfmot(network: Any, num_bits_weight: int, num_bits_activation: int) -> Any:
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.quantization.keras.experimental.default_n_bit import (  # noqa: E501
        default_n_bit_quantize_scheme,
    )

    def annotate(layer: Any) -> Any:
        if layer.name in (*_FIRST, _LAST):
            return layer
        return tfmot.quantization.keras.quantize_annotate_layer(layer)

    scheme = default_n_bit_quantize_scheme.DefaultNBitQuantizeScheme(
        num_bits_weight=num_bits_weight, num_bits_activation=num_bits_activation
    )
    annotated = tf_keras.models.clone_model(network, clone_function=annotate)
    return tfmot.quantization.keras.quantize_apply(annotated, scheme)


def _qkeras(network: Any, num_bits_weight: int, num_bits_activation: int) -> Any:
    import qkeras

    def convert(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, tf_keras.layers.Conv2D) and layer.name not in _FIRST:
            quantizer = qkeras.quantized_bits(num_bits_weight, 0, alpha="auto")
            return qkeras.QConv2D.from_config({**config, "kernel_quantizer": quantizer})
        if isinstance(layer, tf_keras.layers.ReLU) and not _feeds_last(layer):
            relu = qkeras.quantized_relu(num_bits_activation, 2)
            return qkeras.QActivation(relu, name=layer.name)
        return type(layer).from_config(config)

    return _converted(network, convert)


def _larq(network: Any, num_bits_weight: int, num_bits_activation: int) -> Any:
    import larq

    def convert(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, tf_keras.layers.Conv2D) and layer.name not in _FIRST:
            config["kernel_quantizer"] = larq.quantizers.DoReFa(num_bits_weight, mode="weights")
            config["input_quantizer"] = larq.quantizers.DoReFa(num_bits_activation)
            config["kernel_constraint"] = "weight_clip"
            del config["groups"]
            return larq.layers.QuantConv2D(**config)
        return type(layer).from_config(config)

    return _converted(network, convert)


def _converted(network: Any, convert: Callable[[Any], Any]) -> Any:
    model = tf_keras.models.clone_model(network, clone_function=convert)
    model.set_weights(network.get_weights())
    return model


def _feeds_last(layer: Any) -> bool:
    """Whether only the pooling before the float classifier reads the layer."""
    readers = [node.outbound_layer for node in layer.outbound_nodes]
    return all(isinstance(x, tf_keras.layers.GlobalAveragePooling2D) for x in readers)


_TOOLS = {"tfmot": _tfmot, "qkeras": _qkeras, "larq": _larq}
