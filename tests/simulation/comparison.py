"""Keras, layer by layer, against the levels of a simulation."""

from __future__ import annotations

import dataclasses

import numpy as np

from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import output_quantizer
from wrpn_tf.quantization.quantized_layers import unrounded


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How Keras' levels and the simulation's differ.

    Attributes:
        names: The rounded tensors, in order.
        num_levels: Levels compared.
        num_different: Levels that differ.
        from_tie: How far the differing values lie from halfway between two levels, at most, in
            levels.
        largest_difference: In levels.
        num_ties: Levels whose value before the rounding lies exactly halfway in Keras.
    """

    names: tuple[str, ...]
    num_levels: int
    num_different: int
    from_tie: float
    largest_difference: int
    num_ties: int


def compare(model, images, simulation) -> Comparison:
    """Runs each layer in Keras on the simulation's levels of the tensors before it.

    So a level that float32 rounds otherwise is counted once, and not with all that follows from it.
    """
    graph = model_graph(model)
    inputs = graph.flatten(images)
    tensors = {k: np.asarray(x, np.float32) for k, x in zip(graph.inputs, inputs, strict=True)}
    names, sizes, ties, distances, differences = [], 0, 0, [0.0], [0]
    for call in graph.calls:
        with unrounded(call.layer):
            (output,) = graph.flatten(call.invoke(call.layer, tensors))
        (key,) = call.outputs
        tensors[key] = output
        if output_quantizer(call.layer) is None:
            continue
        quantizer, variables = output_quantizer(call.layer)
        repeats = [name.partition(":")[0] for name in names].count(call.name)
        names.append(f"{call.name}:{repeats}" if repeats else call.name)
        levels = simulation.levels[names[-1]]
        expected = quantizer.to_int(np.asarray(output), variables)
        assert levels.shape == expected.shape, names[-1]
        in_levels = np.asarray(output, np.float64) / float(quantizer.scale(variables))
        to_tie = np.abs(in_levels - np.floor(in_levels) - 0.5)
        differing = levels != expected
        sizes += levels.size
        ties += int((to_tie == 0).sum())
        distances += to_tie[differing].tolist()
        differences += np.abs(levels - expected)[differing].tolist()
        tensors[key] = quantizer.scale(variables) * levels.astype(np.float32)
    return Comparison(
        names=tuple(names),
        num_levels=sizes,
        num_different=len(differences) - 1,
        from_tie=max(distances),
        largest_difference=max(differences),
        num_ties=ties,
    )
