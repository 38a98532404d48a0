"""The summary: bits, bytes, costs and the names of what stays float, as data and as a table."""

from __future__ import annotations

import json

import pytest
import tf_keras

import wrpn_tf
from wrpn_tf import applications, keras_flavor
from wrpn_tf.quantization import PAPER_RECIPE

# ResNet8 at 32x32x3 with 10 classes: parameters and multiply-accumulates.
_STEM = 3 * 3 * 3 * 16
_STAGE1 = 2 * 3 * 3 * 16 * 16
_STAGE2 = (3 * 3 * 16 + 16 + 3 * 3 * 32) * 32
_STAGE3 = (3 * 3 * 32 + 32 + 3 * 3 * 64) * 64
_BLOCKS = _STAGE1 + _STAGE2 + _STAGE3
_HEAD = 64 * 10
_NORMS = 4 * (3 * 16 + 3 * 32 + 3 * 64)
_STEM_MACS = 32 * 32 * _STEM
_BLOCK_MACS = 32 * 32 * _STAGE1 + 16 * 16 * _STAGE2 + 8 * 8 * _STAGE3
_MACS = _STEM_MACS + _BLOCK_MACS + _HEAD


def quantized_resnet(flavor, **options):
    return wrpn_tf.quantize_model(applications.ResNet8(keras_flavor=flavor.name), **options)


def test_a_float_model_costs_what_float_costs(flavor):
    model = applications.ResNet8(keras_flavor=flavor.name)
    summary = wrpn_tf.summary(model, print_fn=None)
    assert summary.num_parameters == model.count_params() == _STEM + _BLOCKS + _HEAD + 10 + _NORMS
    assert summary.num_bytes == summary.num_bytes_float == 4 * model.count_params()
    assert summary.macs == {"32x32": _MACS}
    assert summary.cost == summary.cost_float == 64 * _MACS
    assert (summary.relative_cost, summary.compression) == (1.0, 1.0)
    assert len(summary.float_weights) == 1 + 8 + 1
    assert summary.float_activations == ()
    assert summary.float_parameters == {"BatchNormalization": 9}
    assert "Every weight is float." in str(summary).splitlines()


def test_bits_bytes_and_cost_of_a_quantized_model(flavor):
    summary = wrpn_tf.summary(
        quantized_resnet(flavor, num_bits_weight=2, num_bits_activation=4), print_fn=None
    )
    # By default the first and the last layer are 8 bits, and what they read.
    assert summary.macs == {"8x8": _STEM_MACS + _HEAD, "4x2": _BLOCK_MACS}
    assert summary.cost == (8 + 8) * (_STEM_MACS + _HEAD) + (4 + 2) * _BLOCK_MACS
    assert summary.relative_cost == summary.cost / (64 * _MACS)
    # The quantizers' own variables are no parameters.
    assert summary.num_parameters == _STEM + _BLOCKS + _HEAD + 10 + _NORMS
    assert summary.num_bytes == _STEM + _BLOCKS * 2 // 8 + _HEAD + 4 * (10 + _NORMS)
    assert summary.num_bytes_float == 4 * summary.num_parameters
    assert (summary.float_weights, summary.float_activations) == ((), ())
    assert summary.uncounted == {}


