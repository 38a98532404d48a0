"""A callback that shows in TensorBoard what quantization does to a network while it trains."""

from __future__ import annotations

import os
from typing import Any

from wrpn_tf.training.flavored_callback import TensorBoardCallback
from wrpn_tf.training.monitor_values import Probe, check_quantized_model, weight_values

_LOSSES = ("loss", "teacher_loss", "student_loss", "distillation_loss")


class QuantizationTensorBoard(TensorBoardCallback):
    """Writes the state of a network's quantized values for TensorBoard, at the end of epochs.

    Scalars:
        weight_bits/LAYER: Bits of the layer's weights.
        weight_zeros/LAYER: The share of its quantized weights that are 0. Near 1 the layer is dead:
            it passes neither signal nor gradient.
        activation_bits/LAYER: Bits of the layer's rounded outputs.
        saturation/LAYER: The share of its outputs for `images` that are clipped: at the highest
            level, or where they are signed at the lowest.
        quantization_gap: The mean absolute difference, for `images`, between the model's outputs
            and those of the same model with its latent float weights and no tensor rounded.
        loss, teacher_loss, student_loss, distillation_loss, and with val_: The parts of the loss
            that the epoch reports; the last three are a Distiller's.

    They are a run of their own, `log_dir`/quantization, beside those of Keras' `TensorBoard`
    callback. Layers go by their own names, without `quant_`. `WarnOnDeadZone` says in words which
    layers are lost.

    ```python
    model = wrpn_tf.quantize_model(float_model)
    model.compile("adam", "sparse_categorical_crossentropy")
    monitor = wrpn_tf.training.QuantizationTensorBoard(model, "logs", x_test[:32])
    model.fit(x, y, callbacks=[monitor])
    ```

    The result is a callback of the model's Keras.

    Args:
        model: The quantized model that is trained, or a Distiller of one.
        log_dir: The folder of the logs, as of Keras' `TensorBoard`.
        images: Some examples, as the model takes them; all are one batch.
        freq: Write after every so many epochs.

    Raises:
        TypeError: If `model` belongs to neither Keras.
        ValueError: If nothing in it is quantized, the images do not fit it, or `freq` is no
            positive whole number.
        ImportError: If TensorBoard is not installed: TensorFlow writes no summaries without it.
    """

    def __init__(self, model: Any, log_dir: str | os.PathLike, images: Any, *, freq: int = 1):
        super().__init__(os.path.join(log_dir, "quantization"), freq)
        self._graph = check_quantized_model(model)
        self._probe = Probe(self._graph, images)

    def write(self, summary: Any, logs: dict[str, Any]) -> None:
        """Writes the scalars of one epoch."""
        for weight in weight_values(self._graph):
            summary.scalar(f"weight_bits/{weight.name}", weight.quantizer.num_bits)
            summary.scalar(f"weight_zeros/{weight.name}", weight.zero_share)
        outputs, gap = self._probe.outputs()
        for output in outputs:
            summary.scalar(f"activation_bits/{output.layer}", output.quantizer.num_bits)
            summary.scalar(f"saturation/{output.layer}", output.saturation)
        summary.scalar("quantization_gap", gap)
        for name, value in logs.items():
            if name.removeprefix("val_") in _LOSSES:
                summary.scalar(name, value)
