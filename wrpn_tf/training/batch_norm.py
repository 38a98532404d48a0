"""Statistics of batch norm that fit the weights as they are, not those of some steps ago.

A low-bit weight changes by a whole level or not at all: between one training step and the next a
network changes more than its float copy, and the moving averages of BatchNormalization lag behind.
They are measured again from data, as in Wu & Johnson, "Rethinking 'Batch' in BatchNorm" (arXiv
2105.07576, section 3), and, for networks of few bits, in Nagel et al., "Overcoming Oscillations in
Quantization-Aware Training" (arXiv 2203.11086).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from wrpn_tf.model_graph import LayerCall, ModelGraph, model_graph
from wrpn_tf.quantization import inner_layer
from wrpn_tf.quantization.input_batches import check_max_batches, checked_inputs, input_batches
from wrpn_tf.quantization.quantize_registry import Kind, kind_of
from wrpn_tf.training.distiller import trained_network
from wrpn_tf.training.flavored_callback import FlavoredCallback


def reestimate_batch_norm(
    model: Any, dataset: Any, *, max_batches: int | None = None, verbose: bool = True
) -> None:
    """Sets the moving mean and variance of each BatchNormalization, in place, from data.

    Runs the model layer by layer. Batch norm takes the statistics of the batch, as in training; all
    else works as in inference: nothing is dropped out, no activation range moves. Set are the mean
    and the variance of all examples together. Layers that are not trainable keep theirs.

    Args:
        model: A Functional or Sequential model of either Keras, quantized or not, or a Distiller,
            whose student is meant.
        dataset: Training examples as the model takes them, in a random order, in any form that
            `wrpn_tf.calibrate` takes.
        max_batches: Stop after so many batches; an array is one batch per 128 examples.
        verbose: Whether to show a progress bar.

    Raises:
        TypeError: If `model` is no Keras model, or `max_batches` no integer.
        ValueError: If it has no trainable BatchNormalization, `max_batches` is no positive number,
            or the data is empty, not finite, or of another shape than the model's inputs. The
            statistics are then as they were.
    """
    check_max_batches(max_batches)
    graph = model_graph(trained_network(model))
    moments = {id(norm): _Moments(norm) for norm in _trainable_norms(graph)}

    def apply(call: LayerCall, tensors: Mapping[int, Any]) -> Any:
        found = moments.get(id(inner_layer(call.layer)))
        if found is not None:
            call.invoke(found.observe, tensors)
        return call.invoke(call.layer, tensors)

    progress = graph.flavor.keras.utils.Progbar(
        max_batches, verbose=int(verbose), unit_name="batch"
    )
    with _kept_on_error(moments.values()):
        count = 0
        for count, batch in enumerate(input_batches(graph, dataset, max_batches), start=1):
            for _ in graph.walk(checked_inputs(graph, batch), apply):
                pass
            progress.update(count)
        if not count:
            raise ValueError("`dataset` must hold at least one batch, got none.")
        for found in moments.values():
            found.set_statistics()


class ReestimateBatchNorm(FlavoredCallback):
    """Calls `reestimate_batch_norm` in each epoch, before the validation.

    What `fit` then reports of the validation data, and what callbacks after this one save, has the
    statistics of its own weights. What training computes is the same with it and without.

    ```python
    callback = wrpn_tf.training.ReestimateBatchNorm(model, x_train)
    model.fit(x_train, y_train, validation_data=(x_test, y_test), callbacks=[callback])
    ```

    The result is a callback of the model's Keras.

    Args:
        model: The model that is trained, or a Distiller.
        dataset: As for `reestimate_batch_norm`; read again in each epoch.
        max_batches: How many batches are read; an array is one batch per 128 examples.

    Raises:
        TypeError: If `model` belongs to neither Keras, or `max_batches` is no integer.
        ValueError: If the model has no trainable BatchNormalization, `max_batches` is no positive
            number, or `dataset` cannot be read again.
    """

    def __init__(self, model: Any, dataset: Any, *, max_batches: int = 50):
        super().__init__()
        check_max_batches(max_batches)
        _trainable_norms(model_graph(trained_network(model)))
        if isinstance(dataset, Iterator):
            raise ValueError(
                "`dataset` must be an array or an iterable that starts again in each epoch, got "
                f"the iterator {type(dataset).__name__}."
            )
        self._network = model
        self._dataset = dataset
        self._max_batches = max_batches
        self._is_due = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Weights will change."""
        del epoch, logs
        self._is_due = True

    def on_test_begin(self, logs: Any = None) -> None:
        """Before the validation of an epoch."""
        del logs
        self._reestimate()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """After an epoch without validation."""
        del epoch, logs
        self._reestimate()

    def _reestimate(self) -> None:
        if self._is_due:
            reestimate_batch_norm(
                self._network, self._dataset, max_batches=self._max_batches, verbose=False
            )
            self._is_due = False


class _Moments:
    """The mean and the mean square of what a BatchNormalization reads."""

    def __init__(self, norm: Any):
        self._norm = norm
        self._kept = self._statistics()
        self._count = 0
        self._sum: Any = 0.0
        self._sum_of_squares: Any = 0.0

    def observe(self, inputs: Any, **_: Any) -> None:
        """Takes a batch; leaves the layer with the batch's own statistics."""
        momentum = self._norm.momentum
        self._norm.momentum = 0.0
        try:
            self._norm(inputs, training=True)
        finally:
            self._norm.momentum = momentum
        mean, variance = self._statistics()
        if not np.isfinite(mean).all() or not np.isfinite(variance).all():
            raise ValueError(
                "`dataset` must give finite values in the whole model, got NaN or infinity before "
                f"{self._norm.name!r}."
            )
        if getattr(self._norm, "fused", False):
            # tf_keras' kernel of images divides by n - 1.
            size = math.prod(inputs.shape) // mean.size
            variance *= (size - 1) / size
        count = inputs.shape[0]
        self._count += count
        self._sum += count * mean
        self._sum_of_squares += count * (variance + mean**2)

    def set_statistics(self) -> None:
        """Gives the layer those of all batches."""
        mean = self._sum / self._count
        variance = np.maximum(self._sum_of_squares / self._count - mean**2, 0)
        self._assign(mean, variance)

    def restore(self) -> None:
        """Gives the layer those that it had."""
        self._assign(*self._kept)

    def _statistics(self) -> tuple[Any, Any]:
        norm = self._norm
        return tuple(np.asarray(v, np.float64) for v in (norm.moving_mean, norm.moving_variance))

    def _assign(self, mean: Any, variance: Any) -> None:
        self._norm.moving_mean.assign(mean)
        self._norm.moving_variance.assign(variance)


def _trainable_norms(graph: ModelGraph) -> list[Any]:
    """Returns the layers whose statistics training moves.

    Raises:
        ValueError: If there are none.
    """
    layers = {id(layer): layer for layer in map(inner_layer, graph.layers().values())}
    norms = [x for x in layers.values() if kind_of(x) is Kind.BATCH_NORM and x.trainable]
    if not norms:
        raise ValueError(
            "`model` must have a BatchNormalization that is trainable, got none in "
            f"{graph.model.name!r}."
        )
    return norms


@contextlib.contextmanager
def _kept_on_error(moments: Iterable[_Moments]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for found in moments:
            found.restore()
        raise
