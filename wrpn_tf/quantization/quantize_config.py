"""The `QuantizeConfig` that tells either wrapper how one layer is quantized.

It has tfmot's interface and does not import tfmot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wrpn_tf.quantization import quantizers as quantizers_lib
from wrpn_tf.quantization.quantize_registry import weight_name
from wrpn_tf.quantization.quantizers import Quantizer, WRPNWeightQuantizer


class WRPNQuantizeConfig:
    """Which weights of a layer are quantized and how its output is.

    It is accepted by `tfmot.quantization.keras.quantize_annotate_layer` as well.

    Args:
        weight_quantizers: Weight name (`"kernel"`, `"depthwise_kernel"`) -> quantizer; others stay
            float.
        output_quantizer: Rounds the layer's output; None leaves it as it is.
    """

    def __init__(
        self,
        weight_quantizers: Mapping[str, WRPNWeightQuantizer] | None = None,
        output_quantizer: Quantizer | None = None,
    ):
        self.weight_quantizers = dict(weight_quantizers or {})
        self.output_quantizer = output_quantizer

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Quantizer]]:
        """Returns the layer's quantized variables with their quantizers.

        Raises:
            ValueError: If the layer lacks one of the weights.
        """
        variables = {weight_name(variable): variable for variable in layer.weights}
        missing = sorted(set(self.weight_quantizers) - set(variables))
        if missing:
            raise ValueError(
                f"`weight_quantizers` must name weights of {layer.name!r} "
                f"({', '.join(variables)}), got {', '.join(missing)}."
            )
        return [(variables[name], q) for name, q in self.weight_quantizers.items()]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Quantizer]]:
        """Returns nothing: outputs are rounded, behind the activation."""
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: Sequence[Any]) -> None:
        """Puts quantized tensors in place of a layer's weights, as tfmot's wrapper asks."""
        for name, tensor in zip(self.weight_quantizers, quantize_weights, strict=True):
            setattr(layer, name, tensor)

    def set_quantize_activations(self, layer: Any, quantize_activations: Sequence[Any]) -> None:
        """Does nothing: see `get_activations_and_quantizers`."""
        del layer, quantize_activations  # AutoGraph cannot convert an empty body.

    def get_output_quantizers(self, layer: Any) -> list[Quantizer]:
        """Returns the output's quantizer, or nothing."""
        return [] if self.output_quantizer is None else [self.output_quantizer]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, quantizers as dictionaries."""
        return {
            "weight_quantizers": {
                name: quantizers_lib.serialize(q) for name, q in self.weight_quantizers.items()
            },
            "output_quantizer": quantizers_lib.serialize(self.output_quantizer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WRPNQuantizeConfig:
        """Returns the config that `get_config` describes."""
        return cls(
            {
                name: quantizers_lib.deserialize(q)
                for name, q in config["weight_quantizers"].items()
            },
            quantizers_lib.deserialize(config["output_quantizer"]),
        )
