"""Calibrated ranges against brute force, from data in every form."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf

from wrpn_tf import calibrate, quantize_model, reestimate_batch_norm
from wrpn_tf.grid import activation_grid
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import output_quantizer


@pytest.fixture
def data():
    return np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


@pytest.fixture
def dense_net(flavor):
    """Dense, batch norm, ReLU, Dense; 8-bit weights, so that only activations are coarse."""

    def make(num_bits=4):
        L = flavor.layers
        inputs = flavor.keras.Input((6,), name="x")
        x = L.BatchNormalization(name="bn")(L.Dense(8, name="dense")(inputs))
        outputs = L.Dense(3, name="head")(L.ReLU(name="relu")(x))
        model = flavor.keras.Model(inputs, outputs)
        return quantize_model(model, num_bits_weight=8, num_bits_activation=num_bits, last_layer=4)

    return make


def found(model, name):
    for layer in model_graph(model).layers().values():
        if layer.name == f"quant_{name}":
            return output_quantizer(layer)
    raise AssertionError(name)


def relu_values(model, data):
    """The unrounded ReLU of the model's own quantized first layer and batch norm."""
    graph = model_graph(model)
    layers = {layer.name.removeprefix("quant_"): layer for layer in graph.layers().values()}
    x = layers["bn"](layers["dense"](data))
    return np.maximum(np.array(x), 0)


def test_percentile_is_numpys(dense_net, data):
    model = dense_net()
    calibrate(model, data, method="percentile", percentile=99, verbose=False)
    _, variables = found(model, "relu")
    values = relu_values(model, data)
    # One bin of the histogram: its reach is at most twice the largest value, in 4096 bins.
    width = float(2 * values.max() / 4096)
    assert float(variables["range"]) == pytest.approx(np.percentile(values, 99), abs=2 * width)


def test_max_covers_everything(dense_net, data):
    model = dense_net()
    calibrate(model, data, method="max", verbose=False)
    _, variables = found(model, "relu")
    assert float(variables["range"]) == pytest.approx(relu_values(model, data).max(), rel=1e-6)


@pytest.mark.parametrize("num_bits", [2, 4])
def test_mse_is_as_good_as_brute_force(dense_net, data, num_bits):
    model = dense_net(num_bits)
    calibrate(model, data, verbose=False)
    quantizer, variables = found(model, "relu")
    levels = activation_grid(quantizer.num_bits)
    values = relu_values(model, data)

    def error(reach):
        return np.mean((levels.quantize(values, reach / levels.high) - values) ** 2)

    least = min(error(reach) for reach in np.linspace(0.02, 1, 500) * values.max())
    assert error(float(variables["range"])) <= 1.05 * least


def test_inputs_and_logits_get_their_extremes(dense_net, data):
    model = dense_net()
    calibrate(model, data, verbose=False)
    _, variables = found(model, "x")
    assert float(variables["smallest"]) == data.min()
    assert float(variables["largest"]) == data.max()
    assert found(model, "head")[1]["largest"] > 0


