"""A callback that warns of layers that quantization has put out of work, and says what helps."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from wrpn_tf.quantization import Quantizer, WRPNActivationQuantizer, WRPNWeightQuantizer
from wrpn_tf.training.flavored_callback import FlavoredCallback
from wrpn_tf.training.monitor_values import Probe, check_quantized_model, weight_values

_ZEROS = "nearly all weights are 0"
_CLIPPED = "nearly all outputs are clipped to an end of their range"


@dataclasses.dataclass(frozen=True)
class _Finding:
    """A layer to warn of."""

    layer: str
    num_bits: int
    share: float
    advice: str


class WarnOnDeadZone(FlavoredCallback):
    """Warns, once for each layer, of weights that are nearly all 0 and outputs nearly all clipped.

    Weights inside the dead zone, abs(w) < step / 2, round to 0; a layer of such weights passes
    neither signal nor gradient, so that training does not bring it back. Outputs beyond the range
    clip to one level and get no gradient. The warning names the layers, their bits and the share,
    and says what to do.

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
        self._warn("Before training", _ZEROS, self._dead_weights())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks at the weights and the outputs."""
        del logs
        when = f"After epoch {epoch + 1}"
        self._warn(when, _ZEROS, self._dead_weights())
        if self._probe is not None:
            self._warn(when, _CLIPPED, self._saturated_outputs(self._probe))

    def _dead_weights(self) -> Iterator[_Finding]:
        for weight in weight_values(self._graph):
            if weight.zero_share > self.limit:
                advice = _advice_on_weights(weight.quantizer)
                yield _Finding(weight.name, weight.quantizer.num_bits, weight.zero_share, advice)

    def _saturated_outputs(self, probe: Probe) -> Iterator[_Finding]:
        for output in probe.outputs()[0]:
            if output.saturation > self.limit:
                advice = _advice_on_outputs(output.quantizer)
                yield _Finding(output.layer, output.quantizer.num_bits, output.saturation, advice)

    def _warn(self, when: str, what: str, findings: Iterable[_Finding]) -> None:
        """Warns of the layers that are found for the first time, once for each advice."""
        by_advice: dict[str, list[str]] = {}
        for found in findings:
            if (what, found.layer) not in self._warned:
                self._warned.add((what, found.layer))
                layer = f"{found.layer!r} ({found.num_bits} bits, {found.share:.1%})"
                by_advice.setdefault(found.advice, []).append(layer)
        for advice, layers in by_advice.items():
            warnings.warn(f"{when}, {what} in {', '.join(layers)}. {advice}", stacklevel=2)


def _advice_on_weights(quantizer: WRPNWeightQuantizer) -> str:
    change = f'`weight_scale="mean"` instead of {quantizer.weight_scale!r}'
    if quantizer.weight_scale == "mean":
        change = '`weight_scale="mean_per_channel"`'
    return (
        f"They pass hardly any signal or gradient. Quantize with {change}, or with more bits; "
        "`overrides` of `wrpn_tf.quantize_model` does so for single layers."
    )


def _advice_on_outputs(quantizer: Quantizer) -> str:
    calibrate = "set ranges from data by `wrpn_tf.calibrate(model, images)`"
    if isinstance(quantizer, WRPNActivationQuantizer) and not quantizer.learned:
        return (
            'Quantize with a larger `activation_range` or with `activation_range="learned"`, or '
            f"{calibrate}."
        )
    return f"Before training, {calibrate}."
