"""`convert` and `save`: what they refuse, and that no file is half written."""

from __future__ import annotations

import inspect
import os
import warnings

import numpy as np
import pytest

import tflite_export
from tests.tflite_export.small_models import chain, quantized, residual_net
from tflite_export.converter import check_writable, convert, save
from tflite_export.description import describe
from wrpn_tf.keras_flavor import KERAS

L = KERAS.layers


@pytest.fixture(scope="module")
def model():
    return quantized(residual_net(KERAS), first_layer=6, last_layer=6)


@pytest.fixture(scope="module")
def blob(model):
    return convert(model)


def test_a_file_is_a_flatbuffer_of_tflite_and_always_the_same(model, blob):
    assert isinstance(blob, bytes)
    assert blob[4:8] == b"TFL3"
    assert convert(model) == blob


def test_the_package_offers_it_by_name():
    assert tflite_export.convert is convert
    assert tflite_export.save is save
    assert inspect.ismodule(tflite_export.converter)


@pytest.mark.parametrize("argument", ["input_type", "output_type"])
def test_types_of_input_and_output(model, blob, argument):
    assert convert(model, **{argument: "int8"}) == blob
    others = {convert(model, **{argument: name}) for name in ("uint8", "float32")}
    assert len(others | {blob}) == 3


def test_smaller_storages_make_smaller_files():
    net = chain(KERAS, *(L.Conv2D(32, 3, activation="relu") for _ in range(3)))
    wide = quantized(net, first_layer=2, last_layer=2)
    sizes = [len(convert(wide, storage)) for storage in ("int8", "int4", "int2")]
    assert sizes == sorted(sizes, reverse=True)
    weights = 3 * 3 * (3 + 32 + 32) * 32
    # Bits of a weight, and some tables that do not depend on them.
    for size, bits in zip(sizes, (8, 4, 2), strict=True):
        assert weights * bits / 8 < size < weights * bits / 8 + 6000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"storage": "int3"}, "`storage` must be one of int8, int4, int2, tflm, got 'int3'"),
        ({"input_type": "int16"}, "`input_type` must be"),
        ({"output_type": "double"}, "`output_type` must be"),
    ],
)
def test_unknown_arguments_are_refused_before_the_work(model, arguments, words, monkeypatch):
    monkeypatch.setattr("tflite_export.converter.fold_model", lambda *_: pytest.fail("too late"))
    with pytest.raises(ValueError, match=words):
        convert(model, **arguments)


def test_a_float_model_is_refused():
    with pytest.raises(ValueError, match="`model` must be quantized, got the float model 'net'"):
        convert(residual_net(KERAS))


def test_several_inputs_and_outputs_keep_their_order_and_names(flavor):
    layers = flavor.layers
    inputs = [flavor.keras.Input((4,), name=name) for name in ("zebra", "apple")]
    parts = [layers.Dense(3, activation="relu")(x) for x in inputs]
    total = layers.Add(name="sum")(parts)
    heads = [layers.Dense(2, name="second")(total), layers.Dense(5, name="first")(total)]
    blob = convert(quantized(flavor.keras.Model(inputs, heads), first_layer=6, last_layer=6))
    import tensorflow as tf

    signature = tf.lite.Interpreter(model_content=blob)
    assert [d["shape"][-1] for d in signature.get_output_details()] == [2, 5]
    assert [d["shape"][-1] for d in signature.get_input_details()] == [4, 4]


@pytest.mark.parametrize("is_fixed", [True, False])
def test_layers_that_no_scale_makes_exact_are_warned_of(is_fixed):
    """Three layers of scales without simple ratios write one concatenation: none suits them all."""
    KERAS.keras.utils.set_random_seed(0)
    inputs = KERAS.keras.Input((8, 8, 3))
    parts = [L.Conv2D(4, 3, use_bias=False, name=f"part{i}")(inputs) for i in range(3)]
    outputs = L.Dense(3)(L.Flatten()(L.Concatenate()(parts)))
    fixed = {f"part{i}": {"weight_scale": 0.31 + 0.1 * i} for i in range(3)}
    model = quantized(
        KERAS.keras.Model(inputs, outputs), first_layer=4, overrides=fixed if is_fixed else None
    )
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        convert(model)
    found = [w for w in warned if "Kernels will differ" in str(w.message)]
    assert len(found) == is_fixed
    if found:
        assert "in quant_part1, quant_part2: no scale" in str(found[0].message)
        assert found[0].filename == __file__


