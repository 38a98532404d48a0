"""The examples that `search` reads: joined from batches, and checked against the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.analysis.bit_measures import Classifier, Outputs
from wrpn_tf.model_graph import ModelGraph

# What `tf.data.Dataset.cardinality` says of a dataset that repeats for ever.
_INFINITE = -1
_LISTED = 4  # batches that a message shows


def joined_batches(data: Any) -> Any:
    """Returns the arrays of all examples of a dataset; anything else as it is.

    Args:
        data: An iterable of batches: inputs, or tuples (inputs, labels, ...).

    Raises:
        ValueError: If the dataset never ends, has no batch, or its batches do not fit together.
    """
    is_array = hasattr(data, "shape") or isinstance(data, (tuple, list, str, Mapping))
    if is_array or not isinstance(data, Iterable):
        return data
    if hasattr(data, "cardinality") and int(data.cardinality()) == _INFINITE:
        raise ValueError(
            "`data` must end, got a dataset that repeats for ever. `dataset.take(4)` has four of "
            "its batches."
        )
    batches = list(data)
    if not batches:
        raise ValueError("`data` must have at least one batch, got an empty dataset.")
    if not isinstance(batches[0], tuple):
        return _joined(batches)
    inputs, *others = zip(*batches, strict=True)
    return (_joined(inputs), _joined(others[0])) if others else _joined(inputs)


def check_data(
    data: Any, graph: ModelGraph, measure: str, kind: Classifier | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | None]:
    """Returns inputs and class indices (None where the measure needs none).

    Args:
        data: Inputs, or a pair (inputs, labels).
        graph: The model's.
        measure: One of `MEASURES`.
        kind: What `classifier` says of the model and the measure.

    Raises:
        ValueError: If labels are missing, or the data is empty, not finite or of another shape.
    """
    is_pair = isinstance(data, (tuple, list)) and len(data) == 2
    if not is_pair and measure == "loss":
        raise ValueError(
            f'`data` must be a pair (inputs, labels) for measure="loss", got '
            f'{type(data).__name__}. measure="kl" needs no labels.'
        )
    given, labels = data if is_pair else (data, None)
    inputs = np.asarray(given)
    wanted = graph.shapes[graph.inputs[0]]
    fits = inputs.ndim == len(wanted) and all(
        size == w or w is None for size, w in zip(inputs.shape[1:], wanted[1:], strict=True)
    )
    if not fits or not len(inputs):
        found = inputs.shape if inputs.ndim else f"{type(given).__name__}: join its batches"
        raise ValueError(
            f"`data` must have inputs of shape {wanted}, at least one, in an array, got {found}."
        )
    if inputs.dtype.kind not in "fiub" or not np.isfinite(inputs).all():
        raise ValueError(
            f"`data` must have finite inputs, got NaN, infinity or {inputs.dtype} values."
        )
    if kind is None or measure != "loss":
        return inputs, None
    shape = kind.shape(graph.shapes[graph.outputs[0]])
    return inputs, _class_indices(np.asarray(labels), (len(inputs), *shape[1:]))


def _joined(batches: Sequence[Any]) -> npt.NDArray[Any]:
    try:
        return np.concatenate(batches)
    except ValueError as error:
        found = ", ".join(str(np.shape(batch)) for batch in batches[:_LISTED])
        raise ValueError(
            f"`data` must have batches that can be joined to one array, got shapes {found}."
        ) from error


def _class_indices(labels: Outputs, wanted: tuple[Any, ...]) -> npt.NDArray[np.int64]:
    *shape, classes = wanted
    if labels.shape == (*shape, classes) and np.isfinite(labels).all():  # one-hot
        labels = labels.argmax(axis=-1)
    if labels.shape == (*shape, 1):
        labels = labels[..., 0]
    fits = len(labels.shape) == len(shape) and all(
        size == w or w is None for size, w in zip(labels.shape, shape, strict=True)
    )
    is_whole = labels.dtype.kind in "biuf" and bool(np.all(labels == np.floor(labels)))
    if not fits or not is_whole or not labels.size:
        raise ValueError(
            f"`data` must have class indices of shape {tuple(shape)} (or one-hot ones) as labels, "
            f"got {labels.dtype} of shape {labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`data` must have labels in 0..{classes - 1}, got {labels.min()}..{labels.max()}."
        )
    return labels.astype(np.int64)
