"""The plan says of a network that is not built what the summary says once it is."""

from __future__ import annotations

import json

import keras
import pytest
import tensorflow as tf

import wrpn_tf
from wrpn_tf.analysis import ModelProfile, plan, widened_profile
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.quantization import PAPER_RECIPE, prepare
from wrpn_tf.widening import widen


def mixed_model(flavor):
    """A layer of every kind that quantization or widening treats in its own way."""
    layers = flavor.keras.layers
    inner = flavor.keras.Sequential(
        [flavor.keras.Input((8, 8, 8)), layers.DepthwiseConv2D(3, padding="same", name="each")],
        name="inner",
    )
    inputs = flavor.keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(layers.Rescaling(0.5)(inputs))
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization()(x))
    shared = layers.Conv2D(8, 1, activation="relu", name="shared")
    y = layers.Add(name="add")([x, shared(shared(x))])
    y = layers.SeparableConv2D(12, 3, activation="tanh", name="separable")(inner(y))
    y = layers.Conv2D(8, 3, groups=2, name="grouped")(y)
    y = layers.Conv2D(8, 1, groups=8, name="channelwise")(y)
    z = layers.Conv2DTranspose(4, 2, name="transposed")(layers.MaxPooling2D(2)(y))
    y = layers.Concatenate()([layers.Cropping2D(((0, 1), (0, 1)))(layers.ZeroPadding2D(0)(y)), z])
    y = layers.Dense(6, activation="sigmoid", name="gate")(layers.Flatten()(y))
    return flavor.keras.Model(inputs, layers.Dense(4, activation="softmax", name="last")(y))


def assert_cells_are_summaries(model, cells, **options):
    float_cost = wrpn_tf.summary(model, print_fn=None).cost
    for cell in cells:
        built = wrpn_tf.widen_and_quantize(
            model,
            width_multiplier=cell.width_multiplier,
            num_bits_weight=cell.num_bits_weight,
            num_bits_activation=cell.num_bits_activation,
            **options,
        )
        expected = wrpn_tf.summary(built, print_fn=None)
        assert cell.num_macs == expected.num_macs
        assert cell.num_parameters == expected.num_parameters
        assert cell.num_bytes == expected.num_bytes
        # Both are exact but for the division.
        assert cell.cost == pytest.approx(expected.cost / float_cost, rel=1e-15)


@pytest.mark.parametrize(
    ("width", "options"),
    [
        (1.5, {}),
        (2, {"layer_fraction": 0.3, "width_overrides": {"stem": 1}, **PAPER_RECIPE}),
        (1, {"overrides": {"shared": "float", "stem_relu": {"num_bits_activation": 6}}}),
    ],
)
def test_a_cell_is_the_summary_of_the_network_once_built(width, options, flavor):
    model = mixed_model(flavor)
    found = plan(model, num_bits=[(2, 1)], width_multipliers=[width], print_fn=None, **options)
    cells = [cell for cell in found.cells if cell.num_bits_weight < 32]
    assert len(cells) == 1
    assert_cells_are_summaries(model, cells, **options)


@pytest.mark.parametrize("bits", [(2, 1), (2, 8)])
def test_splits_and_sums_of_three_cost_what_they_do_once_built(flavor, bits):
    layers = flavor.keras.layers
    split = flavor.keras.ops.split if flavor is KERAS else tf.split
    inputs = flavor.keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    halves = [layers.Conv2D(4, 1, activation="relu")(half) for half in split(x, 2, axis=-1)]
    y = layers.Conv2D(4, 1, activation="relu")(layers.Add()([*halves, x]))
    y = layers.Conv2D(4, 1)(layers.Multiply()([x, y, halves[0]]))
    model = flavor.keras.Model(inputs, layers.Dense(2)(layers.Flatten()(y)))
    found = plan(model, num_bits=[bits], width_multipliers=[1], print_fn=None)
    assert_cells_are_summaries(model, [cell for cell in found.cells if cell.num_bits_weight < 32])


def test_a_widened_profile_is_the_profile_of_the_widened_model(flavor):
    model = mixed_model(flavor)
    options = {"width_multiplier": 1.5, "overrides": {"shared": 3}, "divisor": 4}
    planned = widened_profile(model, **options)
    built = ModelProfile(wrpn_tf.widen_model(model, **options))
    assert len(planned.layers) == len(built.layers)
    for expected, row in zip(built.layers, planned.layers, strict=True):
        assert row.output_shapes == expected.output_shapes, row.path
        assert row.input_shapes == expected.input_shapes, row.path
        assert row.weights == expected.weights, row.path
        assert row.macs == expected.macs, row.path


def test_nothing_is_built(flavor, monkeypatch):
    def refuse(*_):
        raise AssertionError("a model is being built")

    model = mixed_model(flavor)
    monkeypatch.setattr(prepare, "rebuild", refuse)
    monkeypatch.setattr(widen, "rebuild", refuse)
    assert plan(model, print_fn=None).cells


