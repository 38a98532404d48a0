"""Snapping: what moves, what stays, and that a second time moves nothing."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from tests.tflite_export.small_models import (
    assert_same_bits,
    chain,
    make_images,
    quantized,
    residual_net,
    values,
)
from tflite_export.converter import convert
from tflite_export.graph_reader import fold_model
from tflite_export.lowering import lower
from tflite_export.new_biases import copy_model
from tflite_export.saved_models import load_model
from tflite_export.snap_model import snap
from tflite_export.snap_report import LayerMoves, SnapReport
from tflite_export.snapping_values import LevelCheck
from tflite_export.verification import verify
from wrpn_tf import calibrate
from wrpn_tf.keras_flavor import KERAS, get_flavor

CASES = [*(("keras", s) for s in ("int8", "int4", "int2", "tflm")), ("tf_keras", "int8")]


@functools.cache
def residual(flavor_name):
    """A quantized net after some steps of training, its range at ReLU6's cap in places."""
    flavor = get_flavor(flavor_name)
    flavor.keras.utils.set_random_seed(7)
    model = quantized(residual_net(flavor, 6.0), num_bits_activation=4)
    model.compile(
        flavor.keras.optimizers.SGD(0.01),
        flavor.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(make_images(model, 32), np.arange(32) % 3, epochs=2, verbose=0)
    return model


@functools.cache
def snapped(flavor_name, storage="int8"):
    return snap(residual(flavor_name), storage)


@pytest.mark.parametrize(("flavor_name", "storage"), CASES)
def test_snapping_again_changes_no_bit(flavor_name, storage):
    once, report = snapped(flavor_name, storage)
    again, second_report = snap(once, storage)
    assert_same_bits(values(again), values(once))
    assert report.exact
    assert second_report.exact
    for layer in second_report.layers:
        assert not layer.scale_moves.any(), layer.name
        assert not layer.bias_moves.any(), layer.name
    assert set(second_report.tensors.values()) == {0.0}


@pytest.mark.parametrize(("flavor_name", "storage"), CASES)
def test_converting_snaps_first(flavor_name, storage):
    once, _ = snapped(flavor_name, storage)
    blob = convert(residual(flavor_name), storage)
    assert blob == convert(once, storage)
    assert blob == convert(once, storage, snap_first=False)


def test_the_users_model_stays_as_it_is(flavor):
    model = residual(flavor.name)
    before, config = values(model), model.get_config()
    images = make_images(model, 4)
    outputs = np.array(model(images))
    other, _ = snap(model)
    for variable in other.variables:
        variable.assign(np.zeros(variable.shape))
    assert_same_bits(values(model), before)
    assert model.get_config() == config
    np.testing.assert_array_equal(model(images), outputs)


SAVED = [
    ("keras", "net.keras"),
    ("keras", "net.h5"),
    ("tf_keras", "net.keras"),
    ("tf_keras", "net.h5"),
    ("tf_keras", "net"),
]


@pytest.mark.parametrize(("flavor_name", "file"), SAVED)
def test_a_snapped_model_that_was_saved_makes_the_same_file(flavor_name, file, tmp_path):
    model, _ = snapped(flavor_name)
    if file == "net":
        model.save(tmp_path / file, save_format="tf")
    else:
        model.save(tmp_path / file)
    assert convert(load_model(tmp_path / file)) == convert(model)


def test_the_integers_of_the_weights_stay(flavor):
    before = {op.output: op for op in fold_model(residual(flavor.name)).operations}
    for operation in fold_model(snapped(flavor.name)[0]).operations:
        if hasattr(operation, "kernel"):
            integers = before[operation.output].kernel.integers
            np.testing.assert_array_equal(operation.kernel.integers, integers)


def test_moves_are_small_and_what_the_report_says(flavor):
    """Six-bit weights leave room: a scale moves by a per cent or so, a bias by part of a level."""
    before = fold_model(residual(flavor.name))
    model, report = snapped(flavor.name)
    after = fold_model(model)
    kernels = {op.name: op for op in after.operations if hasattr(op, "kernel")}
    assert [layer.name for layer in report.layers] == list(kernels)
    for old in (op for op in before.operations if hasattr(op, "kernel")):
        (moves,) = (layer for layer in report.layers if layer.name == old.name)
        new = kernels[old.name].kernel
        # What a float32 holds of the scale that the report speaks of.
        np.testing.assert_allclose(
            new.scale / old.kernel.scale - 1, moves.scale_moves, atol=1e-5, err_msg=old.name
        )
        assert np.abs(moves.scale_moves).max() < 0.06
    for name, move in report.tensors.items():
        ratio = after.tensors[name].scale / before.tensors[name].scale
        assert move == pytest.approx(float(ratio) - 1, abs=1e-6)


def test_logits_of_8_bits_stay_where_they_are_and_clear_of_thresholds(flavor):
    """Their levels begin at 0 in the file, and a shift lowers them."""
    _, report = snap(quantized(residual_net(flavor)))
    logits = report.layers[-1]
    assert np.abs(logits.bias_moves).max() < 0.2  # half a unit of the accumulator: 0.14 levels
    assert logits.relative_margins.min() > 5e-7


def test_ranges_stay_below_the_relus_cap(flavor):
    """Scales move at the cap, too: only downwards there."""
    model = quantized(residual_net(flavor, 6.0), num_bits_activation=8)
    for layer in model.layers:
        for name in ("output_quantizer_vars", "_output_quantizer_vars"):
            variables = getattr(layer, name, None)
            if variables and "range" in variables:
                variables["range"].assign(6.0)
    before = fold_model(model)
    assert any(t.scale == np.float32(6 / 255) for t in before.tensors.values())
    after, report = snap(model)
    assert report.exact
    folded = fold_model(after)
    for name in ("quant_relu0", "quant_relu1", "quant_relu2"):
        tensor = folded.tensors[name]
        assert 5.5 < tensor.scale * tensor.high <= np.float32(6) * (1 + 2**-23)
    again, second = snap(after)
    assert_same_bits(values(again), values(after))
    assert second.exact


def test_frozen_layers_are_copied_in_their_order(flavor):
    model = quantized(residual_net(flavor))
    for layer in model.layers[::2]:
        layer.trainable = False
    copy = copy_model(model)
    named = {layer.name: values(layer) for layer in model.layers if layer.weights}
    assert named
    for layer in copy.layers:
        if layer.weights:
            assert_same_bits(values(layer), named[layer.name])


def test_accuracies_are_reported(flavor):
    model = residual(flavor.name)
    images = make_images(model, 10)
    labels = np.argmax(np.array(model(images)), axis=-1)
    labels[0] = (labels[0] + 1) % 3  # one of ten is wrong, before
    _, report = snap(model, examples=(images, labels))
    before, after = report.accuracies
    assert before == 0.9
    assert after >= 0.8
    assert f"Top-1 accuracy: 90.00 % before, {100 * after:.2f} % after." in str(report)
    assert snap(model, examples=(images, labels[:, None]))[1].accuracies == report.accuracies


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_accuracies_of_yes_and_no(flavor, activation):
    L = flavor.layers
    model = quantized(
        chain(flavor, L.Dense(4, activation="relu"), L.Dense(1, activation=activation), shape=(3,))
    )
    inputs = make_images(model, 10)
    (bias,) = (w for w in model.weights if "bias" in w.name and w.shape == (1,))
    for shift in np.linspace(-1, 1, 21):
        bias.assign([shift])
        calibrate(model, inputs, verbose=False)
        says_yes = np.array(model(inputs)) > (0.5 if activation else 0)
        if 2 < says_yes.sum() < 8:
            break
    labels = says_yes.astype(int)
    assert 2 < labels.sum() < 8
    labels[0] = 1 - labels[0]  # one of ten is wrong, before
    for given in (labels, labels[:, 0]):
        assert snap(model, examples=(inputs, given))[1].accuracies[0] == 0.9


def test_without_examples_there_is_no_accuracy(flavor):
    _, report = snapped(flavor.name)
    assert report.accuracies is None
    assert "accuracy" not in str(report)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.eye(3)[[0, 1]], "labels of shape (2, 3)"),
        (np.zeros(2), "type float64"),
        (np.zeros((2, 2), int), "labels of shape (2, 2)"),
        (np.zeros(3, int), "labels of shape (3,)"),
    ],
)
def test_labels_that_are_no_integers_are_refused_at_once(labels, words):
    model = residual("keras")
    with pytest.raises(ValueError, match="one integer label per example") as caught:
        snap(model, examples=(make_images(model, 2), labels))
    assert words in str(caught.value)


