"""Which layer gets which bits, scale and range: arguments, first and last layers, overrides."""

from __future__ import annotations

import pytest

from wrpn_tf import quantize_model
from wrpn_tf.quantization import PAPER_RECIPE

DEFAULT = {
    "image": "i8",
    "stem": "w8",
    "relu0": "u8",
    "conv1": "w2",
    "relu1": "u8",
    "depthwise": "w2",
    "bn2": "s8",
    "relu2": "u8",
    "pool": "o8",
    "head": "w8 o8",
}

ARGUMENTS = [
    ({}, {}),
    ({"num_bits_weight": 4}, {"conv1": "w4", "depthwise": "w4"}),
    ({"num_bits_weight": 1}, {"conv1": "w1", "depthwise": "w1"}),
    ({"num_bits_activation": 3}, {"relu0": "u3", "relu1": "u3"}),
    ({"num_bits_activation": 1}, {"relu0": "u1", "relu1": "u1"}),
    (
        {"weight_scale": "max"},
        {"stem": "w8=max", "conv1": "w2=max", "depthwise": "w2=max", "head": "w8=max o8"},
    ),
    (
        {"activation_range": 2.0},
        dict.fromkeys(("relu0", "relu1", "relu2", "pool"), "u8=2.0") | {"bn2": "s8=3.92"},
    ),
    ({"activation_range": "observed"}, dict.fromkeys(("relu0", "relu1", "bn2", "relu2"), "o8")),
    ({"first_layer": 4}, {"stem": "w4"}),
    ({"last_layer": 3}, {"head": "w3 o8"}),
    ({"first_layer": "float"}, {"image": None, "stem": None}),
    ({"last_layer": "float"}, {"head": None}),
    (
        {"num_bits_weight": 4, "num_bits_activation": 4, **PAPER_RECIPE},
        {
            "image": None,
            "stem": None,
            "relu0": "u4=1.0",
            "conv1": "w4=none",
            "relu1": "u4=1.0",
            "depthwise": "w4=none",
            "bn2": "s8=3.92",
            "relu2": "u8=1.0",
            "pool": "u8=1.0",
            "head": None,
        },
    ),
]
OVERRIDES = [
    ({"conv1": {"num_bits_weight": 5}}, {"conv1": "w5"}),
    ({"conv.*|depth.*": {"num_bits_weight": 3}}, {"conv1": "w3", "depthwise": "w3"}),
    ({"conv1": {"weight_scale": 0.5}}, {"conv1": "w2=0.5"}),
    ({"relu1": {"num_bits_activation": 4}}, {"relu1": "u4"}),
    ({"relu1": {"activation_range": 3.0}}, {"relu1": "u8=3.0"}),
    ({"relu1": {"activation_range": "observed"}}, {"relu1": "o8"}),
    ({"relu1": "float"}, {"relu1": None}),
    ({"conv1": "float"}, {"conv1": None}),
    (
        {"stem": {"num_bits_weight": 2}, "head": {"num_bits_weight": 2}},
        {"stem": "w2", "head": "w2 o8"},
    ),
    ({"stem": "float"}, {"image": None, "stem": None}),
    # Later rules win, key by key.
    (
        {".*": {"num_bits_weight": 6, "weight_scale": "max"}, "conv1": {"num_bits_weight": 3}},
        {"stem": "w6=max", "conv1": "w3=max", "depthwise": "w6=max", "head": "w6=max o8"},
    ),
    ({"conv1": {"num_bits_weight": 3}, ".*1": {"num_bits_weight": 4}}, {"conv1": "w4"}),
    ({"conv1": "float", ".*v1": {"num_bits_weight": 4}}, {"conv1": "w4"}),
]


def check(found, changes):
    expected = {**DEFAULT, **changes}
    assert found == {name: value for name, value in expected.items() if value is not None}


@pytest.mark.parametrize(("arguments", "changes"), ARGUMENTS, ids=str)
def test_arguments(conv_net, listed, arguments, changes):
    check(listed(quantize_model(conv_net(), **arguments)), changes)


@pytest.mark.parametrize(("overrides", "changes"), OVERRIDES, ids=str)
def test_overrides(conv_net, listed, overrides, changes):
    check(listed(quantize_model(conv_net(), overrides=overrides)), changes)


def test_overrides_match_paths_of_nested_models_and_layers_that_are_split(flavor, listed):
    L = flavor.layers
    inner = flavor.keras.Sequential(
        [
            flavor.keras.Input((8, 8, 4)),
            L.SeparableConv2D(4, 3, name="conv"),
            L.ReLU(name="relu"),
        ],
        name="block",
    )
    inputs = flavor.keras.Input((8, 8, 3), name="image")
    x = L.Flatten()(inner(L.Conv2D(4, 1, name="stem")(inputs)))
    model = flavor.keras.Model(inputs, L.Dense(2, activation="softmax", name="head")(x))
    found = listed(quantize_model(model, overrides={"block/.*": {"num_bits_weight": 4}}))
    assert {n: q for n, q in found.items() if n.startswith("block")} == {
        "block_conv_depthwise": "w4 o8",
        "block_conv": "w4",
        "block_relu": "o8",
    }
    found = listed(quantize_model(model, overrides={"block_conv_depthwise": "float"}))
    assert found["block_conv_depthwise"] == "o8"
    assert found["block_conv"] == "w2"