def test_the_float_network_leads_and_cells_are_found_by_bits_and_width():
    model = wrpn_tf.applications.ResNet8(input_shape=(8, 8, 1))
    found = plan(model, num_bits=[(2, 8), (4, 4)], width_multipliers=[1, 2], print_fn=None)
    order = [(c.num_bits_weight, c.num_bits_activation, c.width_multiplier) for c in found.cells]
    pairs = [(32, 32), (2, 8), (4, 4)]
    assert order == [(*pair, width) for pair in pairs for width in (1, 2)]
    assert found.cell(32, 32).cost == 1.0
    narrow, wide = found.cell(32, 32), found.cell(32, 32, 2)
    assert wide.num_macs / narrow.num_macs == wide.cost
    assert found.cell(4, 4, 2) is found.cells[5]
    with pytest.raises(KeyError, match="no cell with 8 bits"):
        found.cell(8, 8)


def test_the_product_model_counts_products_of_bits():
    model = wrpn_tf.applications.ResNet8(input_shape=(8, 8, 1))
    found = plan(
        model, num_bits=[(2, 4)], width_multipliers=[1], cost_model="product", print_fn=None
    )
    macs = wrpn_tf.summary(wrpn_tf.quantize_model(model, num_bits_activation=4), print_fn=None).macs
    low = macs["8x8"] * 64 + macs["4x2"] * 8
    assert found.cell(2, 4).cost == pytest.approx(low / 1024 / sum(macs.values()), rel=1e-15)


def test_the_table_fits_100_columns_and_wraps_widths(capsys):
    model = wrpn_tf.applications.ResNet8(input_shape=(8, 8, 1))
    found = plan(model, num_bits=[(2, 8)], width_multipliers=[1, 1.25, 1.5, 2, 3])
    printed = capsys.readouterr().out
    assert printed == str(found) + "\n"
    lines = printed.splitlines()
    assert max(map(len, lines)) == 100
    headers = [line.split()[1::2] for line in lines if line.startswith("bits  ")]
    assert headers == [["1x", "1.25x", "1.5x", "2x"], ["3x"]]
    cell = found.cell(2, 8, 3)
    assert lines[-2].split() == ["2b/8b", f"{cell.cost:.3f}", f"{cell.num_bytes:,}"]


def test_the_dictionary_is_json():
    model = wrpn_tf.applications.ResNet8(input_shape=(8, 8, 1))
    data = plan(model, num_bits=[(2, 8)], width_multipliers=[1], print_fn=None).to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["cells"][1]["num_bits_weight"] == 2


def test_unknown_layers_are_named_and_in_no_cost(flavor):
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((5, 3))
    x = layers.Dense(2, name="head")(layers.LSTM(4, name="memory")(inputs))
    found = plan(flavor.keras.Model(inputs, x), width_multipliers=[1], print_fn=None)
    assert list(found.uncounted) == ["memory"]
    assert "MACs unknown, in no cost: memory (LSTM has weights" in str(found)
    assert found.cell(32, 32).num_macs == 4 * 2


def test_a_model_of_unknown_size_is_refused(flavor):
    inputs = flavor.keras.Input((None, None, 3))
    x = flavor.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    model = flavor.keras.Model(inputs, flavor.layers.Conv2D(2, 1)(x), name="net")
    message = "`model` must have multiply-acc.*'net' without any, unknown ones in 'conv': the size"
    with pytest.raises(ValueError, match=message):
        plan(model)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cost_model": "bops"}, ValueError, "`cost_model` must be"),
        ({"num_bits": []}, ValueError, "`num_bits` must be a sequence of pairs"),
        ({"num_bits": [8]}, ValueError, "`num_bits` must be a sequence of pairs"),
        ({"num_bits": [(32, 8)]}, ValueError, "`num_bits_weight` must be in 1..8"),
        ({"width_multipliers": []}, ValueError, "`width_multipliers` must be a sequence"),
        ({"width_multipliers": 2}, ValueError, "`width_multipliers` must be a sequence"),
        ({"width_multipliers": [0]}, ValueError, "`width_multiplier` must be"),
        ({"overrides": {"nothing": "float"}}, ValueError, "matches no layer"),
        ({"first_layer": 9}, ValueError, "`first_layer` must be in 1..8"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    model = wrpn_tf.applications.ResNet8(input_shape=(8, 8, 1))
    with pytest.raises(error, match=message):
        plan(model, print_fn=None, **options)


def test_a_quantized_model_is_refused():
    model = wrpn_tf.quantize_model(wrpn_tf.applications.ResNet8(input_shape=(8, 8, 1)))
    with pytest.raises(ValueError, match="`model` must be a float model"):
        plan(model)
    with pytest.raises(TypeError, match="`model` must be"):
        plan("resnet")
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match="kernels to quantize"):
        plan(keras.Model(inputs, keras.layers.BatchNormalization()(inputs)))
