"""Plans: which layers change, to which width, and which keep theirs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from tests.widening import networks
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.widening import plan_widths, widen_model, width_plan


def _chain(flavor, *filters, classes=4):
    """Convolutions `conv_0`, `conv_1`, ... one after the other, then `logits`."""
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    for index, count in enumerate(filters):
        x = layers.Conv2D(count, 1, name=f"conv_{index}")(x)
    outputs = layers.Dense(classes, name="logits")(layers.Flatten()(x))
    return flavor.keras.Model(inputs, outputs)


def test_plan_of_a_chain(flavor):
    plan = plan_widths(_chain(flavor, 16, 32))
    assert list(plan.items()) == [("conv_0", 32), ("conv_1", 64), ("logits", 4)]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (networks.residual, {"stem": 20, "inner": 14, "last": 20, "logits": 4}),
        # c is added to [a, b, the 3 channels of the input]: 2 * 5 + 2 * 9 + 3.
        (networks.dense_connections, {"a": 10, "b": 18, "c": 31, "logits": 4}),
        (networks.squeeze_excite, {"stem": 24, "reduce": 6, "expand": 24, "logits": 4}),
        (networks.grouped, {"stem": 16, "grouped": 24, "back": 16, "logits": 4}),
        (networks.depth_multipliers, {"stem": 10, "separable": 12, "logits": 4}),
        (networks.decoder, {"a": 12, "b": 18, "c": 14, "logits": 4}),
        (networks.einsum, {"made": 16, "dots": 12}),
        (networks.shared, {"stem": 12, "twice": 12, "logits": 4}),
        # The attention map has one channel, which is broadcast.
        (networks.operators, {"stem": 20, "attention": 1, "last": 12, "logits": 4}),
        (networks.reshapes, {"stem": 12, "pixels": 10, "more": 10, "logits": 4}),
        (
            networks.zero_shortcuts,
            {"stem": 8, "inner_0": 16, "last_0": 16, "inner_1": 24, "last_1": 24, "logits": 4},
        ),
        (networks.operations, {"stem": 12, "logits": 4}),
        (networks.partial_blocks, {"stem": 16, "part": 10, "second": 4, "logits": 4}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_plan_of_each_structure(flavor, build, expected):
    assert plan_widths(build(flavor)) == expected


def test_plan_of_a_nested_model_names_paths(flavor):
    plan = plan_widths(networks.nested(flavor))
    assert plan == {
        "stem": 12,
        "block/up": 16,
        "block/down": 12,
        "tail": 10,
        "logits": 4,
        "mask": 2,
    }


def test_sequential_model(flavor):
    layers = flavor.layers
    model = flavor.keras.Sequential(
        [flavor.keras.Input((4, 4, 3)), layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(2)]
    )
    assert list(plan_widths(model).values()) == [16, 2]
    assert widen_model(model).output_shape == (None, 2)


@pytest.mark.parametrize(
    ("fraction", "widened"), [(1.0, 5), (0.5, 3), (0.34, 3), (1 / 3, 2), (0.3, 2), (0.01, 1)]
)
def test_fraction_counts_layers_from_the_input(flavor, fraction, widened):
    plan = plan_widths(_chain(flavor, 8, 8, 8, 8, 8), layer_fraction=fraction)
    assert list(plan.values()) == [16] * widened + [8] * (5 - widened) + [4]


def test_fraction_takes_a_group_by_its_first_layer(flavor):
    # Of stem, inner, last, logits the first half is stem, inner; last is added to stem.
    plan = plan_widths(networks.residual(flavor), layer_fraction=0.5)
    assert plan == {"stem": 20, "inner": 14, "last": 20, "logits": 4}
    plan = plan_widths(networks.residual(flavor), layer_fraction=0.25)
    assert plan == {"stem": 20, "inner": 7, "last": 20, "logits": 4}


def test_channels_of_zeros_are_as_many_as_a_sum_needs(flavor):
    model = networks.zero_shortcuts(flavor)
    plan = plan_widths(model, layer_fraction=0.1)
    # The stem's 4 channels, among the 8 and the 12 of the sums behind.
    assert plan == {
        "stem": 8,
        "inner_0": 8,
        "last_0": 8 + 4,
        "inner_1": 12,
        "last_1": 8 + 4 + 4,
        "logits": 4,
    }
    wide = widen_model(model, layer_fraction=0.1)
    assert wide.get_layer("last_1").filters == 16


@pytest.mark.parametrize("values", [{"mode": "reflect"}, {"constant_values": 1.0}])
def test_channels_of_other_values_than_zeros_keep_their_widths(flavor, values):
    layers = flavor.layers
    pad = flavor.keras.ops.pad if flavor is KERAS else tf.pad
    x = inputs = flavor.keras.Input((4, 4, 3))
    y = pad(layers.Conv2D(5, 1, name="fixed")(x), ((0, 0), (0, 0), (0, 0), (1, 1)), **values)
    y = layers.Conv2D(6, 1, name="free")(y)
    model = flavor.keras.Model(inputs, layers.Conv2D(2, 1, name="logits")(y))
    assert plan_widths(model) == {"fixed": 5, "free": 12, "logits": 2}


def test_override_by_regular_expression(flavor):
    plan = plan_widths(
        _chain(flavor, 8, 8, 8), layer_fraction=0.25, overrides={"conv_[12]": 3, "conv_2": 1.5}
    )
    assert plan == {"conv_0": 16, "conv_1": 24, "conv_2": 16, "logits": 4}  # 12 -> 16


def test_override_of_one_layer_governs_its_group(flavor):
    plan = plan_widths(networks.residual(flavor), overrides={"last": 3})
    assert plan == {"stem": 30, "inner": 14, "last": 30, "logits": 4}


def test_override_in_a_nested_model(flavor):
    plan = plan_widths(networks.nested(flavor), width_multiplier=1, overrides={"block/up": 2})
    assert plan["block/up"] == 16
    assert plan["stem"] == 6


@pytest.mark.parametrize(
    ("width", "multiplier", "divisor", "expected"),
    [
        (64, 2.0, 8, 128),
        (5, 3, 8, 15),  # An integer multiplier is exact.
        (64, 1.3, 8, 80),  # 83.2 lies between 80 and 88.
        (80, 1.3, 8, 104),
        (40, 1.1, 8, 48),  # 44: a tie goes up.
        (4, 1.3, 8, 5),  # 5.2 is below the divisor.
        (6, 1.3, 8, 8),  # 7.8 is, too.
        (17, 1.1, 8, 17),  # 18.7 would give 16, fewer than there are.
        (64, 1.3, 1, 83),
        (64, 1.3, 16, 80),
        (64, 0.5, 8, 32),
        (14, 0.95, 8, 14),  # 13.3 would give 16, more than there are.
        (1, 0.3, 8, 0),
    ],
)
def test_rounding(width, multiplier, divisor, expected):
    assert width_plan.round_width(width, multiplier, divisor) == expected


def test_divisor_holds_for_a_layer_of_several_groups_of_channels(flavor):
    # A grouped convolution of 4 x 4 channels: 16 * 1.3 = 20.8 is 24 as 4 x 6, not 4 x 8.
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 16))
    x = layers.Conv2D(16, 1, groups=4, name="grouped")(layers.Conv2D(16, 1, name="stem")(x))
    model = flavor.keras.Model(inputs, layers.Conv2D(4, 1, name="logits")(x))
    plan = plan_widths(model, width_multiplier=1.3)
    # Per block: 4 * 1.3 = 5.2 to a multiple of 8 / 4 = 2.
    assert plan == {"stem": 4 * 6, "grouped": 4 * 6, "logits": 4}


# What keeps its width.


def test_what_meets_the_models_input_keeps_its_width(flavor):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    y = layers.Add()([layers.Conv2D(3, 1, name="fixed")(x), x])
    y = layers.Conv2D(6, 1, name="free")(y)
    model = flavor.keras.Model(inputs, layers.Conv2D(2, 1, name="logits")(y))
    assert plan_widths(model) == {"fixed": 3, "free": 12, "logits": 2}


def test_a_softmax_over_channels_keeps_its_width(flavor):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((6,))
    y = layers.Dense(5, activation="softmax", name="gate")(x)
    y = layers.Multiply()([layers.Dense(5, name="expert")(x), y])
    y = layers.Dense(6, activation="relu", name="free")(y)
    model = flavor.keras.Model(inputs, layers.Dense(2, name="logits")(y))
    assert plan_widths(model) == {"gate": 5, "expert": 5, "free": 12, "logits": 2}


def test_a_constant_per_channel_keeps_its_width(flavor):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    y = layers.Conv2D(5, 1, name="fixed")(x) * np.arange(5.0, dtype="float32")
    y = layers.Conv2D(6, 1, name="free")(y)
    model = flavor.keras.Model(inputs, layers.Conv2D(2, 1, name="logits")(y))
    assert plan_widths(model) == {"fixed": 5, "free": 12, "logits": 2}


@pytest.mark.parametrize("key", [np.s_[..., ::2], np.s_[..., ::-1], np.s_[..., 1]], ids=str)
def test_single_channels_taken_out_keep_their_widths(flavor, key):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    y = layers.Conv2D(8, 1, name="fixed")(x)[key]
    y = y if len(y.shape) == 4 else layers.Reshape((4, 4, 1))(y)
    y = layers.Conv2D(6, 1, name="free")(y)
    model = flavor.keras.Model(inputs, layers.Conv2D(2, 1, name="logits")(y))
    assert plan_widths(model) == {"fixed": 8, "free": 12, "logits": 2}


def test_layers_with_unknown_weights_keep_their_widths(flavor):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((8,), dtype="int32")
    x = layers.Embedding(10, 6, name="fixed")(x)
    x = layers.LSTM(7)(x)
    x = layers.Dense(6, activation="relu", name="free")(x)
    model = flavor.keras.Model(inputs, layers.Dense(2, name="logits")(x))
    assert plan_widths(model) == {"fixed": 6, "free": 12, "logits": 2}
    assert widen_model(model).output_shape == (None, 2)


def test_a_mean_over_channels_keeps_its_width(flavor):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    y = layers.Conv2D(8, 1, name="fixed")(x)
    y = layers.Lambda(_mean_over_channels, output_shape=(4, 4))(y)
    y = layers.Conv1D(6, 1, name="free")(y)
    model = flavor.keras.Model(inputs, layers.Conv1D(2, 1, name="logits")(y))
    assert plan_widths(model) == {"fixed": 8, "free": 12, "logits": 2}


@pytest.mark.parametrize("call", [plan_widths, widen_model, wrpn_tf.widen_and_quantize])
def test_layers_that_keep_their_widths_are_named(flavor, call):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    for index in range(6):
        x = layers.Conv2D(8, 1, name=f"fixed_{index}")(x) * np.arange(8.0, dtype="float32")
    x = layers.Lambda(_mean_over_channels, output_shape=(4, 4), name="mean")(x)
    x = layers.Conv1D(6, 1, name="free")(x)
    model = flavor.keras.Model(inputs, layers.Conv1D(2, 1, name="logits")(x))
    with pytest.warns(UserWarning, match="layers keep their widths") as caught:
        call(model)
    (warning,) = [w for w in caught if "keep their widths" in str(w.message)]
    assert warning.filename == __file__
    message = str(warning.message)
    assert message.startswith("6 of 8 layers keep their widths: 'fixed_0', as layer ")
    assert "combines it with something of fixed width; 'fixed_1', as layer " in message
    assert _kept(model, width_multiplier=1, overrides={"free": 2}) == set()
    some = _kept(model, layer_fraction=0.2, overrides={"free": 2})
    assert some == {"fixed_0", "fixed_1"}


def _kept(model, width_multiplier=2, layer_fraction=1.0, overrides=None):
    """The layers that keep their widths though a change is asked for."""
    rules = width_plan.WidthRules(width_multiplier, layer_fraction, overrides or {}, 8)
    return set(width_plan.make_plan(model, rules).kept)


def test_single_channels_outputs_and_layers_fixed_in_part_are_not_named(flavor):
    model = networks.operators(flavor)
    assert plan_widths(model)["attention"] == 1
    assert plan_widths(model)["logits"] == 4
    assert _kept(model) == set()
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 1, name="partly")(x)
    x = layers.Concatenate()([x[..., :3] * np.arange(3.0, dtype="float32"), x[..., 3:]])
    model = flavor.keras.Model(inputs, layers.Conv2D(2, 1, name="logits")(x))
    assert plan_widths(model) == {"partly": 3 + 10, "logits": 2}
    assert _kept(model) == set()


def test_multipliers_may_differ_where_widths_are_fixed_anyway(flavor):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="free")(x)
    heads = [layers.Conv2D(2, 1, name=name)(x) for name in ("first", "second")]
    model = flavor.keras.Model(inputs, layers.Add()(heads))
    widths = plan_widths(model, overrides={"free|first": 3, "second": 1})
    assert widths == {"free": 18, "first": 2, "second": 2}


def _mean_over_channels(x):
    import tensorflow as tf

    return tf.reduce_mean(x, axis=-1)


def test_channels_first(flavor):
    # Not run: TensorFlow convolves with channels first on accelerators only.
    layers = flavor.layers
    x = inputs = flavor.keras.Input((3, 8, 8))
    x = layers.Conv2D(6, 3, data_format="channels_first", name="a")(x)
    x = layers.BatchNormalization(axis=1)(x)
    x = layers.Conv2D(7, 3, groups=1, data_format="channels_first", name="b")(x)
    pooled = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    flat = layers.Flatten(data_format="channels_first")(x)
    y = layers.Concatenate()([pooled, flat, layers.Flatten()(layers.ReLU()(x))])
    model = flavor.keras.Model(inputs, layers.Dense(2, name="logits")(y))
    assert plan_widths(model) == {"a": 12, "b": 14, "logits": 2}
    wide = widen_model(model, preserve_function=True)
    # One position per channel and pixel, each channel replicated once.
    assert wide.get_layer("logits").get_weights()[0].shape == (2 * 7 * (1 + 16 + 16), 2)
