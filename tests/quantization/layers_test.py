"""Every supported layer: its quantized output is the layer's own with weights quantized by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from wrpn_tf import quantize_model
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import inner_layer, weight_quantizers

# Name -> input shape, options, axes of output channels.
LAYERS = {
    "Dense": ((6,), {"units": 4}, (-1,)),
    "Conv1D": ((8, 3), {"filters": 4, "kernel_size": 3, "padding": "causal"}, (-1,)),
    "Conv2D": ((6, 6, 4), {"filters": 4, "kernel_size": 3, "groups": 2}, (-1,)),
    "Conv3D": ((4, 4, 4, 2), {"filters": 3, "kernel_size": 2, "strides": 2}, (-1,)),
    "DepthwiseConv1D": ((8, 3), {"kernel_size": 3, "depth_multiplier": 2}, (-2, -1)),
    "DepthwiseConv2D": ((6, 6, 3), {"kernel_size": 3, "depth_multiplier": 2}, (-2, -1)),
    "Conv1DTranspose": ((6, 3), {"filters": 4, "kernel_size": 3, "strides": 2}, (-2,)),
    "Conv2DTranspose": ((5, 5, 3), {"filters": 4, "kernel_size": 3, "strides": 2}, (-2,)),
    "Conv3DTranspose": ((3, 3, 3, 2), {"filters": 3, "kernel_size": 2}, (-2,)),
    "EinsumDense": (
        (5, 6),
        {"equation": "abc,cde->abde", "output_shape": (None, 2, 3), "bias_axes": "de"},
        (-2, -1),
    ),
    "SeparableConv1D": ((8, 3), {"filters": 4, "kernel_size": 3}, None),
    "SeparableConv2D": ((6, 6, 3), {"filters": 4, "kernel_size": 3, "strides": 2}, None),
}


def ternary(kernel, axes):
    """2-bit weights, scale max per channel: the literal formula, in float64."""
    reduced = tuple(a for a in range(kernel.ndim) if a - kernel.ndim not in axes)
    step = np.abs(kernel.astype(np.float64)).max(axis=reduced, keepdims=True)
    return step * np.floor(np.clip(kernel / step, -1, 1) + 0.5)


def quantized_by_hand(name, axes, weights):
    if not name.startswith("Separable"):
        return [ternary(weights[0], axes), *weights[1:]]
    return [ternary(weights[0], (-2, -1)), ternary(weights[1], (-1,)), *weights[2:]]


def net(flavor, name, activation=None):
    shape, options, axes = LAYERS[name]
    inputs = flavor.keras.Input(shape)
    layer = getattr(flavor.layers, name)(**options, activation=activation, name="layer")
    model = flavor.keras.Model(inputs, layer(inputs))
    generator = np.random.default_rng(1)
    layer.set_weights([generator.normal(0, 0.3, w.shape) for w in layer.get_weights()])
    values = generator.normal(size=(3, *shape)).astype(np.float32)
    return model, layer, values, axes


@pytest.mark.parametrize("name", LAYERS)
def test_the_output_is_the_layers_with_weights_quantized_by_hand(flavor, name):
    model, layer, values, axes = net(flavor, name)
    quantized = quantize_model(
        model,
        weight_scale="max_per_channel",
        overrides={".*": {"num_bits_weight": 2, "num_bits_activation": "float"}},
    )
    # Inputs and outputs are on observed ranges, which round nothing before the first training step.
    layer.set_weights(quantized_by_hand(name, axes, layer.get_weights()))
    np.testing.assert_allclose(quantized(values), model(values), rtol=1e-4, atol=1e-5)


def latent_weights(model):
    return {
        f"{path}/{name}": variable
        for path, layer in model_graph(model).layers().items()
        for name, (variable, _) in weight_quantizers(layer).items()
    }


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_trains(flavor, name):
    model, _, values, _ = net(flavor, name, activation="relu")
    quantized = quantize_model(model)
    before = {key: np.array(v) for key, v in latent_weights(quantized).items()}
    assert len(before) == (2 if name.startswith("Separable") else 1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum((quantized(values, training=True) - 1.0) ** 2)
    variables = latent_weights(quantized).values()
    gradients = tape.gradient(loss, [v.value if flavor is KERAS else v for v in variables])
    assert all(g is not None and np.any(g) for g in gradients)
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.assign_sub(1e-3 * gradient)  # it is still a variable
    assert all(np.any(np.array(v) != before[k]) for k, v in latent_weights(quantized).items())


@pytest.mark.parametrize("num_bits", [1, 2, 4, 8])
def test_any_bits_on_a_convolution(flavor, num_bits):
    model, _, values, _ = net(flavor, "Conv2D")
    quantized = quantize_model(model, first_layer=num_bits, last_layer=num_bits)
    (layer,) = [x for x in model_graph(quantized).layers().values() if weight_quantizers(x)]
    variable, quantizer = weight_quantizers(layer)["kernel"]
    kernel = quantizer.scale(variable) * quantizer.to_int(variable).astype(np.float32)
    expected = tf.nn.conv2d(values, kernel, 1, "VALID") + np.array(inner_layer(layer).bias)
    np.testing.assert_allclose(quantized(values), expected, rtol=1e-4, atol=1e-5)


def test_regularizers_see_the_latent_weights(flavor):
    inputs = flavor.keras.Input((4,))
    options = {"activity_regularizer": "l1"} if flavor is KERAS else {}
    x = flavor.layers.Dense(3, kernel_regularizer="l2", name="first", **options)(inputs)
    model = flavor.keras.Model(inputs, flavor.layers.Dense(2)(x))
    quantized = quantize_model(model, overrides={"first": {"num_bits_weight": 8}})
    values = np.ones((2, 4), np.float32)
    model(values), quantized(values)
    assert len(quantized.losses) == len(model.losses) == 1 + len(options)
    # The kernel's is equal; 8 bits change the activities by less than 1 %.
    np.testing.assert_allclose(sum(quantized.losses), sum(model.losses), rtol=0.01)
