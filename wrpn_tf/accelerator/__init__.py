"""A model of the paper's 2-bit x 8-bit systolic accelerator, in integers. Knows only NumPy."""

from wrpn_tf.accelerator.activation_energy import (
    ENERGY_MODELS,
    ActivationCost,
    activation_costs,
    uniform_costs,
    window_costs,
)
from wrpn_tf.accelerator.bit_planes import bit_planes, num_planes
from wrpn_tf.accelerator.bit_serial import (
    ConvolutionShape,
    WindowSums,
    bit_operations,
    group_bit_operations,
    serial_cycles,
    window_sums,
)
from wrpn_tf.accelerator.convolution import conv2d, dense, depthwise_conv2d
from wrpn_tf.accelerator.engines import Registers, StepByStep
from wrpn_tf.accelerator.image_costs import ImageCosts, LayerCosts
from wrpn_tf.accelerator.image_statistics import Distribution, distribution
from wrpn_tf.accelerator.processing_element import ProcessingElement, ternary_product
from wrpn_tf.accelerator.requantizer import Requantizer, requantize
from wrpn_tf.accelerator.scale_sim_csv import from_gemm_csv, to_gemm_csv
from wrpn_tf.accelerator.systolic_array import SystolicArray
from wrpn_tf.accelerator.timing import Dataflow, Mode
from wrpn_tf.accelerator.trace import Gemm, Trace, Traffic
from wrpn_tf.accelerator.transposed_convolution import conv2d_transpose

__all__ = [
    "ENERGY_MODELS",
    "ActivationCost",
    "ConvolutionShape",
    "Dataflow",
    "Distribution",
    "Gemm",
    "ImageCosts",
    "LayerCosts",
    "Mode",
    "ProcessingElement",
    "Registers",
    "Requantizer",
    "StepByStep",
    "SystolicArray",
    "Trace",
    "Traffic",
    "WindowSums",
    "activation_costs",
    "bit_operations",
    "bit_planes",
    "conv2d",
    "conv2d_transpose",
    "dense",
    "depthwise_conv2d",
    "distribution",
    "from_gemm_csv",
    "group_bit_operations",
    "num_planes",
    "requantize",
    "serial_cycles",
    "ternary_product",
    "to_gemm_csv",
    "uniform_costs",
    "window_costs",
    "window_sums",
]
