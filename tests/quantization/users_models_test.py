"""What users' models have beside plain layers: masks, regularizers, words, own functions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from wrpn_tf import calibrate, quantize_model
from wrpn_tf.keras_flavor import KERAS, TF_KERAS


def sequential(flavor, *layers):
    return flavor.keras.Sequential([flavor.keras.Input((8, 8, 3)), *layers])


@pytest.mark.parametrize(
    "make",
    [
        lambda: KERAS.layers.Conv2D(4, 3, activation="sigmoid", activity_regularizer="l1"),
        lambda: KERAS.layers.SeparableConv2D(4, 3, activity_regularizer="l1"),
        lambda: KERAS.layers.SeparableConv2D(4, 3, activation="tanh", activity_regularizer="l1"),
    ],
)
def test_activity_regularizers_see_the_end_of_a_layer_that_is_split(make):
    L = KERAS.layers
    model = sequential(KERAS, make(), L.Flatten(), L.Dense(2))
    quantized = quantize_model(model, num_bits_weight=8, weight_scale="max_per_channel")
    values = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
    calibrate(quantized, values, verbose=False)
    model(values), quantized(values)
    assert len(quantized.losses) == len(model.losses) == 1
    np.testing.assert_allclose(quantized.losses[0], model.losses[0], rtol=0.02)  # of 8 bits


def test_activity_regularizers_are_refused_where_tfmot_would_lose_them():
    dense = TF_KERAS.layers.Dense(3, activity_regularizer="l1", name="first")
    with pytest.raises(ValueError, match="no `activity_regularizer` in tf_keras.*at first"):
        quantize_model(sequential(TF_KERAS, dense, TF_KERAS.layers.Dense(2)))


def test_parts_of_a_layer_get_names_that_no_other_has(flavor):
    L = flavor.layers
    layers = [
        L.SeparableConv2D(4, 3, name="block"),
        L.Conv2D(4, 1, name="block_depthwise"),
        L.Dense(4, activation="tanh", name="fc"),
        L.Dense(2, name="fc_tanh"),
    ]
    quantized = quantize_model(sequential(flavor, *layers))
    names = [layer.name for layer in quantized.layers[2:]]
    assert names == [
        "quant_block_depthwise_1",
        "quant_block",
        "quant_block_depthwise",
        "quant_fc",
        "quant_fc_tanh_1",
        "quant_fc_tanh",
    ]


def own_activation(x):
    return x * tf.nn.sigmoid(x)


def test_the_users_own_classes_and_functions(flavor):
    class Filters(flavor.layers.Conv2D):
        pass

    L = flavor.layers
    model = sequential(flavor, Filters(4, 3, activation=own_activation), L.Flatten(), L.Dense(2))
    quantized = quantize_model(model, num_bits_weight=8, weight_scale="max_per_channel")
    values = np.random.default_rng(0).normal(size=(8, *model.input_shape[1:])).astype(np.float32)
    calibrate(quantized, values, verbose=False)
    expected = model(values)
    assert np.abs(quantized(values) - expected).max() < 0.1 * np.abs(expected).max()


def test_functions_without_a_name(flavor):
    L = flavor.layers
    model = sequential(
        flavor, L.Dense(4, activation=lambda x: tf.nn.tanh(x), name="first"), L.Dense(2)
    )
    if flavor is TF_KERAS:
        with pytest.raises(ValueError, match="different names in tf_keras.*'<lambda>' at 'first_"):
            quantize_model(model)
    else:
        quantized = quantize_model(model)
        assert [layer.name for layer in quantized.layers][2:] == [
            "quant_first",
            "quant_first_lambda",
            quantized.layers[-1].name,
        ]
        assert np.isfinite(quantized.predict(np.ones((1, *model.input_shape[1:])), verbose=0)).all()


def test_layers_that_look_words_up_keep_what_they_learned(word_model):
    model, words = word_model
    expected = np.array(model(words))
    assert expected.std(axis=0).min() > 0  # Each word has outputs of its own.
    quantized = quantize_model(model, num_bits_weight=8, weight_scale="max_per_channel")
    np.testing.assert_allclose(quantized(words), expected, atol=0.05 * np.abs(expected).max())


def test_a_layers_own_setting_of_the_same_name_stays(flavor):
    class Scaled(flavor.layers.Layer):
        def call(self, inputs):
            return 2.0 * inputs

        def get_config(self):
            return {**super().get_config(), "vocabulary": None}

        @classmethod
        def from_config(cls, config):
            assert config.pop("vocabulary") is None
            return cls(**config)

    quantized = quantize_model(sequential(flavor, Scaled(name="scaled"), flavor.layers.Dense(2)))
    assert any("scaled" in layer.name for layer in quantized.layers)


def test_masks_are_those_of_the_layers():
    L = KERAS.layers
    inputs = KERAS.keras.Input((5,), dtype="int32")
    embedded = L.Embedding(9, 4, mask_zero=True)(inputs)
    other = L.Embedding(9, 4, mask_zero=True)(L.Maximum()([inputs, inputs - 3]))
    both = L.Add(name="both")([embedded, other])
    outputs = L.Dense(2)(L.GlobalAveragePooling1D(name="mean")(both))
    model = KERAS.keras.Model(inputs, [outputs, both])
    quantized = quantize_model(model)
    values = np.random.default_rng(0).integers(0, 4, (6, 5))
    for expected, got in zip(model(values), quantized(values), strict=True):
        masks = [getattr(x, "_keras_mask", None) for x in (expected, got)]
        assert (masks[0] is None) == (masks[1] is None)
        if masks[0] is not None:
            np.testing.assert_array_equal(*masks)
    quantized.compile("sgd", "mse")
    quantized.fit(values, [np.ones((6, 2)), np.ones((6, 5, 4))], verbose=0)


def test_parts_of_a_layer_keep_its_precision():
    L, policy = KERAS.layers, KERAS.keras.config
    policy.set_dtype_policy("mixed_float16")
    try:
        hidden = L.Dense(4, activation="tanh", name="hidden")
        head = L.Dense(2, activation="softmax", dtype="float32", name="head")
        model = sequential(KERAS, hidden, head)
    finally:
        policy.set_dtype_policy("float32")
    quantized = quantize_model(model)
    found = {layer.name: layer.compute_dtype for layer in quantized.layers}
    assert found["quant_hidden_tanh"] == found["quant_hidden"] == "float16"
    assert found["head_softmax"] == found["quant_head"] == "float32"
    assert quantized.outputs[0].dtype == model.outputs[0].dtype == "float32"