def test_a_rule_that_matches_nothing_names_near_layers(conv_net, monkeypatch):
    # Refused before tfmot, which takes long, is asked for anything.
    monkeypatch.setattr("wrpn_tf.quantization.quantize_scheme.tfmot", None)
    message = r"the rule 'cnov1' matches no layer. Near names: conv1"
    with pytest.raises(ValueError, match=message):
        quantize_model(conv_net(), overrides={"cnov1": "float"})


def test_rules_match_whole_names(conv_net):
    with pytest.raises(ValueError, match="the rule 'conv' matches no layer. Near names: .*conv1"):
        quantize_model(conv_net(), overrides={"conv": "float"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"relu1": {"num_bits_weight": 4}},
            r"`overrides\['relu1'\]` sets `num_bits_weight` and .* kernels, got relu1",
        ),
        (
            {"conv1": {"num_bits_activation": 4}},
            r"`overrides\['conv1'\]` sets `num_bits_activation` and .* rounded .*, got conv1",
        ),
        ({"bn1": "float"}, r"`overrides\['bn1'\]` sets \"float\" and .* kernels, or .*, got bn1"),
    ],
    ids=str,
)
def test_overrides_without_effect_are_refused(conv_net, overrides, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(conv_net(), overrides=overrides)


# What is wrong whatever the model is, is refused before the model is looked at.
NO_MODEL = None


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["conv1"], TypeError, r"`overrides` must be a dictionary .*, got \['conv1'\]"),
        ({"(": "float"}, ValueError, "must have regular expressions as keys, got '\\('"),
        ({5: "float"}, ValueError, "must have regular expressions as keys, got 5"),
        ({"conv1": {}}, ValueError, r"`overrides\['conv1'\]` must be .*, got {}"),
        ({"conv1": {"bits": 2}}, ValueError, r"`overrides\['conv1'\]` must be .*, got {'bits': 2}"),
        ({"conv1": 4}, ValueError, r"`overrides\['conv1'\]` must be \"float\" or a dict.* got 4"),
        (
            {"conv1": {"num_bits_weight": 9}},
            ValueError,
            r"`overrides\['conv1'\]`: `num_bits_weight` must be in 1..8, got 9",
        ),
        ({"conv1": {"num_bits_weight": True}}, TypeError, "`num_bits_weight` must be an int"),
        ({"conv1": {"weight_scale": "big"}}, ValueError, "`weight_scale` must be .* got 'big'"),
        ({"conv1": {"activation_range": 0}}, ValueError, "`activation_range` must be .* got 0"),
        (
            {"conv1": {"activation_range": float("inf")}},
            ValueError,
            "`activation_range` must be .* got inf",
        ),
        (
            {"conv1": {"num_bits_activation": 0}},
            ValueError,
            "`num_bits_activation` must be in 1..8",
        ),
    ],
    ids=str,
)
def test_overrides_out_of_range_are_refused(overrides, error, message):
    with pytest.raises(error, match=message):
        quantize_model(NO_MODEL, overrides=overrides)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_bits_weight": 0}, ValueError, "`num_bits_weight` must be in 1..8, got 0"),
        (
            {"num_bits_weight": 2.0},
            TypeError,
            "`num_bits_weight` must be an int in 1..8, got float",
        ),
        ({"num_bits_weight": "float"}, TypeError, "`num_bits_weight` must be an int"),
        ({"num_bits_activation": 9}, ValueError, "`num_bits_activation` must be in 1..8, got 9"),
        ({"num_bits_activation": True}, TypeError, "`num_bits_activation` must be an int"),
        ({"first_layer": 16}, ValueError, "`first_layer` must be in 1..8, got 16"),
        (
            {"last_layer": "none"},
            TypeError,
            "`last_layer` must be an int .* got 'none'",
        ),
        ({"weight_scale": "men"}, ValueError, "`weight_scale` must be .* got 'men'"),
        ({"activation_range": "relu"}, ValueError, "`activation_range` must be .* got 'relu'"),
        ({"activation_range": -1.0}, ValueError, "`activation_range` must be .* got -1.0"),
        ({"activation_range": float("nan")}, ValueError, "`activation_range` must be .* got nan"),
        ({"activation_range": float("inf")}, ValueError, "`activation_range` must be .* got inf"),
        ({"activation_range": True}, ValueError, "`activation_range` must be .* got True"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        quantize_model(NO_MODEL, **arguments)
