"""Activation ranges from data: pretrained nets and nets without batch norm need them."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from wrpn_tf.model_graph import LayerCall, ModelGraph, model_graph
from wrpn_tf.quantization.finite_weights import check_finite_weights
from wrpn_tf.quantization.input_batches import check_max_batches, checked_inputs, input_batches
from wrpn_tf.quantization.quantize_registry import Kind, kind_of
from wrpn_tf.quantization.quantized_layers import inner_layer, output_quantizer, unrounded
from wrpn_tf.quantization.range_observer import RangeObserver


def calibrate(
    model: Any,
    dataset: Any,
    *,
    method: Literal["mse", "percentile", "max"] = "mse",
    percentile: float = 99.99,
    max_batches: int | None = None,
    verbose: bool = True,
) -> None:
    """Sets the ranges of a quantized model's activation quantizers, in place, from what data shows.

    Runs the model layer by layer with quantized weights and unrounded activations, and collects a
    histogram of each rounded tensor. Inputs and logits get their extremes, all others what `method`
    says. Learned ranges train on from there.

    The ranges fit the network in inference. Before training from random weights, leave them as they
    are: the statistics of batch norm, and with them all ranges, are still to come. A warning says
    so where no BatchNormalization has any.

    Args:
        model: A model from `quantize_model` or `widen_and_quantize`.
        dataset: Inputs: an array of examples (for several inputs a list of them, or a dictionary by
            name), or an iterable of batches (`tf.data.Dataset`); of tuples, the first entry counts.
        method: `"mse"`: the range that rounds with the least mean squared error; `"percentile"`:
            the range that holds that share of the values; `"max"`: all of them.
        percentile: For `"percentile"`, in (0, 100].
        max_batches: Stop after so many batches; an array is one batch per 128 examples.
        verbose: Whether to show a progress bar.

    Raises:
        TypeError: If `model` is no Keras model, or `max_batches` no integer.
        ValueError: If it has no activation quantizers, or weights that are NaN or infinite; if an
            argument is out of range, or the data is empty, not finite, or of another shape than
            the model's inputs.
    """
    _check_arguments(method, percentile, max_batches)
    graph = model_graph(model)
    check_finite_weights(graph)
    found = {path: output_quantizer(layer) for path, layer in graph.layers().items()}
    quantizers = {path: pair for path, pair in found.items() if pair is not None}
    # By layer: all calls of a shared one have one range.
    observers = {path: RangeObserver() for path in quantizers}
    if not observers:
        raise ValueError("`model` must have activation quantizers, got a model without any.")
    batches = input_batches(graph, dataset, max_batches)
    progress = graph.flavor.keras.utils.Progbar(
        max_batches, verbose=int(verbose), unit_name="batch"
    )
    count = 0
    for count, batch in enumerate(batches, start=1):
        _observe(graph, batch, observers)
        progress.update(count)
    if not count:
        raise ValueError("`dataset` must hold at least one batch, got none.")
    for path, observer in observers.items():
        observer.set_range(*quantizers[path], method, percentile)
    _warn_of_new_statistics(graph)


def _warn_of_new_statistics(graph: ModelGraph) -> None:
    layers = map(inner_layer, graph.layers().values())
    norms = [layer for layer in layers if kind_of(layer) is Kind.BATCH_NORM]
    if norms and all(
        (norm.moving_mean.numpy() == 0).all() and (norm.moving_variance.numpy() == 1).all()
        for norm in norms
    ):
        warnings.warn(
            f"Each BatchNormalization of `model` ({len(norms)}) has the mean 0 and the variance 1 "
            "that it was made with. In training it takes other ones, which these ranges do not "
            "fit, so that deep networks diverge. Train first, or call "
            "`wrpn_tf.reestimate_batch_norm(model, dataset)` and calibrate again.",
            stacklevel=3,
        )


def _check_arguments(method: str, percentile: float, max_batches: int | None) -> None:
    if method not in ("mse", "percentile", "max"):
        raise ValueError(f'`method` must be "mse", "percentile" or "max", got {method!r}.')
    if not isinstance(percentile, numbers.Real) or not 0 < percentile <= 100:
        raise ValueError(f"`percentile` must be in (0, 100], got {percentile!r}.")
    check_max_batches(max_batches)


def _observe(graph: ModelGraph, batch: Any, observers: dict[str, RangeObserver]) -> None:
    """Runs one batch, unrounded, and shows each rounded tensor to its observer."""
    for call, results in graph.walk(checked_inputs(graph, batch), _call_unrounded):
        if call.path in observers:
            observers[call.path].observe(np.asarray(results[0], np.float32), call.path)


def _call_unrounded(call: LayerCall, tensors: Mapping[int, Any]) -> Any:
    with unrounded(call.layer):
        return call.invoke(call.layer, tensors)
