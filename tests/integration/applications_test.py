"""The networks of `keras.applications`: quantize, run, train a step, save, reload; in both Keras.

Inputs are the smallest that the networks take, weights random. A step is a `GradientTape`, not
`fit`: compiling twenty training functions would take most of the time.
"""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
import tensorflow as tf

from tests.application_flavors import pairs
from wrpn_tf import quantize_model
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import weight_quantizers
from wrpn_tf.quantization.quantize_registry import kernel_axes

# Network -> smallest input, kernels that quantization finds (a separable convolution has two).
NETWORKS = {
    "ResNet50": (32, 54),
    "ResNet50V2": (32, 54),
    "MobileNetV2": (32, 53),
    "MobileNetV3Small": (32, None),
    "EfficientNetB0": (32, 82),
    "DenseNet121": (32, 121),
    "InceptionV3": (75, 95),
    "InceptionResNetV2": (75, 245),
    "VGG16": (32, 13),
    "Xception": (75, 75),
    "NASNetMobile": (32, 357),
    "ConvNeXtTiny": (32, None),
}


def make(flavor, name):
    size = NETWORKS[name][0]
    options = {"include_top": False, "pooling": "avg"} if name == "VGG16" else {"classes": 10}
    network = getattr(flavor.keras.applications, name)
    return network(weights=None, input_shape=(size, size, 3), **options)


def latent_weights(model):
    return [
        variable
        for layer in model_graph(model).layers().values()
        for variable, _ in weight_quantizers(layer).values()
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("flavor", "name"), pairs(NETWORKS), indirect=["flavor"])
def test_an_application_quantizes_trains_and_reloads(flavor, name, tmp_path):
    flavor.keras.backend.clear_session()
    model = make(flavor, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names the float layers; see quantize_model_test
        quantized = quantize_model(model)
    assert quantized.output_shape == model.output_shape
    # Four examples: batch norm of two on 1x1 maps gives +-1 whatever the weights are.
    images = np.random.default_rng(0).uniform(0, 255, (4, *model.input_shape[1:]))
    images = images.astype(np.float32)

    variables = latent_weights(quantized)
    if NETWORKS[name][1] is not None:
        assert len(variables) == NETWORKS[name][1]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quantized(images, training=True) ** 2)
    values = [v.value for v in variables] if flavor is KERAS else variables
    gradients = tape.gradient(loss, values)
    names = [getattr(v, "path", v.name) for v in variables]
    assert all(gradient is not None for gradient in gradients)
    without = [
        name for name, gradient in zip(names, gradients, strict=True) if not np.any(gradient)
    ]
    assert not without
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.assign(variable - 1e-4 * np.sign(gradient))

    file = str(tmp_path / ("model.keras" if flavor is KERAS else "model.h5"))
    scope = contextlib.nullcontext()
    if flavor is not KERAS and name == "ConvNeXtTiny":
        # tf_keras does not register this layer, so its float ConvNeXt needs the same.
        from tf_keras.src.applications.convnext import LayerScale

        scope = flavor.keras.utils.custom_object_scope({"LayerScale": LayerScale})
    with warnings.catch_warnings(), scope:
        warnings.simplefilter("ignore")  # Keras calls `.h5` a legacy format
        quantized.save(file)
        again = flavor.keras.models.load_model(file, compile=False)
    outputs = quantized(images)
    assert outputs.shape == (len(images), *model.output_shape[1:])
    np.testing.assert_array_equal(again(images), outputs)


def test_every_kernel_of_an_application_is_quantized(flavor):
    graph = model_graph(make(flavor, "MobileNetV2"))
    kernels = sum(len(kernel_axes(layer)) for layer in graph.layers().values())
    assert kernels == NETWORKS["MobileNetV2"][1]
