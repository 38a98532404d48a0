"""Lets a quantized network adopt scales and biases that every kernel rounds alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export.batch_norm_folding import FoldedKernel, adopt
from tflite_export.graph_reader import FoldedModel, fold_model
from tflite_export.integer_model import Operation
from tflite_export.lowering import channels_of
from tflite_export.snap_report import LayerMoves, SnapReport
from tflite_export.snapping import (
    Channels,
    Rounding,
    SnappedChannels,
    snap_channels,
    snap_output_scale,
)
from tflite_export.storage import check_storage
from tflite_export.tensor_scales import choose_scales
from wrpn_tf.keras_flavor import flavor_of


def snap(
    model: Any, storage: str = "int8", examples: tuple[Any, Any] | None = None
) -> tuple[Any, SnapReport]:
    """Returns a copy of a quantized model on which all TFLite kernels agree, and what moved.

    Each kernel layer's folded scale and bias go to the nearest good values at which no kernel's
    rounding can differ from the exact rule, with a margin that a float32 forward pass keeps; the
    copy adopts them in its batch norms, biases, weights' steps and ranges. Snapping the copy again
    changes nothing.

    Args:
        model: A model of `wrpn_tf.quantize_model` or `widen_and_quantize`, of either Keras; it
            stays as it is.
        storage: What the weights will be stored in; values for `"int4"` fit all storages.
        examples: Inputs and integer labels, to report the top-1 accuracy before and after.

    Raises:
        TypeError, ValueError: As `lower`.
    """
    check_storage(storage)
    before = fold_model(model)
    snapped = copy_model(model)
    scales = choose_scales(
        before, lambda operation, known: _exact_scale(operation, before, known, storage)
    )
    _adopt_scales(fold_model(snapped), scales)
    folded = fold_model(snapped)
    layers = []
    for operation in folded.operations:
        if isinstance(getattr(operation, "kernel", None), FoldedKernel):
            layers.append(_snap_operation(operation, folded, storage))
    report = SnapReport(
        layers=tuple(layers),
        tensors={
            name: float(scales[name]) / float(tensor.scale) - 1
            for name, tensor in before.tensors.items()
            if name in before.quantizers
        },
        accuracies=examples and tuple(top_1(each, examples) for each in (model, snapped)),
    )
    return snapped, report


def copy_model(model: Any) -> Any:
    """Returns a model of the same layers and weights, which shares none of them."""
    copy = flavor_of(model).keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def top_1(model: Any, examples: tuple[Any, Any]) -> float:
    """Returns the share of examples whose largest output is the label's."""
    images, labels = examples
    predicted = np.argmax(model.predict(images, verbose=0), axis=-1)
    return float(np.mean(predicted == np.asarray(labels).reshape(predicted.shape)))


def _adopt_scales(folded: FoldedModel, scales: Mapping[str, np.float32]) -> None:
    """Sets the ranges of the model's quantizers, where they change."""
    for name, (quantizer, variables) in folded.quantizers.items():
        tensor, scale = folded.tensors[name], float(scales[name])
        if scales[name] != tensor.scale:
            quantizer.set_range(variables, scale * tensor.low, scale * tensor.high)


def _snap_operation(operation: Operation, folded: FoldedModel, storage: str) -> LayerMoves:
    """Snaps one operation's channels, and lets its layers adopt them."""
    kernel, tensors = operation.kernel, folded.tensors
    origin = kernel.origin
    source, output = tensors[operation.inputs[0]], tensors[operation.output]
    channels, rounding = channels_of(operation, tensors, storage)
    if origin.scale_freedom == "layer":
        # As if the output's scale were free; then the weights take the move.
        _, snapped = snap_output_scale(channels, rounding, offset_is_free=origin.has_free_bias)
    else:
        snapped = snap_channels(
            channels,
            rounding,
            scale_is_free=origin.scale_freedom == "channel",
            offset_is_free=origin.has_free_bias,
        )
    scale = snapped.scale * (np.float64(output.scale) / np.float64(source.scale))
    bias = snapped.offset * np.float64(output.scale)
    stays = _is_stored_alike(snapped, channels, rounding)
    scale = np.where(stays | (snapped.multiplier == 0), kernel.scale, scale)
    bias = np.where(stays, kernel.bias, bias)
    adopt(kernel, scale, bias)
    return LayerMoves(
        name=operation.name,
        scale_moves=scale / kernel.scale - 1,
        bias_moves=(bias - kernel.bias) / np.float64(output.scale),
        margins=snapped.margin,
        relative_margins=snapped.relative_margin,
        exact=snapped.exact,
    )


def _is_stored_alike(
    snapped: SnappedChannels, channels: Channels, rounding: Rounding
) -> np.ndarray:
    """Whether a file holds the same integers and scale for what a channel has and for its aim."""
    now = snap_channels(channels, rounding, scale_is_free=False, offset_is_free=False)
    same = (now.bias == snapped.bias) & (now.multiplier == snapped.multiplier)
    return same & (now.weight_scale == snapped.weight_scale) & now.exact


def _exact_scale(
    operation: Operation, folded: FoldedModel, scales: Mapping[str, np.float32], storage: str
) -> np.float32:
    """The output scale at which an operation whose own scale is fixed is exact."""
    tensors = {
        name: dataclasses.replace(folded.tensors[name], scale=scales[name])
        for name in (*operation.inputs, operation.output)
    }
    channels, rounding = channels_of(operation, tensors, storage)
    free = operation.kernel.origin.has_free_bias
    return snap_output_scale(channels, rounding, offset_is_free=free)[0]
