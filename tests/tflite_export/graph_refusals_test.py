"""What the exporter refuses to read, and in which words."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.small_models import chain, make_images, quantized, residual_net
from tflite_export import convert, snap, verify
from tflite_export.graph_reader import fold_model
from wrpn_tf import RegionPrecision, apply_regions, drop_regions, quantize_model
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.quantization import ObservedQuantizer, output_quantizer

L = KERAS.layers


def refusal(model):
    with pytest.raises((TypeError, ValueError)) as caught:
        fold_model(model)
    return str(caught.value)


def test_a_float_model_is_refused(flavor):
    message = refusal(chain(flavor, flavor.layers.Dense(2)))
    assert "`model` must be quantized, got the float model 'net'" in message
    assert "wrpn_tf.quantize_model" in message


def test_something_else_is_refused():
    with pytest.raises(TypeError, match="must be a Keras 3 or tf_keras model, got str"):
        fold_model("model.keras")


def test_a_model_whose_training_diverged_is_refused(flavor):
    model = quantized(residual_net(flavor))
    scale = next(weight for weight in model.weights if "gamma" in weight.name)
    scale.assign(scale * float("inf"))
    assert "`model` must have finite weights, got NaN or infinity in 1 of" in refusal(model)


def test_an_unbuilt_model_is_refused(flavor):
    assert "must be built" in refusal(flavor.keras.Sequential([flavor.layers.Dense(2)]))


def test_regions_are_refused_and_a_model_without_them_converts(flavor):
    model = quantized(residual_net(flavor))
    regional = apply_regions(model, RegionPrecision(tile_means, (8, 4)))
    message = refusal(regional)
    assert "`model` must have the same precision everywhere, got 'net' with regions" in message
    for enter in (convert, snap, lambda x: verify(x, b"", make_images(model))):
        with pytest.raises(ValueError, match=r"one precision per tensor.*`wrpn_tf.drop_reg"):
            enter(regional)
    assert convert(drop_regions(regional)) == convert(model)


def tile_means(images):
    return images[:, ::2, ::2, 0]


@pytest.mark.parametrize("arguments", [{"first_layer": "float"}, {"overrides": {"conv1": "float"}}])
def test_layers_left_in_float_are_named(arguments):
    model = quantized(residual_net(KERAS), **arguments)
    name = "stem" if "first_layer" in arguments else "conv1"
    message = refusal(model)
    assert "`model` must have no layer left in float" in message
    assert f"{name} (Conv2D)" in message


def test_a_float_head_is_named():
    message = refusal(quantized(residual_net(KERAS), last_layer="float"))
    assert "head (Dense)" in message


def test_values_left_in_float_are_refused():
    overrides = {"relu1": "float"}
    message = refusal(quantized(residual_net(KERAS), overrides=overrides))
    assert "'quant_conv2' must read rounded values" in message
    assert "left in float" in message


def test_layers_without_an_integer_form_are_named():
    with pytest.warns(UserWarning, match="stays float"):
        model = quantized(chain(KERAS, L.Dense(4), L.LayerNormalization(name="norm"), L.Dense(2)))
    assert "norm (LayerNormalization)" in refusal(model)


def test_unknown_layers_are_named_with_what_is_known():
    x = inputs = KERAS.keras.Input((8, 8, 3), name="image")
    for layer in (L.Conv2D(4, 3, name="a"), L.BatchNormalization()):
        x = layer(x)
    x = L.UnitNormalization(name="x")(x)
    message = refusal(quantized(KERAS.keras.Model(inputs, L.Conv2D(2, 1, name="b")(x))))
    assert "'x' (UnitNormalization)" in message
    assert "has no integer form" in message
    assert "Conv2D, Conv2DTranspose, Cropping1D" in message


def test_an_input_that_nothing_rounds_is_refused():
    model = chain(KERAS, L.Flatten(), L.Dense(2, name="head"), dtype="uint8")
    message = refusal(quantize_model(model))
    assert "the model's input" in message


def test_unknown_shapes_are_refused():
    x = inputs = KERAS.keras.Input((None, None, 3), name="image")
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu", name="conv")(x))
    model = quantize_model(KERAS.keras.Model(inputs, L.Dense(2)(x)))
    message = refusal(model)
    assert "fixed shapes behind the batch dimension, got (None, None, 3)" in message


def test_channels_first_is_refused():
    layers = (L.Conv2D(4, 3, data_format="channels_first", name="conv"), L.ReLU())
    model = quantized(chain(KERAS, *layers), calibrated=False)
    for layer in model.layers:
        quantizer, variables = output_quantizer(layer) or (None, None)
        if isinstance(quantizer, ObservedQuantizer):
            quantizer.set_range(variables, 0.0, 1.0)
    message = refusal(model)
    assert "'quant_conv' must have data_format 'channels_last', got 'channels_first'" in message


def test_a_flattening_that_moves_channels_is_refused():
    layers = (L.Conv2D(4, 3, activation="relu"), L.Flatten("channels_first", name="flat"))
    message = refusal(quantized(chain(KERAS, *layers, L.Dense(2))))
    assert "'flat' must have data_format 'channels_last'" in message


def test_ranges_without_data_are_refused(flavor):
    message = refusal(quantized(residual_net(flavor), calibrated=False))
    assert "the range of 'quant_image' saw no data yet" in message
    assert "wrpn_tf.calibrate" in message


def test_inputs_that_nothing_reads_are_refused(flavor):
    inputs = [flavor.keras.Input((4,), name=name) for name in ("used", "idle")]
    model = flavor.keras.Model(inputs, flavor.layers.Dense(2)(inputs[0]))
    assert "read all of its inputs, got idle, which nothing reads" in refusal(quantized(model))


def test_a_sum_that_broadcasts_is_refused():
    inputs = KERAS.keras.Input((4,), name="image")
    parts = [L.Dense(width, activation="relu")(inputs) for width in (3, 1)]
    model = KERAS.keras.Model(inputs, L.Dense(2)(L.Add(name="add")(parts)))
    assert "'quant_add' must combine two tensors of one shape" in refusal(quantized(model))


@pytest.mark.parametrize(
    "key", [np.s_[..., ::2], np.s_[:, ::-1], np.s_[0:1, :], np.s_[::-1, :]], ids=str
)
def test_slices_with_steps_or_of_the_batch_are_refused(flavor, key):
    inputs = flavor.keras.Input((4, 3), name="image")
    x = flavor.layers.Dense(3, activation="relu")(inputs)[key]
    message = refusal(quantized(flavor.keras.Model(inputs, flavor.layers.Dense(2)(x))))
    assert "must slice without steps, and not the batch dimension" in message


def test_a_transposition_of_the_batch_is_refused():
    inputs = KERAS.keras.Input((3, 3), batch_size=3, name="image")
    x = KERAS.keras.ops.transpose(L.Dense(3, activation="relu")(inputs), (1, 0, 2))
    message = refusal(quantized(KERAS.keras.Model(inputs, L.Dense(2)(x))))
    assert "must leave the batch dimension first, got (1, 0, 2)" in message


def test_a_norm_over_another_axis_is_refused():
    model = chain(KERAS, L.Conv2D(4, 3), L.BatchNormalization(axis=1, name="norm"), L.ReLU())
    assert "must normalise the last axis, got axis" in refusal(quantized(model))


def test_a_softmax_over_another_axis_is_refused():
    model = chain(KERAS, L.Dense(3), L.Softmax(axis=1, name="share"), shape=(5, 4))
    assert "'share' must be a softmax over the last axis, got axis 1" in refusal(quantized(model))


def test_a_function_of_several_values_is_refused():
    layers = (L.Conv2D(4, 3), L.Activation("log_softmax", name="x"), L.Conv2D(2, 1))
    message = refusal(quantized(chain(KERAS, *layers)))
    assert "'quant_x' (Activation 'log_softmax') has no integer form" in message
    assert "it does not make one value of each value by itself" in message


def test_constants_of_several_values_are_refused():
    inputs = KERAS.keras.Input((4,), name="image")
    x = KERAS.keras.ops.multiply(L.Dense(3)(inputs), np.array([1.0, 2.0, 3.0], np.float32))
    message = refusal(quantized(KERAS.keras.Model(inputs, L.Dense(2)(x))))
    assert "(Multiply) has no integer form" in message
    assert "it does not make one value of each value by itself" in message


def test_products_of_other_shapes_are_refused():
    inputs = KERAS.keras.Input((4, 4, 2), name="image")
    gate = L.GlobalAveragePooling2D()(inputs)
    model = KERAS.keras.Model(inputs, L.Conv2D(2, 1)(L.Multiply()([inputs, gate])))
    message = refusal(quantized(model))
    assert "must multiply two tensors of as many axes, at most 3" in message
    assert "got (4, 4, 2), (2,)" in message


@pytest.mark.parametrize(
    ("activation", "is_output"), [("softmax", False), ("softmax", True), ("sigmoid", True)]
)
def test_probabilities_that_a_layer_reads_are_refused(activation, is_output):
    inputs = KERAS.keras.Input((4,), name="image")
    share = L.Dense(3, activation=activation, name="share")(inputs)
    head = L.Dense(2, name="head")(share)
    model = KERAS.keras.Model(inputs, [head, share] if is_output else head)
    message = refusal(quantized(model))
    assert f"the {activation} '" in message
    assert f"share_{activation}' must be an output that no layer reads, got 'quant_head'" in message


def test_interpolations_between_more_than_two_pixels_are_refused():
    zoom = L.UpSampling2D(interpolation="bicubic", name="zoom")
    model = chain(KERAS, L.Conv2D(4, 1, activation="relu"), zoom, L.Conv2D(4, 1))
    message = refusal(quantized(model))
    assert "'quant_zoom' must have the interpolation 'nearest' or 'bilinear', got 'bic" in message


@pytest.mark.parametrize(("size", "largest"), [((8, 8), 225), (6, 121)])
def test_interpolations_of_weights_of_eight_bits_are_refused(size, largest):
    zoom = L.UpSampling2D(size, interpolation="bilinear", name="zoom")
    model = chain(KERAS, L.Conv2D(4, 1, activation="relu"), zoom, L.Conv2D(4, 1))
    message = refusal(quantized(model))
    assert "'quant_zoom' must interpolate by weights of at most 63 units, as sizes up" in message
    assert f"got {largest} at the size" in message


def test_a_range_above_the_relus_limit_in_a_concatenation_is_refused():
    """A branch that saturates at 6 cannot be clamped by a grid that ends at 9."""
    L = KERAS.layers
    inputs = KERAS.keras.Input((8, 8, 3), name="image")
    branches = [L.ReLU(6.0)(L.Conv2D(2, k, padding="same")(inputs)) for k in (1, 3)]
    join = L.Concatenate(name="join")(branches)
    model = quantized(KERAS.keras.Model(inputs, L.Conv2D(2, 1)(join)))
    fold_model(model)
    quantizer, variables = output_quantizer(model.get_layer("quant_join"))
    quantizer.set_range(variables, 0.0, 9.0)
    assert "the range of 'quant_join' must not exceed its ReLU's 6.0" in refusal(model)
