"""WRPN inside tfmot: its annotations, its `quantize_apply`, its default scheme and ours."""

from __future__ import annotations

import numpy as np
import pytest
import tf_keras

from wrpn_tf import quantize_model
from wrpn_tf.quantization import (
    ObservedQuantizer,
    WRPNActivationQuantizer,
    WRPNQuantizeConfig,
    WRPNWeightQuantizer,
)
from wrpn_tf.quantization.quantize_scheme import WRPNQuantizeScheme, tfmot


@pytest.fixture
def flavor(request):
    """tfmot knows tf_keras only."""
    from wrpn_tf.keras_flavor import TF_KERAS

    return TF_KERAS


def dense_net():
    L = tf_keras.layers
    inputs = tf_keras.Input((4,), name="a")
    x = L.Dense(5, activation="relu", name="first")(inputs)
    x = L.Dense(5, activation="relu", name="middle")(x)
    return tf_keras.Model(inputs, L.Dense(2, name="last")(x))


def annotated(model, config_of):
    """A clone whose layers are annotated with the config of their name, if there is one."""

    def annotate(layer):
        if layer.name not in config_of:
            return layer
        return tfmot.quantize_annotate_layer(layer, config_of[layer.name])

    return tf_keras.models.clone_model(model, clone_function=annotate)


def config():
    return WRPNQuantizeConfig({"kernel": WRPNWeightQuantizer(2, 0.5)}, WRPNActivationQuantizer(4))


def test_the_whole_model_annotated_is_what_quantize_model_gives(listed):
    model = dense_net()
    scheme = WRPNQuantizeScheme(num_bits_weight=4)
    quantized = tfmot.quantize_apply(tfmot.quantize_annotate_model(model), scheme)
    assert listed(quantized) == listed(quantize_model(model, num_bits_weight=4))


def test_of_a_partly_annotated_model_nothing_else_is_quantized(listed):
    model = annotated(dense_net(), {"middle": None})
    assert listed(tfmot.quantize_apply(model, WRPNQuantizeScheme())) == {"middle": "w2 o8"}


def test_a_layers_own_config_wins(listed):
    model = annotated(dense_net(), {"middle": config(), "last": None})
    found = listed(tfmot.quantize_apply(model, WRPNQuantizeScheme()))
    assert found == {"middle": "w2=0.5 u4=1.0", "last": "w8 o8"}


def test_one_layer_with_our_config_in_tfmots_own_scheme():
    model = annotated(dense_net(), {"first": None, "middle": config(), "last": None})
    quantized = tfmot.quantize_apply(model)
    layer = quantized.get_layer("quant_middle")
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    levels = np.unique(np.array(tf_keras.Model(quantized.input, layer.output)(values)) * 15)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-5)  # 4 bits on [0, 1]
    (variable, quantizer, _), *_ = layer._weight_vars
    assert quantizer == WRPNWeightQuantizer(2, 0.5)
    assert set(np.unique(quantizer.to_int(variable))) <= {-1, 0, 1}


def test_rules_reach_the_scheme(listed):
    scheme = WRPNQuantizeScheme(first_layer="float", overrides={"middle": {"num_bits_weight": 3}})
    found = listed(tfmot.quantize_apply(tfmot.quantize_annotate_model(dense_net()), scheme))
    assert found == {"first": "o8", "middle": "w3 o8", "last": "w8 o8"}


def test_rules_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`num_bits_weight` must be in 1..8, got 9"):
        WRPNQuantizeScheme(num_bits_weight=9)


def test_our_classes_are_tfmots():
    for quantizer in (WRPNWeightQuantizer(2, "mean"), ObservedQuantizer(8)):
        assert isinstance(quantizer, tfmot.quantizers.Quantizer)
    assert isinstance(config(), tfmot.QuantizeConfig)


def test_a_file_of_tfmots_own_wrappers_loads(tmp_path):
    quantized = tfmot.quantize_apply(
        tfmot.quantize_annotate_model(dense_net()), WRPNQuantizeScheme(num_bits_weight=4)
    )
    quantized.compile("sgd", "mse")
    x = np.random.default_rng(0).random((8, 4)).astype(np.float32)
    quantized.fit(x, np.ones((8, 2)), epochs=2, verbose=0)
    quantized.save(str(tmp_path / "model.keras"))
    loaded = tf_keras.models.load_model(str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(loaded(x), quantized(x))
