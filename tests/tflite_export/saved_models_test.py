"""Saved models are loaded with the Keras that wrote them."""

from __future__ import annotations

import zipfile

import h5py
import numpy as np
import pytest

from tests.tflite_export.small_models import chain, make_images, quantized
from tflite_export.saved_models import load_model, saved_flavor
from wrpn_tf.keras_flavor import KERAS, TF_KERAS, flavor_of

FILES = [
    ("keras", "net.keras"),
    ("keras", "net.h5"),
    ("tf_keras", "net.keras"),
    ("tf_keras", "net.h5"),
    ("tf_keras", "net"),
]


def small(flavor):
    L = flavor.layers
    return quantized(chain(flavor, L.Dense(4, activation="relu"), L.Dense(2), shape=(3,)))


@pytest.mark.parametrize(("flavor_name", "file"), FILES)
def test_a_model_comes_back_in_its_own_keras(flavor_name, file, tmp_path):
    flavor = KERAS if flavor_name == "keras" else TF_KERAS
    model, path = small(flavor), tmp_path / file
    if file == "net":
        model.save(path, save_format="tf")
    else:
        model.save(path)
    assert saved_flavor(path) is flavor
    for place in (path, str(path)):
        loaded = load_model(place)
        assert flavor_of(loaded) is flavor
    assert getattr(loaded, "optimizer", None) is None
    images = make_images(model)
    np.testing.assert_array_equal(loaded(images), model(images))


def test_the_keras_of_a_tf_keras_archive_is_seen(tmp_path):
    path = tmp_path / "net.keras"
    chain(TF_KERAS, TF_KERAS.layers.Dense(2), shape=(3,)).save(path)
    assert saved_flavor(path) is TF_KERAS


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must be a saved model, got .*net.keras"):
        load_model(tmp_path / "net.keras")


@pytest.mark.parametrize("content", [b"", b"no model", b"\x1c\x00\x00\x00TFL3" + bytes(64)])
def test_a_file_of_something_else(content, tmp_path):
    path = tmp_path / "net.keras"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="`path` must be a model that Keras saved, got .*net"):
        load_model(path)


def test_an_archive_of_something_else(tmp_path):
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(ValueError, match="`path` must be a model that Keras saved"):
        load_model(path)


@pytest.mark.parametrize("metadata", ["{", "[]", "{}"])
def test_a_damaged_archive(metadata, tmp_path):
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", metadata)
    with pytest.raises(ValueError, match="`path` must be a model that Keras saved"):
        load_model(path)


def test_a_truncated_file(tmp_path):
    path = tmp_path / "net.keras"
    small(KERAS).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="`path` must be a model that Keras saved"):
        load_model(path)


def test_an_h5_file_of_weights_alone(tmp_path):
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("kernel", data=np.zeros(3))
    with pytest.raises(ValueError, match="`path` must be a model that Keras saved"):
        load_model(path)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(ValueError, match="`path` must be a model that Keras saved"):
        load_model(tmp_path)
