"""Inputs from data, batch by batch, in every form in which a Keras model takes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from keras import ops

from wrpn_tf.model_graph import ModelGraph, Shape

_BATCH_SIZE = 128


def check_max_batches(max_batches: int | None) -> None:
    """Checks a number of batches; None is any number.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is not positive.
    """
    if max_batches is None:
        return
    if isinstance(max_batches, bool) or not isinstance(max_batches, int):
        raise TypeError(f"`max_batches` must be an integer, got {max_batches!r}.")
    if max_batches < 1:
        raise ValueError(f"`max_batches` must be at least 1, got {max_batches}.")


def input_batches(graph: ModelGraph, dataset: Any, max_batches: int | None) -> Iterator[Any]:
    """Yields the inputs of each batch.

    Args:
        graph: The model's graph.
        dataset: All examples: an array, for a model of several inputs a list of arrays, or a
            dictionary of them by the inputs' names. Or an iterable of batches, each of the same
            forms; of tuples, the first entry counts.
        max_batches: Stop after so many; arrays are cut into batches of 128 examples.

    Raises:
        ValueError: If `dataset` is none of these, or its arrays have different lengths.
    """
    examples = _examples(graph, dataset)
    if examples is not None:
        dataset = _cut(examples)
    elif isinstance(dataset, str) or not isinstance(dataset, Iterable):
        raise ValueError(
            f"`dataset` must be an array or an iterable of batches, got {type(dataset).__name__}."
        )
    for batch in itertools.islice(dataset, max_batches):
        yield batch[0] if isinstance(batch, tuple) else batch


def _examples(graph: ModelGraph, dataset: Any) -> list[Any] | None:
    """The arrays of all examples, one for each input, or None where a dataset is of batches."""
    if _is_array(dataset):
        return [dataset]
    if isinstance(dataset, Mapping):
        return graph.flatten_inputs(dataset)
    is_of_arrays = isinstance(dataset, (list, tuple)) and all(map(_is_array, dataset))
    return list(dataset) if is_of_arrays and len(graph.inputs) > 1 else None


def _cut(examples: list[Any]) -> Iterator[list[Any]]:
    lengths = [len(array) for array in examples]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"`dataset` must have equally many examples for each input, got {lengths}."
        )
    for start in range(0, max(lengths, default=0), _BATCH_SIZE):
        yield [array[start : start + _BATCH_SIZE] for array in examples]


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "__getitem__")


def checked_inputs(graph: ModelGraph, batch: Any) -> list[Any]:
    """Returns the flattened inputs of one batch, in the types that the model takes, as `fit` does.

    Raises:
        ValueError: If they do not fit the model.
    """
    inputs = graph.flatten_inputs(batch)
    if len(inputs) != len(graph.inputs):
        raise ValueError(
            f"`dataset` must give {len(graph.inputs)} inputs per batch, got {len(inputs)}."
        )
    for key, value in zip(graph.inputs, inputs, strict=True):
        _check_shape(np.shape(value), graph.shapes[key])
    return [
        value if graph.dtypes[key] == "string" else ops.cast(value, graph.dtypes[key])
        for key, value in zip(graph.inputs, inputs, strict=True)
    ]


def _check_shape(shape: tuple[int, ...], wanted: Shape) -> None:
    """tf_keras itself takes any shape here, and a kernel of TensorFlow may end the process."""
    fits = len(shape) == len(wanted) and all(
        size == w or w is None for size, w in zip(shape[1:], wanted[1:], strict=True)
    )
    if not fits or not shape[0]:
        raise ValueError(
            f"`dataset` must give inputs of shape {wanted}, at least one per batch, got {shape}."
        )
