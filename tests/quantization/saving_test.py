"""Quantized models in files: loaded by a fresh process that imports no more than `wrpn_tf`."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from wrpn_tf import quantize_model
from wrpn_tf.keras_flavor import KERAS, TF_KERAS, flavor_of

_LOAD = """
import json, sys
import numpy as np
import wrpn_tf
folder, jobs = sys.argv[1], json.loads(sys.argv[2])
images = np.load(folder + "/images.npy")
for keras_name, file in jobs:
    keras = __import__(keras_name)
    model = keras.models.load_model(f"{folder}/{file}", compile=False)
    np.save(f"{folder}/{file}.npy", model.predict(images, verbose=0))
    assert any("Quantize" in type(layer).__name__ for layer in model.layers)
"""


@pytest.fixture
def trained(conv_net, flavor, images):
    """A quantized net after two training steps, which move ranges and statistics."""
    model = quantize_model(conv_net(), num_bits_activation=4)
    model.compile(flavor.keras.optimizers.SGD(0.1), "mse")
    model.fit(images, np.ones((5, 3), np.float32), epochs=2, verbose=0)
    ranges = [float(v) for v in model.variables if "output_range" in v.name]
    assert len(set(ranges)) > 2  # else an exchange of weights would go unseen
    return model


def test_files_load_with_only_wrpn_tf_imported(flavor, trained, images, tmp_path):
    files = ["model.keras", "model.h5"] + ([] if flavor is KERAS else ["saved_model"])
    for file in files:
        if file == "saved_model":
            trained.save(tmp_path / file, save_format="tf")
        else:
            trained.save(tmp_path / file)
    np.save(tmp_path / "images.npy", images)
    jobs = json.dumps([[flavor.name, file] for file in files])
    subprocess.run([sys.executable, "-c", _LOAD, str(tmp_path), jobs], check=True)
    expected = trained.predict(images, verbose=0)
    for file in files:
        np.testing.assert_array_equal(np.load(tmp_path / f"{file}.npy"), expected, err_msg=file)


def test_a_saved_model_serves_the_same_outputs(flavor, trained, images, tmp_path):
    folder = str(tmp_path / "served")
    if flavor is KERAS:
        trained.export(folder, verbose=False)
        served = tf.saved_model.load(folder)
        outputs = served.serve(images)
    else:
        tf.saved_model.save(trained, folder)
        served = tf.saved_model.load(folder)
        (outputs,) = served.signatures["serving_default"](tf.constant(images)).values()
    np.testing.assert_array_equal(outputs, trained.predict(images, verbose=0))


def _from_config(model):
    return type(model).from_config(model.get_config())


def _from_json(model):
    flavor = flavor_of(model)
    return flavor.keras.models.model_from_json(model.to_json())


def _clone(model):
    return flavor_of(model).keras.models.clone_model(model)


@pytest.mark.parametrize("remade", [_from_config, _from_json, _clone])
def test_a_model_made_again_takes_the_weights(trained, images, tmp_path, remade):
    expected = trained.predict(images, verbose=0)
    again = remade(trained)
    again.set_weights(trained.get_weights())
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)
    file = str(tmp_path / "model.weights.h5")
    trained.save_weights(file)
    again = remade(trained)
    again.load_weights(file)
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_compute_the_same(trained, images, copied):
    again = copied(trained)
    expected = trained.predict(images, verbose=0)
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_model_inside_another_loads(flavor, trained, images, tmp_path, suffix):
    keras = flavor.keras
    outer = keras.Sequential([keras.Input(images.shape[1:]), keras.layers.Rescaling(0.5), trained])
    file = str(tmp_path / f"model{suffix}")
    outer.save(file)
    again = keras.models.load_model(file)
    expected = outer.predict(images, verbose=0)
    np.testing.assert_array_equal(again.predict(images, verbose=0), expected)


def test_a_transposed_convolution_in_a_saved_model(tmp_path):
    """tf_keras would trace the layer inside tfmot's wrapper by itself, as its input is known."""
    keras, L = TF_KERAS.keras, TF_KERAS.layers
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2DTranspose(4, 3, strides=2, activation="relu")(L.Conv2D(3, 3)(inputs))
    model = quantize_model(keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x))))
    x = np.random.default_rng(0).random((4, 6, 6, 2)).astype(np.float32)
    model.compile("sgd", "mse")
    model.fit(x, np.ones((4, 2)), verbose=0)
    model.save(tmp_path / "saved", save_format="tf")
    loaded = keras.models.load_model(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    loaded.fit(x, np.ones((4, 2)), verbose=0)


def test_weights_of_a_loaded_model_fit_one_quantized_again(
    flavor, trained, conv_net, images, tmp_path
):
    trained.save(str(tmp_path / "model.keras"))
    loaded = flavor.keras.models.load_model(str(tmp_path / "model.keras"))
    file = str(tmp_path / "model.weights.h5")
    loaded.save_weights(file)
    again = quantize_model(conv_net(seed=9), num_bits_activation=4)
    again.load_weights(file)
    np.testing.assert_array_equal(again(images), trained(images))


def test_weights_files_fit_a_model_quantized_again(flavor, trained, conv_net, images, tmp_path):
    file = str(tmp_path / "model.weights.h5")
    trained.save_weights(file)
    again = quantize_model(conv_net(seed=9), num_bits_activation=4)
    again.load_weights(file)
    np.testing.assert_array_equal(again(images), trained(images))


def test_a_model_goes_on_training_after_loading(flavor, trained, images, tmp_path):
    file = str(tmp_path / "model.keras")
    trained.save(file)
    again = flavor.keras.models.load_model(file)
    losses = [m.fit(images, np.ones((5, 3)), verbose=0).history["loss"] for m in (trained, again)]
    # The optimizer's state and every variable were restored; float32 sums in another order.
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    np.testing.assert_allclose(again(images), trained(images), rtol=1e-4, atol=1e-4)
