"""How far a network with fewer bits is from the float one: measures of its outputs, per example."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.model_graph import ModelGraph
from wrpn_tf.quantization.quantize_registry import has_unit_range, probability_function

MEASURES = ("kl", "loss", "mse")

Outputs = npt.NDArray[Any]

# What a softmax or sigmoid in float32 rounds to 0 is taken for its smallest normal number.
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


@dataclasses.dataclass(frozen=True)
class Classifier:
    """What a model's outputs say of classes.

    Attributes:
        function: `"softmax"` or `"sigmoid"`: how its logits become probabilities.
        is_logits: Whether it puts out logits.
    """

    function: str
    is_logits: bool

    def log_probabilities(self, values: Any) -> npt.NDArray[np.float64]:
        """Returns log probabilities of the model's outputs, of the shape that `shape` says."""
        array = np.asarray(values, np.float64)
        if self.function == "sigmoid":
            array = array.reshape(self.shape(array.shape)[:-1])
            no = np.zeros_like(array) if self.is_logits else 1 - array
            array = np.stack([no, array], axis=-1)
        if not self.is_logits:
            return np.log(np.maximum(array, _SMALLEST))
        shifted = array - array.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    def shape(self, outputs: Sequence[int | None]) -> tuple[Any, ...]:
        """Returns the shape of the log probabilities: [batch, ..., classes].

        The classes of a sigmoid are no and yes.

        Args:
            outputs: The shape of the model's outputs.
        """
        if self.function == "softmax":
            return tuple(outputs)
        return (*(outputs[:-1] if outputs[-1] == 1 else outputs), 2)


def classifier(graph: ModelGraph, measure: str) -> Classifier | None:
    """Returns what a model's output says; None for "mse", which compares the output as it is.

    A single output says yes or no. Several without a softmax or sigmoid are taken for logits of
    classes.

    Raises:
        ValueError: If the model has several inputs or outputs, or an output that is neither logits
            nor probabilities, or of unknown size.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ValueError(
            f"`model` must have one input and one output, got {len(graph.inputs)} and "
            f"{len(graph.outputs)}."
        )
    if measure == "mse":
        return None
    key = graph.outputs[0]
    producer = graph.producers[key]
    function = probability_function(producer.layer)
    size = graph.shapes[key][-1]
    has_other_range = function is None and has_unit_range(producer.layer)
    if size is None or has_other_range or (function == "softmax" and size == 1):
        raise ValueError(
            f'`model` must end in a softmax of classes, a sigmoid or logits for measure="'
            f'{measure}", got outputs {graph.shapes[key]} of {producer.path!r}. '
            f'measure="mse" takes any.'
        )
    if function is None:
        return Classifier("sigmoid" if size == 1 else "softmax", is_logits=True)
    return Classifier(function, is_logits=False)
