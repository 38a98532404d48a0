"""The networks of `cifar10.py`: float, ours, and those of tfmot, QKeras and Larq.

All are trained as tf_keras networks that start from the same random weights. The other tools
quantize the same layers as the papers: all but the first and the last. Each is used as its
documentation has it for residual networks, in the variant that fits a 2-bit net best:

* tfmot: `DefaultNBitQuantizeScheme`; weights in the range of their extremes, activations in a
  moving average's.
* QKeras: `quantized_bits(bits, 0, alpha="auto")`, which finds a scale for each output channel, and
  `quantized_relu(bits, 2)`, which clips at 4.
* Larq: `DoReFa` for weights and inputs, with the `weight_clip` that it asks for.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import tf_keras
from cifar10_config import Run

import wrpn_tf

_FIRST = ("stem_conv", "stem_bn")
_LAST = "predictions"


def build(run: Run, weights: pathlib.Path | None = None, keras_flavor: str = "tf_keras") -> Any:
    """Returns the network of a run before its training.

    Args:
        run: The run.
        weights: An .h5 file of the float network's weights to start from; random ones by default.
        keras_flavor: "keras" for Keras 3, which the other tools do not know.
    """
    network = wrpn_tf.applications.CIFARResNet(run.depth, keras_flavor=keras_flavor)
    if weights is not None:
        network.load_weights(weights)
    if run.quantize is not None:
        return wrpn_tf.widen_and_quantize(network, **{"width_multiplier": 1, **run.quantize})
    if run.tool is not None:
        bits = run.tool["num_bits_weight"], run.tool["num_bits_activation"]
        return _TOOLS[run.tool["name"]](network, *bits)
    return network


def copy_weights(source: Any, target: Any) -> None:
    """Copies a quantized tf_keras model's weights to the same model in Keras 3, by name.

    Raises:
        KeyError: If a weight of the target has none in the source.
    """
    values = {
        (layer.name, _short(layer.name, variable.name.partition(":")[0])): variable.numpy()
        for layer in source.layers
        for variable in layer.weights
    }
    for layer in target.layers:
        for variable in layer.weights:
            variable.assign(values[layer.name, _short(layer.name, variable.path)])


def _short(layer: str, name: str) -> str:
    """`kernel`, `smallest`: the flavors put different words before it."""
    return name.split("/")[-1].removeprefix(f"{layer}_").removeprefix("output_")


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
