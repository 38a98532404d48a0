"""What `RegionTensorBoard` writes is in the event files, for both Keras and for the Distiller."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.quantization import region_maps, region_plan
from wrpn_tf.training import RegionTensorBoard


def make_net(flavor):
    keras = flavor.keras
    inputs = x = keras.Input((12, 12, 3))
    for filters, strides in ((4, 1), (4, 2), (4, 1)):
        x = keras.layers.Conv2D(filters, 3, strides, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def with_regions(net):
    quantized = wrpn_tf.quantize_model(net)
    # Half of the tiles of 3 x 3: 8 of 16.
    metric = wrpn_tf.regions.ColorGradient(window=3, tile=3)
    return wrpn_tf.apply_regions(quantized, wrpn_tf.RegionPrecision(metric, kept=0.5))


@pytest.fixture
def images():
    return np.random.default_rng(0).random((8, 12, 12, 3), np.float32)


def read_events(log_dir):
    """Returns (tag, step) -> a number, or the images as arrays of uint8."""
    found = {}
    (path,) = (log_dir / "regions").iterdir()
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            content = tf.make_ndarray(value.tensor)
            if content.dtype == object:
                content = np.stack([tf.io.decode_png(png).numpy() for png in content[2:]])
            found[value.tag, event.step] = content
    return found


@pytest.mark.parametrize("distilled", [False, True], ids=["plain", "distilled"])
def test_epochs_are_written(flavor, distilled, images, tmp_path):
    labels = np.arange(8) % 3
    model = trainer = with_regions(make_net(flavor))
    loss = flavor.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if distilled:
        trainer, loss = wrpn_tf.Distiller(model, make_net(flavor)), None
    trainer.compile("sgd", loss, jit_compile=False)
    callback = RegionTensorBoard(trainer, tmp_path, images[:2], freq=2)
    assert isinstance(callback, flavor.keras.callbacks.Callback)
    trainer.fit(images, labels, batch_size=4, epochs=3, verbose=0, callbacks=[callback])

    events = read_events(tmp_path)
    assert {step for _, step in events} == {0, 2}
    maps, plan = region_maps(model)(images[:2]), region_plan(model)
    mean_bits = np.mean(maps["mean_bits"])
    assert 4 < mean_bits < 8
    full = plan.mean_bits()
    for step in (0, 2):
        assert events["mean_activation_bits", step] == np.float32(mean_bits)
        assert events["energy_saving", step] == np.float32(1 - float(mean_bits) / full)
        bits = {tag: x for (tag, at), x in events.items() if at == step and tag.startswith("bits")}
        assert list(bits) == ["bits_0_12x12", "bits_1_6x6"]
        for picture, ranks, repeats in zip(bits.values(), maps["ranks"], (1, 2), strict=True):
            # 8 bits are white, 4 of 8 half of it: 255 * 4 / 8 = 127.5, which TensorFlow cuts off.
            levels = np.where(np.asarray(ranks) == 1, 255, 127)
            np.testing.assert_array_equal(picture, levels.repeat(repeats, 1).repeat(repeats, 2))


def test_images_and_importance_fill_the_scale(flavor, images, tmp_path):
    model = with_regions(make_net(flavor))
    callback = RegionTensorBoard(model, tmp_path, 200 * images[:2] - 50)
    callback.on_train_begin()
    callback.on_epoch_end(7)
    callback.on_train_end()
    events = read_events(tmp_path)
    for tag, channels in (("image", 3), ("importance", 1)):
        pictures = events[tag, 7]
        assert pictures.shape == (2, 12, 12, channels)
        np.testing.assert_array_equal(pictures.min(axis=(1, 2, 3)), 0)
        np.testing.assert_array_equal(pictures.max(axis=(1, 2, 3)), 255)
    tiles = events["importance", 7][:, ::3, ::3]
    np.testing.assert_array_equal(events["importance", 7], tiles.repeat(3, 1).repeat(3, 2))


def test_a_model_without_regions_is_refused(flavor, images, tmp_path):
    with pytest.raises(ValueError, match="`model` must have regions"):
        RegionTensorBoard(make_net(flavor), tmp_path, images)


def test_no_model_is_refused(images, tmp_path):
    with pytest.raises(TypeError, match="`model` must be a Keras 3 or tf_keras model, got str"):
        RegionTensorBoard("logs", tmp_path, images)


def test_images_that_do_not_fit_are_refused(tmp_path):
    model = with_regions(make_net(KERAS))
    for shape in [(0, 12, 12, 3), (2, 12, 12, 1), (12, 12, 3)]:
        with pytest.raises(ValueError, match=r"must have the shape \[images, 12, 12, 3\]"):
            RegionTensorBoard(model, tmp_path, np.zeros(shape))


@pytest.mark.parametrize("freq", [0, 1.5, True])
def test_a_frequency_that_is_none_is_refused(freq, tmp_path):
    with pytest.raises(ValueError, match="`freq` must be a whole number >= 1"):
        RegionTensorBoard(make_net(KERAS), tmp_path, None, freq=freq)


def test_missing_tensorboard_is_said_before_training(images, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs TensorBoard: pip install tensorboard"):
        RegionTensorBoard(make_net(KERAS), tmp_path, images)
