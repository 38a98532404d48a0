"""The Keras 3 layers that quantize: a wrapper around a layer, and a layer that rounds a tensor.

Both are found by `keras.saving.load_model` once `wrpn_tf` is imported.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import keras

from wrpn_tf.quantization import quantizers as quantizers_lib
from wrpn_tf.quantization.quantize_config import WRPNQuantizeConfig
from wrpn_tf.quantization.quantize_registry import relu_limit
from wrpn_tf.quantization.quantizers import Quantizer, WRPNActivationQuantizer


@keras.saving.register_keras_serializable("wrpn_tf")
class QuantizeWrapper(keras.layers.Wrapper):
    """Calls a layer with quantized weights and rounds its output.

    The layer's variables stay the latent float weights, which train; its attributes are never
    replaced: for the duration of a call, a `keras.StatelessScope` puts the quantized tensors in the
    variables' place.

    Args:
        layer: The layer.
        quantize_config: Which weights are quantized, and how the output is.
        **kwargs: A Keras layer's. The name defaults to tfmot's: `quant_` and the layer's.
    """

    def __init__(self, layer: keras.Layer, quantize_config: WRPNQuantizeConfig, **kwargs: Any):
        kwargs.setdefault("name", f"quant_{layer.name}")
        kwargs.setdefault("dtype", layer.dtype_policy)
        kwargs.setdefault("trainable", layer.trainable)  # a frozen layer's range does not train
        # The inner layer casts for itself, so that latent weights are read in float32.
        super().__init__(layer, autocast=False, **kwargs)
        self.quantize_config = quantize_config
        self.supports_masking = layer.supports_masking
        self._takes_training = "training" in inspect.signature(layer.call).parameters
        # Rounding to [0, range] clips as the ReLU does.
        self._is_redundant = relu_limit(layer) is not None and _clips_as_relu(
            relu_limit(layer), quantize_config.output_quantizer
        )
        self._output_quantizers: list[Quantizer] = []

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer and the quantizers' variables."""
        super().build(input_shape)
        self.weight_quantizer_vars = [
            quantizer.build(variable.shape, variable.name, self)
            for variable, quantizer in self.quantize_config.get_weights_and_quantizers(self.layer)
        ]
        self._output_quantizers = self.quantize_config.get_output_quantizers(self.layer)
        self.output_quantizer_vars = {
            name: variable
            for quantizer in self._output_quantizers
            for name, variable in quantizer.build(None, "output", self).items()
        }

    def call(self, inputs: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Returns the layer's output for quantized weights, rounded."""
        outputs = self._call_layer(inputs, training, kwargs)
        for quantizer in self._output_quantizers:
            outputs = quantizer(outputs, training, self.output_quantizer_vars)
        return outputs

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Returns the mask of the layer's output."""
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the layer's output shape."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "quantize_config": self.quantize_config.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> QuantizeWrapper:
        """Returns the wrapper that `get_config` describes."""
        config = dict(config)
        layer = keras.saving.deserialize_keras_object(config.pop("layer"), custom_objects)
        quantize_config = WRPNQuantizeConfig.from_config(config.pop("quantize_config"))
        return cls(layer, quantize_config, **config)

    def _call_layer(self, inputs: Any, training: bool | None, kwargs: dict[str, Any]) -> Any:
        if self._is_redundant and self._output_quantizers:
            return inputs
        if self._takes_training:
            kwargs = {**kwargs, "training": training}
        pairs = self.quantize_config.get_weights_and_quantizers(self.layer)
        if not pairs:
            return self.layer(inputs, **kwargs)
        values = {id(variable): variable.value for variable in self.layer.variables}
        for (variable, quantizer), own in zip(pairs, self.weight_quantizer_vars, strict=True):
            values[id(variable)] = quantizer(variable.value, training, own)
        mapping = [(variable, values[id(variable)]) for variable in self.layer.variables]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = self.layer(inputs, **kwargs)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs


@keras.saving.register_keras_serializable("wrpn_tf")
class QuantizeLayer(keras.layers.Layer):
    """Rounds a tensor: a model input, or the result of what cannot be wrapped.

    Args:
        quantizer: How it is rounded.
        **kwargs: A Keras layer's.
    """

    def __init__(self, quantizer: Quantizer, **kwargs: Any):
        super().__init__(**kwargs)
        self.quantizer = quantizer
        self.supports_masking = True
        self._output_quantizers = [quantizer]

    def build(self, input_shape: Any) -> None:
        """Builds the quantizer's variables."""
        self.output_quantizer_vars = self.quantizer.build(input_shape, "output", self)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the rounded tensor."""
        for quantizer in self._output_quantizers:
            inputs = quantizer(inputs, training, self.output_quantizer_vars)
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "quantizer": quantizers_lib.serialize(self.quantizer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuantizeLayer:
        """Returns the layer that `get_config` describes."""
        config = dict(config)
        return cls(quantizers_lib.deserialize(config.pop("quantizer")), **config)


def _clips_as_relu(limit: float, quantizer: Quantizer | None) -> bool:
    if not isinstance(quantizer, WRPNActivationQuantizer) or quantizer.signed:
        return False
    return limit == math.inf or (quantizer.max_range or math.inf) <= limit
