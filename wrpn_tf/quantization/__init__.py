"""WRPN quantization of Keras models: quantizers, configs, and what puts them in place."""

from wrpn_tf.quantization.calibrate import calibrate
from wrpn_tf.quantization.finite_weights import check_finite_weights
from wrpn_tf.quantization.quantize_config import WRPNQuantizeConfig
from wrpn_tf.quantization.quantize_model import PAPER_RECIPE, quantize_model
from wrpn_tf.quantization.quantized_layers import (
    has_regions,
    inner_layer,
    is_quantized,
    is_region_map,
    output_quantizer,
    weight_quantizers,
)
from wrpn_tf.quantization.quantizers import (
    ObservedQuantizer,
    Quantizer,
    WRPNActivationQuantizer,
    WRPNWeightQuantizer,
)
from wrpn_tf.quantization.region_calibration import calibrate_regions
from wrpn_tf.quantization.region_insertion import apply_regions, drop_regions
from wrpn_tf.quantization.region_reading import region_maps, region_plan

__all__ = [
    "PAPER_RECIPE",
    "ObservedQuantizer",
    "Quantizer",
    "WRPNActivationQuantizer",
    "WRPNQuantizeConfig",
    "WRPNWeightQuantizer",
    "apply_regions",
    "calibrate",
    "calibrate_regions",
    "check_finite_weights",
    "drop_regions",
    "has_regions",
    "inner_layer",
    "is_quantized",
    "is_region_map",
    "output_quantizer",
    "quantize_model",
    "region_maps",
    "region_plan",
    "weight_quantizers",
]
