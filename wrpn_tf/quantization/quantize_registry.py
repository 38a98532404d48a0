"""Which layers the package knows: where their kernels are, what passes values through, what rounds.

By class name, the same in both Keras; a user's subclass counts as its Keras base.
"""

from __future__ import annotations

import enum
import math
from typing import Any

from wrpn_tf.keras_flavor import keras_class

# Layers with kernels -> axes of the kernel that index output channels.
_KERNEL_LAYERS = {
    "Dense": (-1,),
    "Conv1D": (-1,),
    "Conv2D": (-1,),
    "Conv3D": (-1,),
    "DepthwiseConv1D": (-2, -1),
    "DepthwiseConv2D": (-2, -1),
    "Conv1DTranspose": (-2,),
    "Conv2DTranspose": (-2,),
    "Conv3DTranspose": (-2,),
    "EinsumDense": None,  # by its equation
}
SEPARABLE_LAYERS = ("SeparableConv1D", "SeparableConv2D")
KERNEL_NAMES = ("kernel", "depthwise_kernel")

# Every output value is an input value, or 0: what was on a grid stays on it.
_PASS_THROUGH_LAYERS = frozenset(
    [
        "Dropout",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
        "GaussianDropout",
        "GaussianNoise",
        "AlphaDropout",
        "ActivityRegularization",
        "Identity",
        "Masking",
        "Flatten",
        "Reshape",
        "Permute",
        "RepeatVector",
        "ZeroPadding1D",
        "ZeroPadding2D",
        "ZeroPadding3D",
        "Cropping1D",
        "Cropping2D",
        "Cropping3D",
        "MaxPooling1D",
        "MaxPooling2D",
        "MaxPooling3D",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
        "GlobalMaxPooling3D",
        "UpSampling1D",
        "UpSampling3D",
        "SlicingOpLambda",
        "GetItem",
        "Squeeze",
        "ExpandDims",
        "Transpose",
    ]
)
# Layers that make a network's input of an image; elsewhere their results are rounded.
_PREPROCESSING_LAYERS = frozenset(["CenterCrop", "Normalization", "Rescaling", "Resizing"])
# Layers that change images in training alone; in inference they give what they get.
_AUGMENTATION_LAYERS = frozenset(
    [
        "AugMix",
        "RandAugment",
        "RandomBrightness",
        "RandomColorDegeneration",
        "RandomColorJitter",
        "RandomContrast",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomHue",
        "RandomInvert",
        "RandomPerspective",
        "RandomPosterization",
        "RandomRotation",
        "RandomSaturation",
        "RandomSharpness",
        "RandomShear",
        "RandomTranslation",
        "RandomZoom",
    ]
)
# Layers without kernels whose results leave the grid and are rounded again.
_ROUNDING_LAYERS = frozenset(
    [
        "Add",
        "Subtract",
        "Multiply",
        "Average",
        "Maximum",
        "Minimum",
        "Dot",
        "Activation",
        "LeakyReLU",
        "ELU",
        "PReLU",
        "Softmax",
        "ThresholdedReLU",
        "AveragePooling1D",
        "AveragePooling2D",
        "AveragePooling3D",
        "GlobalAveragePooling1D",
        "GlobalAveragePooling2D",
        "GlobalAveragePooling3D",
        "UpSampling2D",
        *_PREPROCESSING_LAYERS,
    ]
)
# What makes a value of each value by itself, if it reads one tensor (and perhaps constants): layers
# and operations of both Keras, in lower case and without underscores.
_ELEMENTWISE_FUNCTIONS = frozenset(
    [
        "abs",
        "absolute",
        "activation",
        "add",
        "celu",
        "clip",
        "divide",
        "elu",
        "exp",
        "gelu",
        "hardsigmoid",
        "hardsilu",
        "hardswish",
        "hardtanh",
        "leakyrelu",
        "logsigmoid",
        "maximum",
        "minimum",
        "multiply",
        "negative",
        "relu",
        "selu",
        "sigmoid",
        "silu",
        "softplus",
        "softsign",
        "square",
        "subtract",
        "swish",
        "tanh",
        "thresholdedrelu",
        "truediv",
        "truedivide",
    ]
)
_RELU_OPERATIONS = {"Relu": None, "Relu6": 6.0, "nn.relu": None, "nn.relu6": 6.0}
_RELU_ACTIVATIONS = {"relu": None, "relu6": 6.0}
_UNIT_RANGE_ACTIVATIONS = frozenset(["sigmoid", "hard_sigmoid", "softmax"])
_FUSED_ACTIVATIONS = frozenset(["linear", *_RELU_ACTIVATIONS])


class Kind(enum.Enum):
    """What a layer does to values on a grid."""

    KERNEL = "kernel"  # multiplies by weights that can be quantized
    BATCH_NORM = "batch norm"  # folds into the kernel before it
    RELU = "relu"  # folds into what comes before it
    PASS_THROUGH = "pass-through"
    CONCATENATE = "concatenate"  # one grid for all its inputs
    PREPROCESSING = "preprocessing"  # before an input is rounded
    ROUNDING = "rounding"
    FLOAT = "float"  # has weights, and no integer form here


