"""`python -m tflite_export`: exit codes, what is written, and what is said."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.tflite_export.small_models import chain, make_images, quantized
from tflite_export import __main__ as command_line
from tflite_export.converter import convert
from tflite_export.lowering import lower
from wrpn_tf import calibrate, quantize_model
from wrpn_tf.keras_flavor import KERAS, TF_KERAS

ROOT = pathlib.Path(__file__).parents[2]
SIX = {"first_layer": 6, "last_layer": 6}


def make_model(flavor, *front):
    L = flavor.layers
    layers = (L.Conv2D(4, 3, name="conv"), L.BatchNormalization(), L.ReLU(), L.Flatten())
    return quantized(chain(flavor, *front, *layers, L.Dense(3, name="head")), **SIX)


@pytest.fixture(scope="module")
def model():
    return make_model(KERAS)


@pytest.fixture
def saved(model, tmp_path):
    """A folder with the model, into which files are written."""
    model.save(tmp_path / "net.keras")
    return tmp_path


def run(folder, *arguments, model="net.keras", output="net.tflite"):
    return command_line.main([str(folder / model), str(folder / output), *arguments])


@pytest.mark.parametrize("storage", ["int8", "int4", "int2", "tflm"])
def test_a_proved_file_is_written(saved, model, storage, capsys):
    assert run(saved, f"--storage={storage}") == 0
    blob = (saved / "net.tflite").read_bytes()
    assert blob == convert(model, storage)
    shown = capsys.readouterr()
    assert "EXACT" in shown.out
    assert "NOT EXACT" not in shown.out
    assert "quant_head" in shown.out
    assert f"net.tflite: {len(blob):,} bytes" in shown.err
    assert "not exact" in shown.err  # a column of what moved
    assert set(os.listdir(saved)) == {"net.keras", "net.tflite"}


def test_types_and_images_are_passed_on(saved, model, capsys):
    np.save(saved / "images.npy", make_images(model, 3))
    types = ("--input-type=uint8", "--output-type=float32")
    assert run(saved, *types, "--images", str(saved / "images.npy")) == 0
    wanted = convert(model, input_type="uint8", output_type="float32")
    assert (saved / "net.tflite").read_bytes() == wanted
    assert "no --images" not in capsys.readouterr().err


def test_a_tf_keras_model(tmp_path):
    make_model(TF_KERAS).save(tmp_path / "net.h5")
    assert run(tmp_path, model="net.h5") == 0
    assert (tmp_path / "net.tflite").exists()


def test_random_images_lie_in_the_inputs_range(saved, capsys):
    assert run(saved) == 0
    line = next(x for x in capsys.readouterr().err.splitlines() if "no --images" in x)
    first, last = line.rpartition(" ")[2].split("..")
    assert float(first) == 0.0
    assert 0.95 < float(last) <= 1.0  # what the model was calibrated on


def test_random_images_of_a_model_with_preprocessing_are_bytes(tmp_path, capsys):
    model = make_model(KERAS, KERAS.layers.Rescaling(1 / 255, name="shrink"))
    calibrate(model, 255 * make_images(model), verbose=False)
    model.save(tmp_path / "net.keras")
    run(tmp_path)
    shown = capsys.readouterr().err
    assert "in 0..255" in shown
    assert "\nwarning: The file begins behind quant_shrink: give it" in shown


@pytest.mark.parametrize(("scale", "offset", "ends"), [(2, -1, "0..1"), (1, 0, "-1..1")])
def test_random_images_fill_the_range_behind_the_preprocessing(
    tmp_path, capsys, scale, offset, ends
):
    front = KERAS.layers.Rescaling(scale, offset)
    net = quantized(chain(KERAS, front, KERAS.layers.Dense(2), shape=(4,)), calibrated=False)
    low, high = map(float, ends.split(".."))
    calibrate(net, np.linspace(low, high, 400).reshape(100, 4), verbose=False)
    net.save(tmp_path / "net.keras")
    assert run(tmp_path) == 0
    assert f"random ones in {ends}" in capsys.readouterr().err


def test_images_that_are_resized_may_be_of_any_size(model, tmp_path, capsys):
    L = KERAS.layers
    front = [L.Resizing(8, 8, name="fit"), L.Rescaling(1 / 255, name="shrink")]
    parts = [*front, L.Conv2D(4, 3), L.Flatten(), L.Dense(3)]
    net = quantize_model(KERAS.keras.Sequential([L.Input((None, None, 3)), *parts]), **SIX)
    calibrate(net, 255 * make_images(model), verbose=False)
    net.save(tmp_path / "net.keras")
    assert run(tmp_path) == 0
    assert "begins behind fit, quant_shrink: give it" in capsys.readouterr().err


def test_several_inputs_need_no_images(tmp_path, capsys):
    L = KERAS.layers
    inputs = [KERAS.keras.Input((4,), name=name) for name in ("a", "b")]
    total = L.Add()([L.Dense(3, activation="relu")(x) for x in inputs])
    model = quantized(KERAS.keras.Model(inputs, L.Dense(2)(total)), **SIX)
    model.save(tmp_path / "net.keras")
    assert run(tmp_path) == 0
    np.save(tmp_path / "images.npy", np.zeros((2, 4)))
    assert run(tmp_path, "--images", str(tmp_path / "images.npy"), output="other.tflite") == 2
    assert "`--images` must be left out for a model of 2 inputs" in capsys.readouterr().err
    assert not (tmp_path / "other.tflite").exists()


def refused(folder, capsys, *arguments, **names):
    """The message of a run that ends with 2 and leaves the folder as it was."""
    before = sorted(os.listdir(folder))
    assert run(folder, *arguments, **names) == 2
    assert sorted(os.listdir(folder)) == before
    shown = capsys.readouterr()
    assert not shown.out
    assert "Traceback" not in shown.err
    return shown.err


def test_a_missing_model(tmp_path, capsys):
    assert "net.keras': no such file" in refused(tmp_path, capsys)


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_a_file_that_is_no_model(tmp_path, capsys, content):
    (tmp_path / "net.keras").write_bytes(content)
    assert "error: `path` must be a model that Keras saved" in refused(tmp_path, capsys)


def test_a_float_model(tmp_path, capsys):
    chain(KERAS, KERAS.layers.Dense(2)).save(tmp_path / "net.keras")
    assert "error: `model` must be quantized" in refused(tmp_path, capsys)


def test_a_missing_output_folder(saved, capsys):
    assert "folder that exists" in refused(saved, capsys, output="missing/net.tflite")


def test_a_folder_as_output(saved, capsys):
    (saved / "folder").mkdir()
    assert "got the folder" in refused(saved, capsys, output="folder")


def test_the_model_as_output(saved, capsys):
    before = (saved / "net.keras").read_bytes()
    message = refused(saved, capsys, output="net.keras")
    assert "`OUT.tflite` must be another file than `MODEL`" in message
    assert (saved / "net.keras").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "images.npy"),
        (b"", "`--images` must be a file of NumPy's `save`"),
        (b"no array", "`--images` must be a file of NumPy's `save`"),
    ],
)
def test_images_that_cannot_be_read(saved, capsys, content, words):
    path = saved / "images.npy"
    if content is not None:
        path.write_bytes(content)
    assert words in refused(saved, capsys, "--images", str(path))


def test_several_arrays_as_images(saved, capsys):
    path = saved / "images.npz"
    np.savez(path, a=np.zeros(2), b=np.zeros(2))
    assert "`--images` must hold one array" in refused(saved, capsys, "--images", str(path))


def test_images_of_another_shape(saved, capsys):
    np.save(saved / "images.npy", np.zeros((2, 9, 9, 3), np.float32))
    message = refused(saved, capsys, "--images", str(saved / "images.npy"))
    assert "(None, 8, 8, 3)" in message
    assert "snapping" not in message  # at once, before the work


def test_a_disk_that_is_full(saved, capsys, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    assert run(saved) == 2
    assert "No space left" in capsys.readouterr().err
    assert os.listdir(saved) == ["net.keras"]


@pytest.mark.parametrize("option", ["--storage=int3", "--input-type=int16", "--verbose"])
def test_unknown_options(saved, option):
    with pytest.raises(SystemExit) as caught:
        run(saved, option)
    assert caught.value.code == 2
    assert os.listdir(saved) == ["net.keras"]


def test_a_failed_proof_ends_with_1_and_writes_nothing(saved, capsys, monkeypatch):
    """One weight of the file has the other sign."""
    (saved / "net.tflite").write_bytes(b"an older file")

    def corrupt(model, *args, **kwargs):
        blob = bytearray(convert(model, *args, **kwargs))
        kernel = lower(model).operations[0].kernel
        stored = (kernel.integers * kernel.multiplier[:, None, None, None]).astype(np.int8)
        place = blob.index(stored.tobytes()) + int(np.flatnonzero(stored)[0])
        blob[place] = -blob[place] % 256
        return bytes(blob)

    monkeypatch.setattr(command_line, "convert", corrupt)
    assert run(saved, "--storage=int8") == 1
    shown = capsys.readouterr()
    assert "NOT EXACT" in shown.out
    assert "was not written: a proof failed" in shown.err
    assert (saved / "net.tflite").read_bytes() == b"an older file"
    assert set(os.listdir(saved)) == {"net.keras", "net.tflite"}


def test_as_a_command(saved):
    """A fresh process: what a shell sees."""
    command = [sys.executable, "-m", "tflite_export"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [*command, "net.keras", "net.tflite", "--storage=int2"],
        cwd=saved,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("wrote net.tflite: ")
    assert (saved / "net.tflite").read_bytes()[4:8] == b"TFL3"
    helped = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True)
    assert helped.returncode == 0
    assert "--storage" in helped.stdout
