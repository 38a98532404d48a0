"""Callbacks that watch quantized values: what is written, and which layers are warned of."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import output_quantizer
from wrpn_tf.training import QuantizationTensorBoard, WarnOnDeadZone
from wrpn_tf.training.monitor_values import Probe


def make_net(flavor):
    """4 inputs, 6 hidden units, batch norm and ReLU, 3 logits."""
    L = flavor.layers
    inputs = L.Input((4,))
    x = L.Dense(6, name="hidden")(inputs)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    return flavor.keras.Model(inputs, L.Dense(3, name="logits")(x))


def own_weights(layer):
    """Returns a layer's weights without those of its quantizers, the first ones as in float."""
    names = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    found = {v.name.partition(":")[0].rpartition("/")[2]: np.asarray(v) for v in layer.weights}
    return [found[name] for name in names if name in found]


def copy_weights(model, net):
    """Puts the latent weights of a quantized model into the float net that it was made of."""
    layers = {layer.name.removeprefix("quant_"): layer for layer in model.layers}
    for layer in net.layers:
        if layer.weights:
            layer.set_weights(own_weights(layers[layer.name]))


def compiled(flavor, model):
    loss = flavor.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(flavor.keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.random((8, 4), np.float32), rng.integers(0, 3, 8)


def read_events(log_dir):
    """Returns tag -> step -> value."""
    found = {}
    (path,) = (log_dir / "quantization").iterdir()
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            steps = found.setdefault(value.tag, {})
            assert event.step not in steps
            steps[event.step] = tf.make_ndarray(value.tensor).item()
    return found


def test_what_an_epoch_writes(flavor, data, tmp_path):
    x, y = data
    net = make_net(flavor)
    model = compiled(flavor, wrpn_tf.quantize_model(net, activation_range=0.5))
    callback = QuantizationTensorBoard(model, tmp_path, x, freq=2)
    assert isinstance(callback, flavor.keras.callbacks.Callback)
    logs = model.fit(x, y, epochs=3, verbose=0, callbacks=[callback], validation_data=data).history

    events = read_events(tmp_path)
    assert {step for steps in events.values() for step in steps} == {0, 2}
    last = {tag: steps[2] for tag, steps in events.items()}
    assert last["loss"] == np.float32(logs["loss"][2])
    assert last["val_loss"] == np.float32(logs["val_loss"][2])
    assert {name: last[f"weight_bits/{name}"] for name in ("hidden", "logits")} == {
        "hidden": 8,
        "logits": 8,
    }
    for name in ("hidden", "logits"):
        kernel = own_weights(model.get_layer(f"quant_{name}"))[0]
        # The rule "mean": the largest level is c sqrt(pi / 2) mean(abs(w)); c is the grid's.
        largest = wrpn_tf.grid.weight_grid(8).optimal_largest_level * np.sqrt(np.pi / 2)
        step = largest * np.abs(kernel).mean() / 127
        assert last[f"weight_zeros/{name}"] == np.float32(np.mean(np.abs(kernel) < step / 2))
    assert last["activation_bits/relu"] == 8
    hidden = flavor.keras.Model(model.input, model.get_layer("quant_relu").output)
    levels = np.asarray(hidden(x))
    (limit,) = (np.asarray(v) for v in model.get_layer("quant_relu").weights if "range" in v.name)
    assert last["saturation/relu"] == np.float32(np.mean(levels > limit * 254.5 / 255))
    assert 0 < last["saturation/relu"] < 1
    copy_weights(model, net)
    gap = np.abs(np.asarray(model(x)) - np.asarray(net(x))).mean()
    # Sums in float32 of a few values, in another order.
    assert last["quantization_gap"] == pytest.approx(gap, rel=1e-5)


def test_parts_of_the_distillation_loss_are_written(flavor, data, tmp_path):
    student = wrpn_tf.quantize_model(make_net(flavor))
    trainer = wrpn_tf.Distiller(student, make_net(flavor))
    callback = QuantizationTensorBoard(trainer, tmp_path, data[0])
    callback.on_train_begin()
    parts = {"loss": 4.0, "teacher_loss": 1.0, "student_loss": 2.0, "val_distillation_loss": 8.0}
    callback.on_epoch_end(3, {**parts, "accuracy": 0.5})
    callback.on_train_end()
    events = read_events(tmp_path)
    assert {tag: events[tag] for tag in parts} == {tag: {3: value} for tag, value in parts.items()}
    assert "accuracy" not in events
    # No range was observed yet: these tensors are not rounded, and have no saturation.
    assert [tag for tag in events if tag.startswith("saturation")] == ["saturation/relu"]


def test_signed_outputs_saturate_at_both_ends(flavor, data):
    model = wrpn_tf.quantize_model(make_net(flavor))
    wrpn_tf.calibrate(model, data[0], verbose=False)
    logits = np.asarray(model(data[0]))
    quantizer, variables = output_quantizer(model.get_layer("quant_logits"))
    quantizer.set_range(variables, logits.min() / 2, logits.max() / 2)
    clipped = np.asarray(model(data[0]))
    at_ends = (clipped == clipped.min()) | (clipped == clipped.max())
    assert clipped.min() < 0 < clipped.max()
    values, _ = Probe(model_graph(model), data[0]).outputs()
    (saturation,) = (x.saturation for x in values if x.layer == "logits")
    assert saturation == at_ends.mean()


def test_a_look_at_the_model_changes_nothing(flavor, data):
    x, y = data
    model = compiled(flavor, wrpn_tf.quantize_model(make_net(flavor)))
    model.train_on_batch(x, y)
    before, outputs = model.get_weights(), np.asarray(model(x))
    Probe(model_graph(model), x).outputs()
    np.testing.assert_array_equal(np.asarray(model(x)), outputs)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_regions_are_part_of_the_gap(flavor):
    L = flavor.layers
    inputs = L.Input((12, 12, 1))
    x = L.Conv2D(2, 3, padding="same", activation="relu")(inputs)
    x = L.Conv2D(2, 3, padding="same", activation="relu")(x)
    net = flavor.keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).random((2, 12, 12, 1), np.float32)
    quantized = wrpn_tf.quantize_model(net)
    wrpn_tf.calibrate(quantized, images, verbose=False)
    model = wrpn_tf.apply_regions(quantized, wrpn_tf.RegionPrecision("gradient", (8, 2)))
    gap = np.abs(np.asarray(model(images)) - np.asarray(net(images))).mean()
    # Sums in float32 of a few values, in another order.
    assert Probe(model_graph(model), images).outputs()[1] == pytest.approx(gap, rel=1e-5)


