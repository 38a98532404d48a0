"""`widen_and_quantize`: the composition, and what each argument reaches."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from wrpn_tf import applications
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import PAPER_RECIPE, inner_layer, weight_quantizers


@pytest.fixture
def net(flavor):
    return applications.ResNet8(keras_flavor=flavor.name)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)


def kernels(model):
    """Layer name -> bits and shape of its kernel."""
    return {
        layer.name.removeprefix("quant_"): (quantizer.num_bits, tuple(variable.shape))
        for layer in model_graph(model).layers().values()
        for variable, quantizer in weight_quantizers(layer).values()
    }


def test_twice_as_wide_at_two_bits_by_default(net, images):
    student = wrpn_tf.widen_and_quantize(net)
    found = kernels(student)
    assert found["stem_conv"] == (8, (3, 3, 3, 2 * 16))
    assert found["stage1_block0_conv1"] == (2, (3, 3, 2 * 16, 2 * 16))
    assert found["predictions"] == (8, (2 * 64, 10))
    assert student(images).shape == (2, 10)
    assert student.name == net.name


def test_the_first_layers_only_and_the_papers_rules(net):
    student = wrpn_tf.widen_and_quantize(
        net, layer_fraction=0.3, num_bits_weight=4, num_bits_activation=4, **PAPER_RECIPE
    )
    found = kernels(student)
    assert {"stem_conv", "predictions"}.isdisjoint(found)
    assert found["stage1_block0_conv1"][0] == 4
    assert found["stage3_block0_conv2"] == (4, (3, 3, 64, 64))


def test_without_widening_it_is_quantize_model(net, images):
    student = wrpn_tf.widen_and_quantize(net, width_multiplier=1, num_bits_weight=4)
    expected = wrpn_tf.quantize_model(net, num_bits_weight=4)
    assert kernels(student) == kernels(expected)
    np.testing.assert_array_equal(student(images), expected(images))


def test_a_preserved_function_stays_close(net, images):
    student = wrpn_tf.widen_and_quantize(
        net,
        preserve_function=True,
        num_bits_weight=8,
        weight_scale="max_per_channel",
        activation_range="observed",  # rounds nothing before data was seen
    )
    outputs = np.array(net(images))
    # 8-bit weights only: ten roundings of 1/255 of a channel's largest weight.
    np.testing.assert_allclose(student(images), outputs, atol=0.05 * np.abs(outputs).max())


def test_every_argument_is_one_of_the_two_functions():
    arguments = dict(inspect.signature(wrpn_tf.widen_and_quantize).parameters)
    quantize = inspect.signature(wrpn_tf.quantize_model).parameters
    widen = inspect.signature(wrpn_tf.widen_model).parameters
    for name, parameter in quantize.items():
        assert arguments.pop(name) == parameter.replace(annotation=parameter.annotation), name
    arguments.pop("width_overrides")
    assert set(arguments) <= set(widen)
    assert all(p.kind is p.KEYWORD_ONLY for p in arguments.values())


def test_the_models_weights_stay(net):
    before = net.get_weights()
    student = wrpn_tf.widen_and_quantize(net, width_multiplier=1)
    for layer in model_graph(student).layers().values():
        for weight in getattr(inner_layer(layer), "weights", ()):
            weight.assign(np.zeros(weight.shape))
    for a, b in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width_multiplier": 0}, "width_multiplier"),
        ({"width_multiplier": True}, "`width_multiplier` must be a finite number > 0, got True"),
        ({"layer_fraction": 1.5}, "layer_fraction"),
        ({"width_multiplier": 1, "layer_fraction": 1.5}, "layer_fraction"),
        ({"width_multiplier": 1, "noise": 0.1}, "`noise` must be 0 without `preserve_function"),
        ({"num_bits_weight": 9}, "`num_bits_weight` must be in 1..8, got 9"),
        ({"overrides": {"nothing": "float"}}, "the rule 'nothing' matches no layer"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(net, arguments, message):
    with pytest.raises(ValueError, match=message):
        wrpn_tf.widen_and_quantize(net, **arguments)


def test_bits_out_of_range_are_refused_before_anything_is_widened(net, monkeypatch):
    monkeypatch.setattr(wrpn_tf.recipe, "widen", None)
    for arguments in ({"num_bits_weight": 9}, {"overrides": {"stem_conv": {"bits": 4}}}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            wrpn_tf.widen_and_quantize(net, **arguments)


@pytest.mark.parametrize("width_multiplier", [1, 2])
def test_rules_and_warnings_name_layers_of_nested_models_as_the_model_does(
    flavor, width_multiplier
):
    L = flavor.layers
    inner = flavor.keras.Sequential(
        [flavor.keras.Input((8,)), L.Dense(8, name="dense"), L.LayerNormalization(name="norm")],
        name="block",
    )
    inputs = flavor.keras.Input((8,))
    x = inner(L.Dense(8, name="first")(inputs))
    model = flavor.keras.Model(inputs, L.Dense(2, name="last")(x))
    with pytest.warns(UserWarning, match=r"1 layer stays float.*: block/norm\."):
        student = wrpn_tf.widen_and_quantize(
            model,
            width_multiplier=width_multiplier,
            overrides={"block/dense": {"num_bits_weight": 4}},
        )
    assert kernels(student)["block_dense"] == (4, (8 * width_multiplier,) * 2)


def test_options_are_keywords(net):
    with pytest.raises(TypeError, match="positional"):
        wrpn_tf.widen_and_quantize(net, 2.0)


def test_the_warning_of_float_layers_points_at_the_users_line(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((8,))
    x = L.LayerNormalization(name="norm")(L.Dense(8)(inputs))
    model = flavor.keras.Model(inputs, L.Dense(2)(x))
    with pytest.warns(UserWarning, match="1 layer stays float") as caught:
        wrpn_tf.widen_and_quantize(model)
    assert [w.filename for w in caught if "stays float" in str(w.message)] == [__file__]


def test_operations_that_know_the_number_of_channels(flavor, tmp_path):
    L, is_keras = flavor.layers, flavor is KERAS
    ops = flavor.keras.ops if is_keras else tf
    inputs = flavor.keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    y = L.Conv2D(6, 1, name="wider")(x)
    x = ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1))) + y
    x = L.Conv1D(3, 1, name="pixels")(ops.reshape(x, (-1, 64, 6)))
    model = flavor.keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))
    student = wrpn_tf.widen_and_quantize(model)
    assert kernels(student)["wider"] == (2, (1, 1, 8, 12))
    assert kernels(student)["pixels"] == (2, (1, 12, 6))
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    wrpn_tf.calibrate(student, images, verbose=False)
    expected = student.predict(images, verbose=0)
    assert np.ptp(expected) > 0
    for file in ("model.keras",) if is_keras else ("model.keras", "model.h5", "saved_model"):
        student.save(str(tmp_path / file))
        loaded = flavor.keras.models.load_model(str(tmp_path / file), compile=False)
        np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected, err_msg=file)


@pytest.mark.parametrize("make", ["quantize_model", "widen_model", "widen_and_quantize"])
def test_what_a_models_own_class_does_is_said_to_stay_behind(flavor, make):
    class Trained(flavor.keras.Model):
        def train_step(self, data):
            return super().train_step(data)

    L = flavor.layers
    inputs = flavor.keras.Input((4,))
    model = Trained(inputs, L.Dense(2)(L.Dense(4, activation="relu")(inputs)))
    with pytest.warns(UserWarning, match="the class Trained does besides its layers") as found:
        getattr(wrpn_tf, make)(model)
    (warning,) = [each for each in found if "Trained" in str(each.message)]
    assert warning.filename == __file__
