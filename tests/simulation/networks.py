"""Networks whose float32 arithmetic is exact: every weight, scale and shift is a power of two's.

So Keras and the simulation must agree in every level, ties included.
"""

from __future__ import annotations

import math

import numpy as np

from wrpn_tf import calibrate, quantize_model
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import ObservedQuantizer, output_quantizer
from wrpn_tf.quantization.quantize_registry import weight_name

_EPSILON = 2.0**-10


def randomize(model, seed: int = 0) -> None:
    """Draws weights as if trained: negative and zero gammas, biases and means of all sizes."""
    rng = np.random.default_rng(seed)
    for layer in model_graph(model).layers().values():
        if getattr(layer, "weights", None):
            layer.set_weights([_draw(rng, weight) for weight in layer.weights])


def _draw(rng, variable):
    shape, name = tuple(variable.shape), weight_name(variable)
    if name == "moving_variance":
        return rng.choice([0.25, 1.0, 4.0], shape) - _EPSILON
    if name == "gamma":
        return rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0], shape)
    if "kernel" in name:
        return np.round(rng.normal(0, 8, shape)) / 32
    return np.round(rng.normal(0, 4, shape)) / 8


def quantize_exactly(model, images, num_bits_weight: int = 3, num_bits_activation: int = 4):
    """Quantizes a model so that all its scales are powers of two."""
    largest = max(2 ** (num_bits_weight - 1) - 1, 1)
    quantized = quantize_model(
        model,
        num_bits_weight=num_bits_weight,
        num_bits_activation=num_bits_activation,
        first_layer=num_bits_weight,
        last_layer=num_bits_weight,
        weight_scale=largest / 4,
    )
    calibrate(quantized, [images], method="max")
    for layer in model_graph(quantized).layers().values():
        if output_quantizer(layer) is not None:
            _round_scale(*output_quantizer(layer))
    return quantized


def _round_scale(quantizer, variables) -> None:
    scale = 2.0 ** math.floor(math.log2(quantizer.scale(variables)))
    if isinstance(quantizer, ObservedQuantizer):
        grid = quantizer.grid(variables)
        quantizer.set_range(variables, grid.low * scale, grid.high * scale)
    else:
        variables["range"].assign(quantizer.grid.high * scale)


def _norm(layers, x, **options):
    return layers.BatchNormalization(epsilon=_EPSILON, **options)(x)


def mixed(flavor):
    """Every kind of layer, on 8 x 8 images of 0..255: three outputs, one of them a softmax."""
    layers = flavor.layers
    image = flavor.keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-1)(image)
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(name="stem_relu")(_norm(layers, x))
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x)
    y = layers.ReLU(6.0, name="relu6")(_norm(layers, y))
    y = layers.Conv2D(6, 3, groups=2, dilation_rate=2, padding="same", name="grouped")(y)
    y = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([x, y]))
    z = layers.SeparableConv2D(5, 3, strides=2, padding="same", activation="relu", name="sep")(y)
    z = _norm(layers, z, name="norm_behind_relu")
    p = layers.AveragePooling2D(2, 2, padding="same", name="average")(y)
    z = layers.Concatenate(name="joined")([z, p, layers.MaxPooling2D(3, 2, padding="same")(y)])
    z = layers.Activation("relu", name="preactivation")(_norm(layers, z, scale=False))
    z = layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="upwards")(z)
    z = layers.Dropout(0.5)(z)
    zeros = layers.ZeroPadding2D(((0, 0), (1, 2)), data_format="channels_first", name="zeros")
    z = layers.Add(name="shortcut")([layers.Conv2D(7, 1, name="wider")(z), zeros(z)])
    maps = layers.Conv2D(2, (1, 2), strides=(2, 1), name="map")(layers.ZeroPadding2D(1)(z))
    w = layers.GlobalAveragePooling2D(name="mean", keepdims=True)(z)
    vector = layers.Dense(4, activation="relu", name="hidden")(layers.Flatten()(w))
    outputs = {
        "class": layers.Dense(3, activation="softmax", name="logits")(vector),
        "map": maps,
        "vector": vector,
    }
    return flavor.keras.Model(image, outputs, name="mixed")


def sequence(flavor):
    """Every kind of layer of sequences, on 16 steps of 0..255."""
    layers = flavor.layers
    steps = flavor.keras.Input((16, 3), name="steps")
    x = layers.Rescaling(1 / 128, offset=-1)(steps)
    x = layers.Conv1D(6, 3, dilation_rate=2, padding="causal", use_bias=False, name="causal")(x)
    x = layers.ReLU(name="causal_relu")(_norm(layers, x))
    x = layers.Conv1D(4, 3, groups=2, strides=2, padding="same", activation="relu", name="gr")(x)
    y = layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same", name="depthwise")(x)
    y = layers.SeparableConv1D(4, 2, activation="relu", name="sep")(layers.ZeroPadding1D((1, 0))(y))
    z = layers.Conv1DTranspose(4, 3, strides=2, padding="same", name="upwards")(y)
    z = layers.MaxPooling1D(2)(layers.ReLU(name="up_relu")(_norm(layers, z)))
    parts = [
        layers.AveragePooling1D(3, 2, padding="same", name="average")(layers.Cropping1D(1)(z)),
        layers.GlobalAveragePooling1D(name="mean", keepdims=True)(z),
        layers.GlobalMaxPooling1D(keepdims=True)(layers.UpSampling1D(2)(z)),
    ]
    x = layers.Flatten()(layers.Concatenate(axis=1, name="joined")(parts))
    return flavor.keras.Model(steps, layers.Dense(3, name="logits")(x), name="sequence")


def gated(flavor):
    """Functions of each value, products and differences, larger and smaller values, on images."""
    layers = flavor.layers
    image = flavor.keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-1)(image)
    x = _norm(layers, layers.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(x))
    x = layers.LeakyReLU(0.5, name="leaky")(x)
    gate = layers.Conv2D(6, 1, name="squeeze")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    gate = layers.ReLU(6.0, name="gate_relu")(gate + 2.0) * 0.25
    x = layers.Multiply(name="gated")([x, gate])
    x = layers.PReLU(shared_axes=[1, 2], name="parametric")(x)
    x = layers.ReLU(name="product")(x * layers.Conv2D(6, 3, padding="same", name="other")(x))
    y = layers.Conv2D(6, 1, name="third")(x)
    x = layers.Maximum(name="larger")([x, y, layers.Subtract(name="difference")([y, x])])
    x = layers.Minimum(name="smaller")([x, layers.Conv2D(6, 1, name="fourth")(x)])
    vector = layers.Dense(4, name="logits")(layers.Flatten()(x))
    return flavor.keras.Model(image, layers.Activation("sigmoid")(vector), name="gated")


def shared(flavor):
    """One convolution three times, on two inputs and on itself; a nested model; a dense map."""
    layers = flavor.layers
    left, right = (flavor.keras.Input((6, 5, 4), name=name) for name in ("left", "right"))
    conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    inner_input = flavor.keras.Input((6, 5, 4))
    inner = layers.Add()([inner_input, _norm(layers, layers.Conv2D(4, 1)(inner_input))])
    block = flavor.keras.Model(inner_input, inner, name="block")
    joined = layers.Concatenate(axis=1)([conv(conv(left)), block(conv(right))])
    maps = layers.Dense(3, activation="relu", name="per_pixel")(layers.Cropping2D(1)(joined))
    x = layers.Permute((2, 1))(layers.Reshape((-1, 3))(maps))
    return flavor.keras.Model([left, right], layers.Dense(5, name="logits")(x), name="shared")
