"""Copies a model, with a bias for layers whose sums no two kernels round alike without one.

Signed sums of 8-bit weights are such: their accumulators come in whole units (`snapping`: M = 1),
and the thresholds of a rule without an offset lie as close to negative ones as to positive ones,
where kernels round in different directions. Any small offset helps.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from tflite_export.batch_norm_folding import FoldedKernel
from tflite_export.graph_reader import FoldedModel
from wrpn_tf.keras_flavor import flavor_of
from wrpn_tf.quantization import inner_layer, weight_quantizers


def layers_without_offset(model: Any, folded: FoldedModel) -> tuple[str, ...]:
    """Returns the names of the layers that need an offset and have neither bias nor batch norm.

    Args:
        model: The quantized model.
        folded: The same, read.
    """
    kernels = [getattr(operation, "kernel", None) for operation in folded.operations]
    needed = {
        id(kernel.origin.kernel[0])
        for kernel in kernels
        if isinstance(kernel, FoldedKernel)
        and kernel.shift > 0
        and kernel.origin.kernel is not None
        and not kernel.origin.has_free_bias
    }
    return tuple(
        layer.name
        for layer in model.layers
        if any(id(variable) in needed for variable, _ in weight_quantizers(layer).values())
    )


def copy_model(model: Any, biased: Collection[str] = ()) -> Any:
    """Returns a model of the same layers and weights, which shares none of them.

    Args:
        model: The quantized model.
        biased: Names of layers without a bias whose copies have one, of zeros.
    """

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in biased:
            config = copy.deepcopy(config)
            config["layer"]["config"]["use_bias"] = True
        return type(layer).from_config(config)

    new = flavor_of(model).keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        target = new.get_layer(layer.name)
        added = inner_layer(target).bias if layer.name in biased else None
        kept = [variable for variable in target.weights if variable is not added]
        for variable, value in zip(kept, layer.weights, strict=True):
            variable.assign(value)
    return new
