"""A callback that quantizes weights step by step, while the network trains."""

from __future__ import annotations

from typing import Any

from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import blend_variables
from wrpn_tf.training.flavored_callback import FlavoredCallback


class GradualQuantization(FlavoredCallback):
    """Turns weights from float to quantized over the first epochs of `fit`.

    In epoch e (from 0) training steps compute with w + b (w_k - w), w_k being the quantized weights
    w and b = min(1, e / epochs). The network is trained before its weights are coarse, at no cost
    in epochs. On CIFAR-10, where `epochs` was 80 % of all, 2-bit ResNets were no better for it. Let
    some epochs remain in which the weights are quantized throughout, and measure batch norm's
    statistics again (`wrpn_tf.reestimate_batch_norm`) at the end.

    Inference, and so `evaluate`, validation and export, takes quantized weights at any time; after
    `fit` training steps do, too. While b is small, batch norm's statistics do not fit these: early
    validation says little, also with `ReestimateBatchNorm`.

    ```python
    student = wrpn_tf.widen_and_quantize(model, gradual=True)
    callback = wrpn_tf.training.GradualQuantization(student, epochs=24)
    student.fit(x_train, y_train, epochs=30, callbacks=[callback])
    ```

    The result is a callback of the model's Keras.

    Args:
        model: The model that is trained, quantized with `gradual=True`, or its Distiller.
        epochs: In how many epochs b grows from 0 to 1.

    Raises:
        TypeError: If the model belongs to neither Keras, or `epochs` is no integer.
        ValueError: If `epochs` is not positive, or the model was quantized without `gradual=True`.

    Source: Liu & Mattina, "Learning low-precision neural networks without Straight-Through
    Estimator (STE)", arXiv 1903.01061, where b is called alpha and weights have no other gradient.
    """

    def __init__(self, model: Any, epochs: int):
        super().__init__()
        if isinstance(epochs, bool) or not isinstance(epochs, int):
            raise TypeError(f"`epochs` must be an integer, got {epochs!r}.")
        if epochs < 1:
            raise ValueError(f"`epochs` must be at least 1, got {epochs}.")
        network = getattr(model, "student", model)
        layers = model_graph(network).layers().values()
        self._variables = [each for layer in layers for each in blend_variables(layer)]
        if not self._variables:
            raise ValueError(
                f"`model` must be quantized with `gradual=True`, got {network.name!r}, which was "
                "not."
            )
        self._num_epochs = epochs

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets b for the epoch."""
        del logs
        self._set(min(1.0, epoch / self._num_epochs))

    def on_train_end(self, logs: Any = None) -> None:
        """Quantizes throughout, also where training was stopped early."""
        del logs
        self._set(1.0)

    def _set(self, blend: float) -> None:
        for variable in self._variables:
            variable.assign(blend)