def test_examples_that_are_no_pair_are_refused():
    with pytest.raises(TypeError, match=r"must be a pair \(inputs, integer labels\), got ndarray"):
        snap(residual("keras"), examples=np.zeros((2, 8, 8, 3)))


def test_examples_for_several_outputs_are_refused():
    L = KERAS.layers
    x = inputs = KERAS.keras.Input((4,), name="image")
    heads = [L.Dense(2)(x), L.Dense(3)(x)]
    model = quantized(KERAS.keras.Model(inputs, heads))
    with pytest.raises(ValueError, match="`examples` must be None for a model of 2 outputs"):
        snap(model, examples=(np.zeros((2, 4)), np.zeros(2, int)))
    assert snap(model)[1].exact


@pytest.mark.parametrize("kind", ["kernel", "norm", "slopes"])
def test_a_layer_with_weights_that_is_called_twice_is_refused(flavor, kind):
    L = flavor.layers
    conv = L.Conv2D(3, 3, padding="same", activation="relu", name="conv")
    if kind == "kernel":
        model = chain(flavor, conv, conv, L.Conv2D(2, 1))
        names = "quant_conv, quant_conv:1"
    elif kind == "slopes":
        slopes = L.PReLU(shared_axes=[1, 2], name="slopes")
        model = chain(flavor, L.Conv2D(3, 1), slopes, L.Conv2D(3, 1), slopes)
        names = "quant_slopes/1, quant_slopes:1/1"
    else:
        norm = L.BatchNormalization(name="norm")
        model = chain(flavor, L.Conv2D(3, 1, name="a"), norm, L.Conv2D(3, 1, name="b"), norm)
        names = "quant_a, quant_b"
    model = quantized(model, first_layer=6, last_layer=6)
    lower(model)  # as it is, each call has integers of its own
    with pytest.raises(ValueError, match=f"2 calls of those of {names}"):
        snap(model)