def kind_of(layer: Any) -> Kind:
    """Returns the kind of a layer of either Keras, or of a Keras 3 operation."""
    name = keras_class(layer)
    if name in _KERNEL_LAYERS:
        return Kind.KERNEL
    if name in ("BatchNormalization", "SyncBatchNormalization"):
        return Kind.BATCH_NORM
    if relu_limit(layer) is not None:
        return Kind.RELU
    if name == "Activation" and activation_name(layer) == "linear":
        return Kind.PASS_THROUGH
    if name == "UpSampling2D" and layer.interpolation == "nearest":
        return Kind.PASS_THROUGH
    if name in _PASS_THROUGH_LAYERS or function_name(layer) == "Split":
        return Kind.PASS_THROUGH
    if name == "Concatenate":
        return Kind.CONCATENATE
    if name in _PREPROCESSING_LAYERS or augments(layer):
        return Kind.PREPROCESSING
    if name not in _ROUNDING_LAYERS and getattr(layer, "weights", None):
        return Kind.FLOAT
    return Kind.ROUNDING


def function_name(layer: Any) -> str:
    """Returns the name of what a layer or operation computes, the same in both Keras.

    tf_keras keeps operators as `TFOpLambda`, whose function is in its configuration.
    """
    name = keras_class(layer)
    if name == "TFOpLambda":
        return str(layer.get_config()["function"].rpartition(".")[2]).capitalize()
    return name


def is_elementwise(layer: Any) -> bool:
    """Returns whether a layer or operation on one tensor makes a value of each value by itself.

    A ReLU is none of them: it folds into what comes before it.
    """
    name = function_name(layer).lower().replace("_", "")
    is_known = name in _ELEMENTWISE_FUNCTIONS and activation_name(layer) != "softmax"
    return is_known and kind_of(layer) is Kind.ROUNDING


def augments(layer: Any) -> bool:
    """Returns whether a layer changes images at random in training, and not in inference."""
    return keras_class(layer) in _AUGMENTATION_LAYERS


def can_be_wrapped(layer: Any) -> bool:
    """Returns whether a wrapper may call a layer: a known layer, no operation, no user's own."""
    wrapped = (Kind.KERNEL, Kind.BATCH_NORM, Kind.RELU, Kind.CONCATENATE)
    is_operation = not hasattr(layer, "weights") or keras_class(layer) == "TFOpLambda"
    return not is_operation and (
        kind_of(layer) in wrapped or keras_class(layer) in _ROUNDING_LAYERS
    )


def relu_limit(layer: Any) -> float | None:
    """Returns where a ReLU saturates, `inf` for a plain one, and None for a layer that is no ReLU.

    A kernel layer's own activation does not count: see `fused_relu_limit`.
    """
    name = keras_class(layer)
    operation = layer.get_config().get("function") if name == "TFOpLambda" else name
    if operation in _RELU_OPERATIONS:
        return _RELU_OPERATIONS[operation] or math.inf
    if name == "ReLU":
        plain = not layer.negative_slope and not layer.threshold
        limit = math.inf if layer.max_value is None else float(layer.max_value)
        return limit if plain else None
    if name == "Activation":
        return fused_relu_limit(layer)
    return None


def fused_relu_limit(layer: Any) -> float | None:
    """Returns where the ReLU among a layer's arguments saturates (`activation="relu"`), or None."""
    name = activation_name(layer)
    return (_RELU_ACTIVATIONS[name] or math.inf) if name in _RELU_ACTIVATIONS else None


def has_unit_range(layer: Any) -> bool:
    """Returns whether a layer's values lie in [0, 1] by its activation."""
    return keras_class(layer) in ("Softmax", "Sigmoid", "HardSigmoid") or (
        activation_name(layer) in _UNIT_RANGE_ACTIVATIONS
    )


def probability_function(layer: Any) -> str | None:
    """Returns `"softmax"` or `"sigmoid"` for a layer or operation that ends in it, else None."""
    for name in (function_name(layer).lower(), activation_name(layer)):
        if name in ("softmax", "sigmoid"):
            return name
    return None


def has_separate_activation(layer: Any) -> bool:
    """Returns whether a kernel layer's activation is split off: neither linear nor a ReLU."""
    return kind_of(layer) is Kind.KERNEL and activation_name(layer) not in _FUSED_ACTIVATIONS


def activation_name(layer: Any) -> str:
    """Returns the name of a layer's activation function; `linear` without one."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        return "linear"
    return getattr(activation, "__name__", None) or type(activation).__name__


def kernel_axes(layer: Any) -> dict[str, tuple[int, ...]]:
    """Returns a layer's quantizable kernels: attribute name -> axes that index output channels."""
    name = keras_class(layer)
    if name not in _KERNEL_LAYERS:
        return {}
    axes = _KERNEL_LAYERS[name] or _einsum_output_axes(layer)
    names = {weight_name(weight) for weight in layer.weights}
    return {kernel: axes for kernel in KERNEL_NAMES if kernel in names}


def weight_name(variable: Any) -> str:
    """Returns a variable's own name: `kernel` of tf_keras' `conv/kernel:0`."""
    return str(variable.name).partition(":")[0].rpartition("/")[2]


def _einsum_output_axes(layer: Any) -> tuple[int, ...]:
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    axes = tuple(i - len(kernel) for i, c in enumerate(kernel) if c in output and c not in inputs)
    return axes or tuple(range(-len(kernel), 0))
