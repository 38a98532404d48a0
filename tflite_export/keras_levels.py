"""The levels that a quantized Keras model itself computes, in float32."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wrpn_tf.model_graph import ModelGraph, model_graph
from wrpn_tf.quantization import output_quantizer
from wrpn_tf.simulation.checks import check_images

_BATCH_SIZE = 64


def tensor_names(graph: ModelGraph) -> dict[int, str]:
    """Returns the rounded tensors of a quantized model: tensor key -> name.

    The name is the call's; the second call of a shared layer is `name:1`, the third `name:2`.
    """
    names = {}
    calls: collections.Counter[str] = collections.Counter()
    for call in graph.calls:
        if output_quantizer(call.layer) is not None:
            count = calls[call.name]
            names[call.outputs[0]] = f"{call.name}:{count}" if count else call.name
            calls[call.name] += 1
    return names


def keras_levels(model: Any, images: Any) -> dict[str, npt.NDArray[np.int32]]:
    """Returns the levels of every rounded tensor as Keras computes them: name -> integers.

    Args:
        model: A quantized model of either Keras.
        images: Its input, or inputs, batch first.

    Raises:
        TypeError, ValueError: As `wrpn_tf.simulation.simulate`, or if `model` is no Keras model.
    """
    graph = model_graph(model)
    names = tensor_names(graph)
    levels: dict[str, list[npt.NDArray[np.int32]]] = {name: [] for name in names.values()}
    for batch in _batches(check_images(graph, images)):
        for call, results in graph.walk(batch):
            if call.outputs[0] in names:
                quantizer, variables = output_quantizer(call.layer)
                result = np.asarray(results[0], np.float32)
                levels[names[call.outputs[0]]].append(quantizer.to_int(result, variables))
    return {name: np.concatenate(parts) for name, parts in levels.items()}


def _batches(
    arrays: Sequence[npt.NDArray[np.float32]],
) -> Iterator[list[npt.NDArray[np.float32]]]:
    for start in range(0, len(arrays[0]), _BATCH_SIZE):
        yield [array[start : start + _BATCH_SIZE] for array in arrays]
