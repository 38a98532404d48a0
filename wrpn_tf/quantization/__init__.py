"""WRPN quantization of Keras models: quantizers, configs, and what puts them in place."""

from wrpn_tf.quantization.calibrate import calibrate
from wrpn_tf.quantization.quantize_config import WRPNQuantizeConfig
from wrpn_tf.quantization.quantize_model import PAPER_RECIPE, quantize_model
from wrpn_tf.quantization.quantized_layers import (
    inner_layer,
    is_quantized,
    output_quantizer,
    weight_quantizers,
)
from wrpn_tf.quantization.quantizers import (
    ObservedQuantizer,
    Quantizer,
    WRPNActivationQuantizer,
    WRPNWeightQuantizer,
)

__all__ = [
    "PAPER_RECIPE",
    "ObservedQuantizer",
    "Quantizer",
    "WRPNActivationQuantizer",
    "WRPNQuantizeConfig",
    "WRPNWeightQuantizer",
    "calibrate",
    "inner_layer",
    "is_quantized",
    "output_quantizer",
    "quantize_model",
    "weight_quantizers",
]
