"""What `simulate` refuses, and that it says which layer or argument and what is missing."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from wrpn_tf import calibrate, quantize_model
from wrpn_tf.quantization import (
    ObservedQuantizer,
    WRPNActivationQuantizer,
    WRPNQuantizeConfig,
    WRPNWeightQuantizer,
)
from wrpn_tf.quantization.quantize_wrapper import QuantizeWrapper
from wrpn_tf.simulation import simulate

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 6, 6, 3)).astype(np.float32)


@pytest.fixture
def net(flavor):
    """Returns a function that builds a small net; its argument adds layers behind the stem."""

    def build(middle=lambda layers, x: x, last=lambda layers, x: layers.Dense(2, name="head")(x)):
        L = flavor.layers
        inputs = flavor.keras.Input((6, 6, 3), name="image")
        x = L.Conv2D(4, 3, name="stem")(inputs)
        x = middle(L, L.ReLU(name="relu")(x))
        return flavor.keras.Model(inputs, last(L, L.Flatten(name="flat")(x)), name="net")

    return build


def ready(model, **rules):
    """Quantizes and calibrates without the warnings that name float layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = quantize_model(model, **rules)
    calibrate(quantized, IMAGES)
    return quantized


def test_a_float_model(net):
    with pytest.raises(ValueError, match="`model` must be quantized, got the float model 'net'"):
        simulate(net(), IMAGES)


def test_a_model_whose_training_diverged(net, flavor):
    quantized = ready(net())
    kernel = next(weight for weight in quantized.weights if "kernel" in weight.name)
    kernel.assign(kernel * float("nan"))
    message = (
        r"`model` must have finite weights, got NaN or infinity in 1 of \d+ layers: quant_stem\."
    )
    for read in (simulate, calibrate):
        with pytest.raises(ValueError, match=message):
            read(quantized, IMAGES)


def test_what_is_no_model():
    with pytest.raises(TypeError, match="`model` must be a Keras 3 or tf_keras model, got int"):
        simulate(3, IMAGES)


def test_a_layer_with_float_weights(net):
    quantized = ready(net(), overrides={"stem": "float"})
    with pytest.raises(ValueError, match=r"layers in float: (quant_)?stem \(Conv2D\)\."):
        simulate(quantized, IMAGES)


def test_a_layer_without_an_integer_form(net):
    quantized = ready(net(lambda layers, x: layers.LayerNormalization(name="norm")(x)))
    with pytest.raises(ValueError, match=r"layers in float: norm \(LayerNormalization\)\."):
        simulate(quantized, IMAGES)


def test_an_interpolation_that_cannot_be_simulated(net):
    zoom = {"interpolation": "bicubic", "name": "zoom"}
    quantized = ready(net(lambda layers, x: layers.UpSampling2D(**zoom)(x)))
    with pytest.raises(ValueError, match=r"cannot be simulated: quant_zoom \(UpSamp"):
        simulate(quantized, IMAGES)


def test_a_layer_that_cannot_be_simulated(net):
    quantized = ready(net(lambda layers, x: layers.UnitNormalization(name="unit")(x)))
    with pytest.raises(
        ValueError, match=r"cannot be simulated: unit \(UnitNormalization\)\..* Conv2D.*GlobalAver"
    ):
        simulate(quantized, IMAGES)


def test_batch_norm_over_another_axis(net):
    quantized = ready(net(lambda layers, x: layers.BatchNormalization(axis=1, name="norm")(x)))
    with pytest.raises(
        ValueError, match=r"norm \(BatchNormalization\).*channels that are the last axis"
    ):
        simulate(quantized, IMAGES)


def test_a_softmax_inside(net):
    quantized = ready(net(lambda layers, x: layers.Conv2D(2, 1, activation="softmax", name="b")(x)))
    with pytest.raises(ValueError, match=r"cannot be simulated: quant_b_softmax \(Activation\)\."):
        simulate(quantized, IMAGES)


def test_an_activation_left_in_float(net):
    quantized = ready(net(), overrides={"relu": "float"})
    with pytest.raises(ValueError, match=r"must round all its tensors.* float: (quant_)?relu \("):
        simulate(quantized, IMAGES)


def test_an_output_left_in_float(net):
    quantized = ready(net(), overrides={"head": {"num_bits_activation": "float"}})
    with pytest.raises(ValueError, match=r"must round all its tensors.* float: quant_head \("):
        simulate(quantized, IMAGES)


def test_an_input_left_in_float():
    inputs = keras.Input((4,))
    config = WRPNQuantizeConfig(output_quantizer=WRPNActivationQuantizer(8))
    x = QuantizeWrapper(keras.layers.ReLU(name="relu"), config)(inputs)
    config = WRPNQuantizeConfig({"kernel": WRPNWeightQuantizer(2, "mean")}, ObservedQuantizer(8))
    x = QuantizeWrapper(keras.layers.Dense(2, name="head"), config)(x)
    with pytest.raises(ValueError, match=r"must round all its tensors.*: quant_relu \(ReLU\)\."):
        simulate(keras.Model(inputs, x), np.ones((1, 4)))


def test_ranges_that_saw_no_data(net):
    quantized = quantize_model(net())
    with pytest.raises(ValueError, match=r"saw data, got empty ones at: quant_image .*calibrate"):
        simulate(quantized, IMAGES)


@pytest.fixture(scope="module")
def quantized():
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu")(inputs)
    return ready(keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x))))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (IMAGES[0], ValueError, r"shape \(None, 6, 6, 3\), one example or more, got \(6, 6, 3\)"),
        (IMAGES[:, :5], ValueError, r"must have the shape .* got \(2, 5, 6, 3\)"),
        (IMAGES[:0], ValueError, r"one example or more, got \(0, 6, 6, 3\)"),
        ([IMAGES, IMAGES], ValueError, "must be 1 arrays, one per model input, got 2"),
        (IMAGES.astype(complex), TypeError, "must hold numbers, got the type complex128"),
        (IMAGES > 0, TypeError, "must hold numbers, got the type bool"),
        (np.full((1, 6, 6, 3), "a"), TypeError, "must hold numbers, got the type <U1"),
        (np.full_like(IMAGES, np.nan), ValueError, "must be finite, got NaN or infinity"),
    ],
)
def test_images_that_do_not_fit(quantized, images, error, message):
    with pytest.raises(error, match=message):
        simulate(quantized, images)


def test_inputs_of_different_lengths():
    left, right = keras.Input((4,)), keras.Input((4,))
    x = keras.layers.Concatenate()([left, right])
    quantized = quantize_model(keras.Model([left, right], keras.layers.Dense(2)(x)))
    calibrate(quantized, [[np.ones((2, 4)), np.ones((2, 4))]])
    with pytest.raises(ValueError, match=r"equally many examples per model input, got \[2, 3\]"):
        simulate(quantized, [np.ones((2, 4)), np.ones((3, 4))])


def test_an_accumulator_that_overflows_names_its_layer():
    size = 2**31 // (255 * 127) + 1
    model = keras.Sequential([keras.Input((size,)), keras.layers.Dense(1, name="head")])
    model.set_weights([np.ones((size, 1)), np.zeros(1)])
    quantized = quantize_model(model, weight_scale="max")
    calibrate(quantized, np.ones((1, size), np.float32))
    with pytest.raises(OverflowError, match="layer 'quant_head': "):
        simulate(quantized, np.ones((1, size)))
    # One product less fits.
    images = np.ones((1, size))
    images[0, 0] = 0
    assert simulate(quantized, images).layers[0].trace.largest == (size - 1) * 255 * 127