FORMS = {
    "array": lambda x: x,
    "tensor": tf.constant,
    "by name": lambda x: {"x": x},
    "tf.data": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(64),
    "tf.data of tuples": lambda x: tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(64),
    "list of batches": lambda x: [x[:100], x[100:]],
    "generator of tuples": lambda x: ((x[i : i + 50], None) for i in range(0, 300, 50)),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_in_any_form_gives_the_same_ranges(dense_net, data, form):
    model = dense_net()
    calibrate(model, FORMS[form](data), method="max", verbose=False)
    _, variables = found(model, "relu")
    assert float(variables["range"]) == pytest.approx(relu_values(model, data).max(), rel=1e-5)


@pytest.mark.parametrize("form", ["array", "tf.data"])
def test_images_of_bytes_are_taken_as_fit_takes_them(flavor, form):
    L = flavor.layers
    inputs = flavor.keras.Input((4, 4, 3), name="x")
    x = L.BatchNormalization(name="bn")(L.Conv2D(2, 3)(inputs))
    model = quantize_model(flavor.keras.Model(inputs, L.Dense(3)(L.Flatten()(L.ReLU()(x)))))
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    for function in (reestimate_batch_norm, calibrate):
        function(model, FORMS[form](images), verbose=False)
    as_bytes = model.get_weights()
    for function in (reestimate_batch_norm, calibrate):
        function(model, FORMS[form](images.astype(np.float32)), verbose=False)
    for ours, expected in zip(as_bytes, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert float(found(model, "x")[1]["largest"]) == images.max()


def test_ranges_for_batch_norm_without_statistics_are_warned_of(dense_net, data):
    model = dense_net()
    with pytest.warns(UserWarning, match=r"of `model` \(1\) has the mean 0 and the variance 1"):
        calibrate(model, data, verbose=False)
    reestimate_batch_norm(model, data, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        calibrate(model, data, verbose=False)


def test_max_batches(dense_net, data):
    model = dense_net()
    calibrate(model, data, max_batches=1, verbose=False)
    assert float(found(model, "x")[1]["largest"]) == data[:128].max()


# Named against the alphabet, so that a dictionary's sorted order is not the model's.
FORMS_OF_TWO = {
    "arrays": lambda z, a: [z, a],
    "tuple of arrays": lambda z, a: (z, a),
    "by name": lambda z, a: {"a": a, "z": z},
    "by name, and more": lambda z, a: {"a": a, "other": ["more"], "z": z},
    "list of batches": lambda z, a: [([z[:3], a[:3]], None), ([z[3:], a[3:]], None)],
    "batches by name": lambda z, a: [{"a": a[:3], "z": z[:3]}, {"a": a[3:], "z": z[3:]}],
    "tf.data": lambda z, a: tf.data.Dataset.from_tensor_slices(((z, a), a)).batch(3),
    "tf.data by name": lambda z, a: tf.data.Dataset.from_tensor_slices(({"a": a, "z": z}, a)).batch(
        3
    ),
}


@pytest.mark.parametrize("form", FORMS_OF_TWO)
def test_two_inputs_are_told_apart_in_any_form(flavor, form):
    L = flavor.layers
    z, a = (flavor.keras.Input((4,), name=name) for name in "za")
    x = L.Concatenate()([L.BatchNormalization(name="bn")(z), L.Dense(3)(a)])
    model = quantize_model(flavor.keras.Model([z, a], L.Dense(2)(L.ReLU()(x))))
    dataset = FORMS_OF_TWO[form](
        np.full((5, 4), 2.0, np.float32), np.full((5, 4), -3.0, np.float32)
    )
    reestimate_batch_norm(model, dataset, verbose=False)
    calibrate(model, dataset, verbose=False)
    assert float(found(model, "z")[1]["largest"]) == 2
    assert float(found(model, "a")[1]["smallest"]) == -3


def test_inputs_that_a_model_takes_as_a_dictionary(flavor):
    L = flavor.layers
    a, z = flavor.keras.Input((4,), name="a"), flavor.keras.Input((2,), name="z")
    x = L.Concatenate()([L.Dense(3)(a), L.Dense(3)(z)])
    model = quantize_model(flavor.keras.Model({"a": a, "z": z}, L.Dense(2)(x)))
    arrays = {"z": np.full((5, 2), -3.0, np.float32), "a": np.full((5, 4), 2.0, np.float32)}
    for dataset in (arrays, [arrays]):
        calibrate(model, dataset, verbose=False)
        assert float(found(model, "a")[1]["largest"]) == 2
        assert float(found(model, "z")[1]["smallest"]) == -3


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([np.ones((2, 4)), np.ones((3, 4))], r"equally many examples for each input, got \[2, 3\]"),
        ([np.ones((2, 4))] * 3, "must give 2 inputs per batch, got 3"),
        ({"a": np.ones((2, 4))}, "by name, 'z', 'a', got 'a', without 'z'"),
        ([], "`dataset` must hold at least one batch, got none"),
        ({}, "by name, 'z', 'a', got none, without 'z', 'a'"),
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_two_inputs_are_refused(flavor, dataset, message):
    L = flavor.layers
    z, a = (flavor.keras.Input((4,), name=name) for name in "za")
    model = quantize_model(flavor.keras.Model([z, a], L.Dense(2)(L.Concatenate()([z, a]))))
    with pytest.raises(ValueError, match=message):
        calibrate(model, dataset, verbose=False)


def test_a_shared_layer_gets_a_range_for_all_its_calls(flavor):
    L = flavor.layers
    a, b = flavor.keras.Input((4,), name="a"), flavor.keras.Input((4,), name="b")
    tower = L.Dense(2, activation="relu", kernel_initializer="ones", name="tower")
    model = flavor.keras.Model([a, b], L.Dense(2)(L.Subtract()([tower(a), tower(b)])))
    model = quantize_model(model)
    batch = [np.full((5, 4), 2.0, np.float32), np.full((5, 4), 1.0, np.float32)]
    calibrate(model, [(batch,)], verbose=False)
    assert float(found(model, "tower")[1]["largest"]) == pytest.approx(8, rel=0.01)


def test_a_net_without_batch_norm_keeps_its_outputs(flavor, images):
    L = flavor.layers
    x = inputs = flavor.keras.Input((8, 8, 3))
    for i, filters in enumerate((8, 8, 16)):
        x = L.Conv2D(filters, 3, activation="relu", padding="same", name=f"conv{i}")(x)
    outputs = L.Dense(4)(L.Flatten()(L.MaxPooling2D()(x)))
    model = flavor.keras.Model(inputs, outputs)
    quantized = quantize_model(model, num_bits_weight=8, weight_scale="max_per_channel")
    calibrate(quantized, images, verbose=False)
    outputs = np.array(model(images))
    # 8 bits all through: five roundings of at most 1 % of a range.
    np.testing.assert_allclose(quantized(images), outputs, atol=0.05 * np.abs(outputs).max())


def test_batch_norm_statistics_and_weights_stay(dense_net, data):
    model = dense_net()
    names = [v.name for v in model.weights]
    before = model.get_weights()
    calibrate(model, data, verbose=False)
    for name, a, b in zip(names, before, model.get_weights(), strict=True):
        if not any(end in name for end in ("output_range", "smallest", "largest")):
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_nan_is_refused_by_the_layers_name(dense_net, data):
    data[3, 2] = np.nan
    with pytest.raises(ValueError, match="`dataset` must be finite, got NaN .* layer 'quant_x'"):
        calibrate(dense_net(), data, verbose=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "entropy"}, '`method` must be "mse", "percentile" or "max", got \'entropy\''),
        ({"method": "percentile", "percentile": 0}, r"`percentile` must be in \(0, 100\], got 0"),
        ({"method": "percentile", "percentile": 101}, r"`percentile` must be in \(0, 100\]"),
        ({"max_batches": 0}, "`max_batches` must be at least 1, got 0"),
        ({"percentile": "most"}, r"`percentile` must be in \(0, 100\], got 'most'"),
        ({"dataset": []}, "`dataset` must hold at least one batch, got none"),
        ({"dataset": 3}, "`dataset` must be an array or an iterable of batches, got int"),
        ({"dataset": "file"}, "`dataset` must be an array or an iterable of batches, got str"),
        ({"dataset": np.ones((2, 5))}, r"inputs of shape \(None, 6\), .*, got \(2, 5\)"),
        ({"dataset": np.ones((2, 6, 1))}, r"inputs of shape \(None, 6\), .*, got \(2, 6, 1\)"),
        ({"dataset": [np.ones((0, 6))]}, r"at least one per batch, got \(0, 6\)"),
        ({"dataset": [[np.ones((2, 6)), np.ones((2, 6))]]}, "must give 1 inputs per batch, got 2"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(dense_net, data, options, message):
    with pytest.raises(ValueError, match=message):
        calibrate(dense_net(), **{"dataset": data, "verbose": False, **options})


@pytest.mark.parametrize("max_batches", [1.5, True])
def test_max_batches_must_be_an_integer(dense_net, data, max_batches):
    with pytest.raises(TypeError, match="`max_batches` must be an integer, got"):
        calibrate(dense_net(), data, max_batches=max_batches, verbose=False)


def test_a_float_model_is_refused(flavor, data):
    inputs = flavor.keras.Input((6,))
    model = flavor.keras.Model(inputs, flavor.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match="`model` must have activation quantizers"):
        calibrate(model, data, verbose=False)