def test_preprocessing_that_the_file_leaves_out_is_warned_of():
    front = [L.Resizing(6, 6, name="fit"), L.Rescaling(2.0, name="stretch")]
    net = chain(KERAS, *front, L.Conv2D(4, 3, name="conv"), L.Flatten(), L.Dense(3))
    with pytest.warns(UserWarning, match="begins behind fit, quant_stretch: give it") as warned:
        blob = convert(quantized(net))
    assert __file__ in [each.filename for each in warned]
    assert describe(blob).tensors[describe(blob).inputs[0]].shape == (1, 6, 6, 3)


def test_a_file_is_written_whole_and_readable(blob, tmp_path):
    target = tmp_path / "net.tflite"
    target.write_bytes(b"an older file")
    save(blob, target)
    assert target.read_bytes() == blob
    assert os.listdir(tmp_path) == ["net.tflite"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_path_may_be_a_string_without_a_folder(blob, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(blob, "net.tflite")
    assert os.listdir(tmp_path) == ["net.tflite"]


@pytest.mark.parametrize("stage", ["os.fdopen", "os.replace"])
def test_a_failure_leaves_the_older_file_and_nothing_else(blob, tmp_path, monkeypatch, stage):
    target = tmp_path / "net.tflite"
    target.write_bytes(b"an older file")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, fail)
    with pytest.raises(OSError, match="No space left"):
        save(blob, target)
    assert target.read_bytes() == b"an older file"
    assert os.listdir(tmp_path) == ["net.tflite"]


def test_an_interrupt_leaves_nothing(blob, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(blob, tmp_path / "net.tflite")
    assert os.listdir(tmp_path) == []


def test_only_the_bytes_of_a_tflite_file_are_saved(model, tmp_path):
    target = tmp_path / "net.tflite"
    message = r"`blob` must be the bytes of a TFLite file, .*convert\(model\).*, got Functional"
    with pytest.raises(TypeError, match=message):
        save(model, target)
    with pytest.raises(ValueError, match="`blob` must be a TFLite file"):
        save(b"another file", target)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("function", [tflite_export.describe, tflite_export.measure_arena])
def test_whoever_gives_a_path_for_the_bytes_is_told_how_to_read_it(function):
    with pytest.raises(TypeError, match=r"`blob` must .*read_bytes\(\)`, got str: 'net.tflite'"):
        function("net.tflite")


def test_a_folder_as_the_path_is_refused(blob, tmp_path):
    with pytest.raises(IsADirectoryError, match="`path` must be a file, got the folder"):
        save(blob, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_refused(blob, tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must lie in a folder that exists"):
        save(blob, tmp_path / "missing" / "net.tflite")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_refused(blob, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="`path` must lie in a writable folder"):
        check_writable(tmp_path / "net.tflite")
    assert os.listdir(tmp_path) == []


def test_the_stock_runtime_agrees_with_the_model(flavor):
    """A reader who knows nothing of this package: `tf.lite`, and the model's own predictions."""
    import tensorflow as tf

    model = quantized(residual_net(flavor), first_layer=6, last_layer=6)
    snapped, _ = tflite_export.snap(model)
    blob = convert(model, input_type="float32", output_type="float32")
    interpreter = tf.lite.Interpreter(model_content=blob)
    interpreter.allocate_tensors()
    images = np.random.default_rng(2).random((5, 8, 8, 3), np.float32)
    wanted = np.array(snapped(images))
    for image, expected in zip(images, wanted, strict=True):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        # The same levels, times a scale in float32 here and there.
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