def test_an_unknown_storage_is_refused():
    with pytest.raises(ValueError, match="`storage` must be one of int8, int4, int2, tflm"):
        snap(residual("keras"), "int3")


@pytest.mark.parametrize("rule", ["mean", "max_per_channel", "none", 0.5])
def test_a_net_without_norms_is_exact_whatever_the_weights_step(rule):
    L = KERAS.layers
    layers = (L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), L.Conv2D(4, 3), L.Flatten())
    model = quantized(
        chain(KERAS, *layers, L.Dense(3)), first_layer=4, last_layer=6, weight_scale=rule
    )
    once, report = snap(model)
    assert report.exact, str(report)
    assert_same_bits(values(snap(once)[0]), values(once))


@pytest.mark.parametrize("weight_bits", [5, 6, 7, 8])
@pytest.mark.parametrize("activation_bits", [2, 4, 6])
def test_many_bit_weights_behind_few_bits_are_exact_and_hardly_move(weight_bits, activation_bits):
    """Signed sums of eight bits, too, with neither a bias nor a norm behind the weights."""
    L = KERAS.layers
    inputs = KERAS.keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(2):
        y = L.ReLU()(L.BatchNormalization()(x))
        x = L.Add()([x, L.Conv2D(8, 3, padding="same", use_bias=False)(y)])
    outputs = L.Dense(3)(L.GlobalAveragePooling2D()(L.ReLU()(L.BatchNormalization()(x))))
    model = quantized(
        KERAS.keras.Model(inputs, outputs),
        num_bits_weight=weight_bits,
        num_bits_activation=activation_bits,
    )
    once, report = snap(model)
    assert report.exact, str(report)
    assert max(np.abs(layer.scale_moves).max() for layer in report.layers) < 0.02
    assert_same_bits(values(snap(once)[0]), values(once))
    blob = convert(once, snap_first=False)
    assert verify(once, blob, make_images(once), verbose=False).exact