def test_rows_go_by_the_layers_own_names(flavor):
    summary = wrpn_tf.summary(quantized_resnet(flavor, num_bits_activation=4), print_fn=None)
    rows = {row.path: row for row in summary.layers}
    row = rows["stage2_block0_shortcut"]
    assert (row.class_name, row.output_shape) == ("Conv2D", (1, 16, 16, 32))
    assert (row.num_bits_weight, row.num_bits_activation) == ({"kernel": 2}, 4)
    assert (row.num_parameters, row.num_bytes) == (16 * 32, 16 * 32 * 2 // 8)
    assert row.macs == {"4x2": 16 * 16 * 16 * 32}
    assert rows["predictions"].num_bytes == 64 * 10 + 4 * 10


def test_the_literal_papers_first_and_last_layers_are_named_as_float(flavor):
    model = quantized_resnet(flavor, num_bits_weight=4, num_bits_activation=1, **PAPER_RECIPE)
    summary = wrpn_tf.summary(model, print_fn=None)
    assert summary.float_weights == ("stem_conv", "predictions")
    assert sum(summary.macs.values()) == _MACS
    assert summary.macs["1x4"] == _BLOCK_MACS
    assert "Float weights: stem_conv, predictions" in str(summary).splitlines()


def test_quantized_weights_on_float_values_are_named(flavor):
    overrides = {"stage1_block0_relu1": "float", "stage3_block0_conv2": "float"}
    model = quantized_resnet(flavor, overrides=overrides)
    summary = wrpn_tf.summary(model, print_fn=None)
    assert summary.float_activations == ("stage1_block0_conv2",)
    assert summary.float_weights == ("stage3_block0_conv2",)
    assert summary.macs["32x2"] == 32 * 32 * 3 * 3 * 16 * 16
    assert summary.macs["8x32"] == 8 * 8 * 3 * 3 * 64 * 64
    line = "Quantized weights on float activations: stage1_block0_conv2"
    assert line in str(summary).splitlines()


def test_bits_pass_through_layers_that_only_move_values(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = layers.Dropout(0.5)(layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(x)))
    x = layers.Dense(5, activation="relu", name="middle")(layers.Flatten()(x))
    x = layers.Dense(3, name="last")(x)
    model = wrpn_tf.quantize_model(flavor.keras.Model(inputs, x), num_bits_activation=3)
    rows = {row.path: row for row in wrpn_tf.summary(model, print_fn=None).layers}
    assert rows["middle"].macs == {"3x2": 4 * 4 * 4 * 5}


def test_the_batch_scales_macs_cost_and_shapes_and_not_bytes(flavor):
    model = applications.ResNet8(keras_flavor=flavor.name)
    one, many = (wrpn_tf.summary(model, batch_size=n, print_fn=None) for n in (1, 32))
    assert many.macs == {"32x32": 32 * _MACS}
    assert (many.cost, many.cost_float) == (32 * one.cost, 32 * one.cost_float)
    assert many.layers[0].output_shape == (32, 32, 32, 16)
    assert (many.num_bytes, many.relative_cost) == (one.num_bytes, one.relative_cost)


def test_a_separable_convolution_counts_each_kernel(flavor):
    inputs = flavor.keras.Input((8, 8, 2))
    x = flavor.keras.layers.SeparableConv2D(5, 3, padding="same", name="both")(inputs)
    model = flavor.keras.Model(inputs, x)
    row = wrpn_tf.summary(model, print_fn=None).layers[0]
    assert row.num_bits_weight == {"depthwise_kernel": 32, "pointwise_kernel": 32}
    assert row.macs == {"32x32": 8 * 8 * (3 * 3 * 2 + 2 * 5)}


def test_the_dictionary_is_json_with_the_derived_figures():
    model = applications.ResNet8(input_shape=(8, 8, 1))
    summary = wrpn_tf.summary(model, print_fn=None)
    data = summary.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["num_macs"] == summary.num_macs
    assert data["compression"] == 1.0
    assert data["layers"][0]["path"] == "stem_conv"
    assert data["layers"][0]["output_shape"] == [1, 8, 8, 16]


def test_the_table_is_printed_line_by_line_within_100_columns(capsys):
    model = applications.ResNet8(input_shape=(8, 8, 1))
    lines = []
    summary = wrpn_tf.summary(model, print_fn=lines.append)
    assert "\n".join(lines) == str(summary)
    assert max(len(line) for line in lines) == 100
    assert capsys.readouterr().out == ""
    wrpn_tf.summary(model)
    assert capsys.readouterr().out == str(summary) + "\n"


def test_long_names_and_unknown_layers_fit_the_table(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((4, 3))
    long = "a_name_far_longer_than_the_column_that_holds_it"
    x = layers.LSTM(2, name=long, return_sequences=True)(inputs)
    x = layers.SeparableConv1D(2, 1, name="s" * 24)(x)
    summary = wrpn_tf.summary(flavor.keras.Model(inputs, x, name="net"), print_fn=None)
    lines = str(summary).splitlines()
    assert max(len(line) for line in lines) == 100
    assert lines[4].startswith("a_name_far_longe..mn_that_holds_it 1x4x2 ")
    assert lines[4].endswith(" unknown")
    assert lines[5].startswith("s" * 24 + " (Separ..) 1x4x2 ")
    assert f"MACs unknown, in no total: {long} (LSTM" in "\n".join(lines)
    assert list(summary.uncounted) == [long]


def test_a_model_without_macs_has_no_relative_cost(flavor):
    inputs = flavor.keras.Input((4,))
    model = flavor.keras.Model(inputs, flavor.keras.layers.BatchNormalization()(inputs))
    summary = wrpn_tf.summary(model, print_fn=None)
    assert summary.relative_cost is None
    assert "MACs" not in str(summary).splitlines()[-1]


@pytest.mark.parametrize(
    ("batch_size", "error"),
    [(0, ValueError), (-2, ValueError), (2.0, TypeError), (True, TypeError)],
)
def test_bad_batch_sizes_are_refused(batch_size, error):
    model = applications.ResNet8(input_shape=(8, 8, 1))
    with pytest.raises(error, match="`batch_size` must be"):
        wrpn_tf.summary(model, batch_size=batch_size)


def test_a_model_quantized_by_tfmot_alone_tells_its_bits():
    tfmot = keras_flavor.import_tfmot()
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            tf_keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(2, name="dense"),
        ]
    )
    summary = wrpn_tf.summary(tfmot.quantization.keras.quantize_model(model), print_fn=None)
    assert summary.macs == {"8x8": 6 * 6 * 3 * 3 * 3 * 6 + 6 * 6 * 6 * 2}
    assert summary.num_bytes == 3 * 3 * 3 * 6 + 4 * 6 + 6 * 6 * 6 * 2 + 4 * 2