def test_a_dead_layer_is_named_once(flavor, data):
    x, y = data
    # Keras' initializer stays below 1/2 here: at 2 bits and scale 1 every weight is 0.
    net = make_net(flavor)
    net.set_weights([np.clip(w, -0.4, 0.4) if w.ndim == 2 else w for w in net.get_weights()])
    literal = {"weight_scale": "none", "first_layer": 2, "last_layer": 8}
    model = compiled(flavor, wrpn_tf.quantize_model(net, **literal))
    callback = WarnOnDeadZone(model)
    with pytest.warns(UserWarning, match="weights are 0") as caught:
        model.fit(x, y, epochs=2, verbose=0, callbacks=[callback])
    (message,) = [str(w.message) for w in caught if "weights are 0" in str(w.message)]
    start = "Before training, nearly all weights are 0 in 'hidden' (2 bits, 100.0%). They"
    assert message.startswith(start)
    assert "`weight_scale=\"mean\"` instead of 'none'" in message


def test_living_layers_are_not_named(flavor, data):
    model = wrpn_tf.quantize_model(make_net(flavor), first_layer=2)
    callback = WarnOnDeadZone(model, data[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        callback.on_train_begin()
        callback.on_epoch_end(0)
    assert not [w for w in caught if w.category is UserWarning]


def test_saturated_outputs_are_named_once(flavor, data):
    net = make_net(flavor)
    # Batch norm passes what is positive; nearly all of it is beyond the range.
    net.get_layer("hidden").set_weights([np.ones((4, 6)), np.ones(6)])
    model = wrpn_tf.quantize_model(net, activation_range=0.01)
    callback = WarnOnDeadZone(model, data[0])
    callback.on_train_begin()
    with pytest.warns(UserWarning, match="clipped") as caught:
        callback.on_epoch_end(0)
    (message,) = [str(w.message) for w in caught if "clipped" in str(w.message)]
    assert message.startswith("After epoch 1, nearly all outputs are clipped to an end of their")
    assert "in 'relu' (8 bits, 100.0%). Quantize" in message
    assert "larger `activation_range`" in message
    assert "wrpn_tf.calibrate" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        callback.on_epoch_end(1)


def test_bad_arguments_are_refused(data, tmp_path, monkeypatch):
    net = make_net(KERAS)
    model = wrpn_tf.quantize_model(net)
    with pytest.raises(ValueError, match="`model` must be quantized, got the float model"):
        WarnOnDeadZone(net)
    with pytest.raises(TypeError, match="`model` must be a Keras 3 or tf_keras model, got str"):
        WarnOnDeadZone("model")
    for shape in [(0, 4), (8, 5), (4,)]:
        with pytest.raises(ValueError, match="`images` must have the shape"):
            WarnOnDeadZone(model, np.zeros(shape))
    for limit in (0, 1, True, "all"):
        with pytest.raises(ValueError, match=r"`limit` must be a number in \(0, 1\)"):
            WarnOnDeadZone(model, limit=limit)
    with pytest.raises(ValueError, match="`freq` must be a whole number >= 1"):
        QuantizationTensorBoard(model, tmp_path, data[0], freq=0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="QuantizationTensorBoard needs TensorBoard: pip install"):
        QuantizationTensorBoard(model, tmp_path, data[0])
    WarnOnDeadZone(model)  # which writes nothing, does not
