"""How far a network with fewer bits is from the float one: measures of its outputs, per example."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import ModelGraph
from wrpn_tf.quantization.quantize_registry import activation_name, has_unit_range

MEASURES = ("kl", "loss", "mse")

Outputs = npt.NDArray[Any]

# What a softmax in float32 rounds to 0 is taken for its smallest normal number.
_SMALLEST = np.finfo(np.float32).tiny


def error_per_example(
    measure: str, outputs: Outputs, reference: Outputs, labels: Outputs | None
) -> npt.NDArray[np.float64]:
    """Returns one number for each example; the mean over positions where there are several.

    | measure | of outputs o, float outputs f, labels y |
    |---|---|
    | "kl" | sum_c f_c (log f_c - log o_c), f and o as probabilities |
    | "loss" | -log o_y: the cross entropy of the labels |
    | "mse" | mean (o - f)^2 |

    Args:
        measure: One of `MEASURES`.
        outputs: [batch, ..., classes]; logarithms of probabilities but for "mse".
        reference: As `outputs`, of the float network.
        labels: Class indices, [batch, ...]; only "loss" reads them.
    """
    if measure == "mse":
        errors = np.mean((outputs - reference) ** 2, axis=-1)
    elif measure == "kl":
        errors = np.sum(np.exp(reference) * (reference - outputs), axis=-1)
    else:
        errors = -np.take_along_axis(outputs, labels[..., np.newaxis], axis=-1)[..., 0]
    return errors.reshape(len(errors), -1).mean(axis=1)


def log_probabilities(values: Any, is_softmax: bool) -> npt.NDArray[np.float64]:
    """Returns log probabilities over the last axis, of probabilities or of logits."""
    array = np.asarray(values, np.float64)
    if is_softmax:
        return np.log(np.maximum(array, _SMALLEST))
    shifted = array - array.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def ends_in_softmax(graph: ModelGraph, measure: str) -> bool:
    """Returns whether a model's output is a softmax; logits are what else "kl" and "loss" take.

    Raises:
        ValueError: If the model has several inputs or outputs, or an output without classes.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ValueError(
            f"`model` must have one input and one output, got {len(graph.inputs)} and "
            f"{len(graph.outputs)}."
        )
    key = graph.outputs[0]
    layer = graph.producers[key].layer
    is_softmax = keras_class(layer) == "Softmax" or activation_name(layer) == "softmax"
    if measure == "mse":
        return False
    if (graph.shapes[key][-1] or 0) < 2 or (has_unit_range(layer) and not is_softmax):
        raise ValueError(
            f'`model` must end in a softmax or in logits of two classes or more for measure="'
            f'{measure}", got outputs {graph.shapes[key]} of {graph.producers[key].path!r}. '
            f'measure="mse" takes any.'
        )
    return is_softmax


def check_data(
    data: Any, graph: ModelGraph, measure: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None]:
    """Returns inputs and class indices (None where the measure needs none).

    Raises:
        ValueError: If labels are missing, or the data is empty, not finite or of another shape.
    """
    is_pair = isinstance(data, (tuple, list)) and len(data) == 2
    if not is_pair and measure == "loss":
        raise ValueError(
            f'`data` must be a pair (inputs, labels) for measure="loss", got '
            f'{type(data).__name__}. measure="kl" needs no labels.'
        )
    inputs, labels = data if is_pair else (data, None)
    inputs = np.asarray(inputs)
    wanted = graph.shapes[graph.inputs[0]]
    fits = inputs.ndim == len(wanted) and all(
        size == w or w is None for size, w in zip(inputs.shape[1:], wanted[1:], strict=True)
    )
    if not fits or not len(inputs):
        raise ValueError(
            f"`data` must have inputs of shape {wanted}, at least one, got {inputs.shape}."
        )
    if inputs.dtype.kind not in "fiub" or not np.isfinite(inputs).all():
        raise ValueError(
            f"`data` must have finite inputs, got NaN, infinity or {inputs.dtype} values."
        )
    if measure != "loss":
        return inputs, None
    return inputs, _class_indices(np.asarray(labels), len(inputs), graph)


def _class_indices(labels: Outputs, count: int, graph: ModelGraph) -> npt.NDArray[np.int64]:
    *positions, classes = graph.shapes[graph.outputs[0]]
    shape = (count, *positions[1:])
    if labels.shape == (*shape, classes) and np.isfinite(labels).all():  # one-hot
        labels = labels.argmax(axis=-1)
    if labels.shape == (*shape, 1):
        labels = labels[..., 0]
    fits = len(labels.shape) == len(shape) and all(
        size == w or w is None for size, w in zip(labels.shape, shape, strict=True)
    )
    if not fits or labels.dtype.kind not in "iu" or not labels.size:
        raise ValueError(
            f"`data` must have class indices of shape {shape} (or one-hot ones) as labels, got "
            f"{labels.dtype} of shape {labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`data` must have labels in 0..{classes - 1}, got {labels.min()}..{labels.max()}."
        )
    return labels.astype(np.int64)
