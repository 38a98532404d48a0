"""The networks of `cifar10.py`: float, ours, and other tools'; all start from the same weights."""

from __future__ import annotations

from typing import Any

from cifar10_config import Run

import wrpn_tf


def build(run: Run, keras_flavor: str = "tf_keras") -> Any:
    """Returns the network that a run measures, of random weights.

    Args:
        run: The run.
        keras_flavor: As for `float_network`.
    """
    return quantize(run, float_network(run, keras_flavor))


def float_network(run: Run, keras_flavor: str = "tf_keras") -> Any:
    """Returns the float network of a run, of random weights.

    Args:
        run: The run.
        keras_flavor: "tf_keras", which the other tools need, or "keras" for Keras 3.
    """
    return wrpn_tf.applications.CIFARResNet(run.depth, keras_flavor=keras_flavor)


def quantize(run: Run, network: Any) -> Any:
    """Returns the network that a run measures, with the weights of a float one; may be that one."""
    if run.quantize is not None:
        return wrpn_tf.widen_and_quantize(network, **{"width_multiplier": 1, **run.quantize})
    if run.tool is not None:
        import cifar10_tools  # Only where tf_keras is.

        return cifar10_tools.quantize(network, **run.tool)
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