def test_channels_of_few_small_weights_are_exact(flavor):
    """8-bit weights 1 to 3 of 127 on one input channel: some two sums for each level."""
    layers = flavor.layers
    inputs = flavor.keras.Input((8, 8, 1))
    conv = layers.Conv2D(4, 1, name="conv")
    x = layers.ReLU()(layers.BatchNormalization()(conv(inputs)))
    model = flavor.keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    conv.set_weights([np.array([[[[1.0, 0.024, -0.016, 0.008]]]]), np.zeros(4)])
    quantized_model = quantized(model, weight_scale="max")
    once, report = snap(quantized_model)
    assert report.exact, str(report)
    kernel = next(op.kernel for op in lower(once).operations if hasattr(op, "kernel"))
    assert kernel.multiplier.tolist() == [1, 42, 63, 127]
    assert np.abs(report.layers[0].scale_moves).max() < 0.02
    assert_same_bits(values(snap(once)[0]), values(once))
    assert verify(once, convert(once), make_images(once, 4), verbose=False).exact


@pytest.mark.parametrize("seed", range(3))
def test_snapping_again_changes_nothing_where_channels_of_one_scale_differ_in_size(seed):
    layers = KERAS.layers
    KERAS.keras.utils.set_random_seed(seed)
    inputs = KERAS.keras.Input((5, 5, 1))
    x = layers.Concatenate()([layers.Conv2D(3, 1)(inputs), inputs])
    model = quantized(KERAS.keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x))))
    once, report = snap(model)
    assert report.exact, str(report)
    assert_same_bits(values(snap(once)[0]), values(once))


@pytest.mark.parametrize("gain", [1.0, 9.0])
def test_a_branch_that_saturates_joins_one_that_does_not(flavor, gain):
    """A ReLU6 beside a convolution whose values reach beyond 6 or, less `gain`, do not."""
    layers = flavor.layers
    inputs = flavor.keras.Input((8, 8, 3))
    clipped = layers.Conv2D(4, 1, activation="relu6")(inputs)
    scaled = flavor.keras.initializers.RandomUniform(-gain, gain)
    both = layers.Concatenate()([clipped, layers.Conv2D(4, 1, kernel_initializer=scaled)(inputs)])
    model = quantized(flavor.keras.Model(inputs, layers.Conv2D(2, 1)(both)))
    once, report = snap(model)
    assert report.exact, str(report)
    assert verify(once, convert(once), make_images(once, 4), verbose=False).exact


def test_every_line_of_the_report_fits_a_hundred_columns(flavor):
    lines = str(snapped(flavor.name)[1]).splitlines()
    assert max(map(len, lines)) <= 100
    for column in ("layer", "channels", "not exact", "scale moves", "bias moves", "margin"):
        assert column in lines[0]
    report = snapped(flavor.name)[1]
    assert report.others
    assert len(lines) == 1 + len(report.layers) + len(report.others) + 2


def test_long_names_and_large_moves_fit_too():
    channels = np.array([1.0, -9999.0])
    layer = LayerMoves(
        name="an_outer_model/an_inner_model/" * 5 + "convolution",
        scale_moves=channels,
        bias_moves=channels,
        margins=channels,
        relative_margins=np.array([1e-20, np.inf]),
        exact=np.array([True, False]),
    )
    others = {
        "an_outer_model/an_inner_model/" * 5 + kind: LevelCheck(kind, False, margin=1e-20, wide=1.0)
        for kind in ("sum", "product", "function")
    }
    report = SnapReport((layer,), others, (layer.name,) * 3, {"a": 0.5}, (0.25, 1.0))
    assert report.inexact_layers == (layer.name,)
    assert report.inexact_others == tuple(others)
    assert max(map(len, str(report).splitlines())) <= 100
    assert str(report).count("..") == 4
    assert "moved by at most 50.00 %" in str(report)
    shorter = SnapReport((dataclasses.replace(layer, name="a"),), {}, (), {}, None)
    assert "moved by at most 0.00 %" in str(shorter)


