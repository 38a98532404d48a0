"""`calibrate_regions`: thresholds of importance from data, for a target of mean activation bits."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization.input_batches import checked_inputs, input_batches
from wrpn_tf.quantization.region_reading import region_layers, region_maps
from wrpn_tf.regions.ranks import target_shares

_HALVINGS = 20  # of the interval that holds the thresholds' place
_TOLERANCE = 0.02  # of the target, before a warning


def calibrate_regions(
    model: Any, dataset: Any, *, max_batches: int | None = None, verbose: bool = True
) -> float:
    """Sets the thresholds of a model with `target_bits`, so that images like these reach it.

    Args:
        model: A model of `apply_regions` or with `region_precision`, whose rule is `target_bits`.
        dataset: Inputs, as for `wrpn_tf.calibrate`; some hundred images do. Their maps are kept in
            memory.
        max_batches: Stop after so many batches; an array is one batch per 128 examples.
        verbose: Whether to show a progress bar.

    Returns:
        The mean activation bits over these images with the new thresholds.

    Raises:
        TypeError: If `model` is no Keras model, or `max_batches` no integer.
        ValueError: If it has no regions or no target, an argument is out of range, or the data is
            empty.
    """
    _, layer = region_layers(model)
    if layer.thresholds is None:
        raise ValueError(
            "`model` must have regions with `target_bits`, got ones whose rule is "
            f"`{layer.rule.kind}`: nothing is to be found from data."
        )
    maps = region_maps(model)
    graph = model_graph(model)
    progress = graph.flavor.keras.utils.Progbar(
        max_batches, verbose=int(verbose), unit_name="batch"
    )
    importance = []
    for count, batch in enumerate(input_batches(graph, dataset, max_batches), start=1):
        (images,) = checked_inputs(graph, batch)
        importance.append(np.asarray(maps(images, training=False)["importance"]))
        progress.update(count)
    if not importance:
        raise ValueError("`dataset` must hold at least one batch, got none.")
    thresholds, reached = _search(layer, importance)
    layer.thresholds.assign(thresholds)
    (target,) = layer.rule.values
    if abs(reached - target) > _TOLERANCE * target:
        warnings.warn(
            f"The nearest to `target_bits` = {target:g} that thresholds reach on these images is "
            f"{reached:.2f}: importance takes too few values. Try another metric.",
            stacklevel=2,
        )
    return reached


def _search(
    layer: Any, importance: list[npt.NDArray[np.float32]]
) -> tuple[npt.NDArray[np.float32], float]:
    """Halves the interval of places between lowest and full bits until the mean is the target."""
    (target,) = layer.rule.values
    values = np.sort(np.concatenate([batch.ravel() for batch in importance]))
    count = len(layer.plan.reads[0].bits)

    def thresholds_at(place: float) -> npt.NDArray[np.float32]:
        shares = target_shares(place, 0.0, 1.0, count)
        return np.float32([values[int(share * (len(values) - 1))] for share in shares])

    def mean_bits(thresholds: npt.NDArray[np.float32]) -> float:
        bits = [layer.ranks(ops.convert_to_tensor(x), thresholds)[-1] for x in importance]
        return float(np.concatenate([np.asarray(x) for x in bits]).mean())

    low, high = 0.0, 1.0
    tried = []
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        thresholds = thresholds_at(middle)
        reached = mean_bits(thresholds)
        tried.append((abs(reached - target), reached, thresholds))
        low, high = (middle, high) if reached < target else (low, middle)
    _, reached, thresholds = min(tried, key=lambda entry: entry[0])
    return thresholds, reached
