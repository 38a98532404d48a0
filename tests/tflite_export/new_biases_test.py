"""Layers that get a bias when they are snapped: without one kernels round their sums apart."""

from __future__ import annotations

import numpy as np

from tests.tflite_export.small_models import (
    assert_same_bits,
    make_images,
    quantized,
    residual_net,
    values,
)
from tflite_export.converter import convert
from tflite_export.saved_models import load_model
from tflite_export.snap_model import snap
from tflite_export.verification import verify
from wrpn_tf.keras_flavor import KERAS


def bare_kernels(flavor):
    """Layers of every kind without a bias, whose signed results are rounded."""
    layers = flavor.layers
    inputs = flavor.keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(inputs)
    y = layers.SeparableConv2D(8, 3, padding="same", use_bias=False, name="separable")(x)
    y = layers.ReLU()(layers.BatchNormalization()(layers.Add()([x, y])))
    y = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(y)
    y = layers.Conv2DTranspose(4, 2, strides=2, use_bias=False, name="transposed")(y)
    y = layers.Conv2D(4, 3, use_bias=False, activation="relu", name="unsigned")(y)
    outputs = layers.Dense(3, use_bias=False, name="dense")(layers.Flatten()(y))
    return flavor.keras.Model(inputs, outputs)


def test_signed_sums_of_eight_bit_weights_get_a_bias(flavor):
    """Without one no scale makes all kernels round them alike."""
    model = quantized(bare_kernels(flavor), num_bits_weight=8)
    config, before = model.get_config(), values(model)
    once, report = snap(model)
    assert model.get_config() == config
    assert_same_bits(values(model), before)
    given = ("conv", "separable_depthwise", "separable", "depthwise", "transposed", "dense")
    given_names = tuple(f"quant_{name}" for name in given)
    assert report.biased == given_names
    assert f"Given a bias: {', '.join(given_names)}." in " ".join(str(report).split())
    assert report.exact, str(report)
    for layer in report.layers:
        assert np.abs(layer.scale_moves).max() < 0.02, layer.name
        if layer.name in report.biased:
            assert np.abs(layer.bias_moves).max() < 0.1, layer.name
    again, second_report = snap(once)
    assert second_report.biased == ()
    assert_same_bits(values(again), values(once))
    blob = convert(model)
    assert blob == convert(once, snap_first=False)
    for each in (model, once):
        assert verify(each, blob, make_images(once, 4), verbose=False).exact


def test_layers_with_a_bias_of_their_own_or_fewer_bits_get_none(flavor):
    _, report = snap(quantized(bare_kernels(flavor), num_bits_weight=4))
    assert report.biased == ("quant_conv", "quant_dense")  # the first and last, of 8 bits
    assert report.exact, str(report)
    _, report = snap(quantized(residual_net(flavor)))
    assert report.biased == ()


def test_a_model_with_new_biases_is_saved_and_loaded(flavor, tmp_path):
    once, _ = snap(quantized(bare_kernels(flavor), num_bits_weight=8))
    file = tmp_path / ("net.keras" if flavor is KERAS else "net.h5")
    once.save(file)
    loaded = load_model(file)
    assert_same_bits(values(loaded), values(once))
    assert convert(loaded, snap_first=False) == convert(once, snap_first=False)