def test_progress_is_shown_on_stderr_once_it_takes_long(monkeypatch, capfd):
    monkeypatch.setattr("tflite_export.progress._QUIET_SECONDS", 0)
    number = len(snapped("keras")[1].layers)
    snap(residual("keras"))
    assert f"snap: {number} of {number} layers" in capfd.readouterr().err
    snap(residual("keras"), verbose=False)
    assert "snap:" not in capfd.readouterr().err


@pytest.mark.parametrize("seed", range(4))
def test_a_relu6_without_a_norm_stays_within_its_limit(flavor, seed):
    L = flavor.layers
    flavor.keras.utils.set_random_seed(seed)
    net = chain(
        flavor,
        L.Conv2D(4, 3, name="conv1"),
        L.ReLU(6.0, name="relu1"),
        L.Conv2D(4, 3, activation="relu6", name="conv2"),
        L.Flatten(),
        L.Dense(3),
    )
    model = quantized(net, calibrated=False)
    images = 60 * make_images(net)
    calibrate(model, images, verbose=False)
    before = fold_model(model)
    for name in ("quant_relu1", "quant_conv2"):
        assert before.largest_scales[name] == pytest.approx(6 / 254.5)
    copy, report = snap(model)
    assert report.exact
    for name in ("quant_relu1", "quant_conv2"):
        assert fold_model(copy).tensors[name].scale * 255 < 6 * 255 / 254.5


def blocks(flavor, limit=None):
    """What makes a convolution, its norm and a ReLU of a tensor."""
    L = flavor.layers
    return lambda x: L.ReLU(limit)(
        L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False)(x))
    )


def addends_read_by_others(flavor, x):
    first, second = (blocks(flavor)(x) for _ in range(2))
    joined = [blocks(flavor)(first), blocks(flavor)(second), flavor.layers.Add()([first, second])]
    return flavor.layers.Concatenate()(joined)


def sum_joined_with_its_addend(flavor, x):
    first = blocks(flavor)(x)
    joined = [first, flavor.layers.Add()([first, blocks(flavor)(first)])]
    return flavor.layers.Concatenate()(joined)


def tensor_and_its_maximum(flavor, x):
    first = blocks(flavor)(x)
    return flavor.layers.Add()([first, flavor.layers.MaxPooling2D(3, 1, "same")(first)])


def saturated_addend(flavor, x):
    """A linear branch that others read, and a ReLU6 at its limit."""
    L = flavor.layers
    first = L.Conv2D(4, 3, padding="same")(L.Rescaling(50.0)(x))
    second = blocks(flavor, 6.0)(first)
    return L.Concatenate()([L.Add()([first, second]), blocks(flavor)(first)])


def dense_branch(flavor, x):
    """A layer without batch norm, whose only scale is its weights' step, in front of a sum."""
    L = flavor.layers
    first = blocks(flavor)(x)
    means = [L.GlobalAveragePooling2D()(each) for each in (first, blocks(flavor)(first))]
    return L.Add()([L.Dense(4)(means[0]), means[1]])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "branches",
    [
        addends_read_by_others,
        sum_joined_with_its_addend,
        tensor_and_its_maximum,
        saturated_addend,
        dense_branch,
    ],
)
def test_sums_are_exact_whatever_else_reads_them_and_stay_so(flavor, branches, seed):
    L = flavor.layers
    flavor.keras.utils.set_random_seed(seed)
    inputs = flavor.keras.Input((8, 8, 3))
    outputs = L.Dense(3)(L.Flatten()(branches(flavor, inputs)))
    once, report = snap(quantized(flavor.keras.Model(inputs, outputs)))
    assert report.others
    assert report.exact, str(report)
    assert_same_bits(values(snap(once)[0]), values(once))
    folded = fold_model(once)
    for name, largest in folded.largest_scales.items():
        assert folded.tensors[name].scale <= np.float32(largest)
