"""A callback that warns of layers that quantization has put out of work, and says what helps."""

from __future__ import annotations

import warnings
from typing import Any

from wrpn_tf.quantization import WRPNActivationQuantizer
from wrpn_tf.training.flavored_callback import FlavoredCallback
from wrpn_tf.training.monitor_values import (
    OutputValues,
    Probe,
    WeightValues,
    check_quantized_model,
    weight_values,
)


class WarnOnDeadZone(FlavoredCallback):
    """Warns, once for each layer, of weights that are nearly all 0 and outputs nearly all clipped.

    Weights inside the dead zone, abs(w) < step / 2, round to 0; a layer of such weights passes
    neither signal nor gradient, so that training does not bring it back. Outputs beyond the range
    clip to one level and get no gradient. The warning names the layer, and what to do.

    Weights are looked at before the first step and after each epoch, outputs after each epoch.
    TensorBoard is not needed; `QuantizationTensorBoard` writes the same shares there.

    ```python
    model = wrpn_tf.quantize_model(float_model, weight_scale="none")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, callbacks=[wrpn_tf.training.WarnOnDeadZone(model, x[:32])])
    ```

    The result is a callback of the model's Keras.

    Args:
        model: The quantized model that is trained, or a Distiller of one.
        images: Some examples, as the model takes them, for the outputs; None: only weights are
            looked at.
        limit: The share above which to warn, in (0, 1).

    Raises:
        TypeError: If `model` belongs to neither Keras.
        ValueError: If nothing in it is quantized, the images do not fit it, or `limit` is out of
            range.

    Source: the dead zone follows from WRPN's grid (arXiv 1709.01134, section 5): at 2 bits with the
        paper's scale, 1, every weight below 1/2 is 0.
    """

    def __init__(self, model: Any, images: Any = None, *, limit: float = 0.95):
        super().__init__()
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < 1:
            raise ValueError(f"`limit` must be a number in (0, 1), got {limit!r}.")
        self.limit = limit
        self._graph = check_quantized_model(model)
        self._probe = None if images is None else Probe(self._graph, images)
        self._warned: set[tuple[str, str]] = set()

    def on_train_begin(self, logs: Any = None) -> None:
        """Looks at the weights: most dead layers are dead from the start."""
        del logs
        self._check_weights("before training")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks at the weights and the outputs."""
        del logs
        when = f"after epoch {epoch + 1}"
        self._check_weights(when)
        if self._probe is not None:
            for output in self._probe.outputs()[0]:
                if output.saturation > self.limit:
                    self._warn("outputs", output.layer, _saturated(output, when))

    def _check_weights(self, when: str) -> None:
        for weight in weight_values(self._graph):
            if weight.zero_share > self.limit:
                self._warn("weights", weight.name, _dead(weight, when))

    def _warn(self, what: str, name: str, message: str) -> None:
        if (what, name) not in self._warned:
            self._warned.add((what, name))
            warnings.warn(message, stacklevel=2)


def _dead(weight: WeightValues, when: str) -> str:
    quantizer = weight.quantizer
    if quantizer.weight_scale == "mean":
        advice = 'Give the layer more bits, or `weight_scale="mean_per_channel"`'
    else:
        advice = (
            f'Quantize with `weight_scale="mean"` instead of {quantizer.weight_scale!r}, or give '
            "the layer more bits"
        )
    return (
        f"Layer {weight.name!r}, {when}: {weight.zero_share:.1%} of its {quantizer.num_bits}-bit "
        f"weights are 0, so that it passes hardly any signal or gradient. {advice}: `overrides` of "
        "`wrpn_tf.quantize_model` does so for one layer."
    )


def _saturated(output: OutputValues, when: str) -> str:
    calibrate = "set ranges from data by `wrpn_tf.calibrate(model, images)`"
    advice = f"Before training, {calibrate}"
    if isinstance(output.quantizer, WRPNActivationQuantizer) and not output.quantizer.learned:
        advice = f'Quantize with a larger `activation_range` or with "learned", or {calibrate}'
    return (
        f"Layer {output.layer!r}, {when}: {output.saturation:.1%} of its "
        f"{output.quantizer.num_bits}-bit outputs are clipped to the end of their range. {advice}."
    )
