"""`verify` on a small calibrated network: the verdict, and every way to hold it wrong."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tflite_export import convert, snap, verify
from tflite_export.flatbuffer_schema import from_bytes, to_bytes
from tflite_export.interpreters import Runtime
from wrpn_tf import calibrate, quantize_model
from wrpn_tf.keras_flavor import KERAS

LITERT = (Runtime("LiteRT", "ref"), Runtime("LiteRT", "xnn"))
MICRO = {"TFLM"} if importlib.util.find_spec("tflite_micro") else set()


def make_network(flavor, seed=0, size=8, end=None):
    flavor.keras.utils.set_random_seed(seed)
    L = flavor.layers
    image = x = flavor.keras.Input((size, size, 2), name="image")
    x = L.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    x = L.ReLU(name="relu1")(L.BatchNormalization(name="norm1")(x))
    x = L.Conv2D(6, 3, strides=2, padding="same", name="conv")(x)
    x = L.ReLU(name="relu2")(L.BatchNormalization(name="norm2")(x))
    x = L.GlobalAveragePooling2D(name="mean")(x)
    x = L.Dense(3, activation=end, name="head")(x)
    return flavor.keras.Model(image, x, name="net")


def make_images(count, size=8, seed=4):
    shape = (count, size, size, 2)
    return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)


def make_quantized(flavor, seed=0, snapped=True, **options):
    # Six bits at the ends leave every kernel a margin.
    float_model = make_network(flavor, seed, **options)
    model = quantize_model(
        float_model, num_bits_weight=2, num_bits_activation=4, first_layer=6, last_layer=6
    )
    calibrate(model, make_images(64, options.get("size", 8)), verbose=False)
    return snap(model)[0] if snapped else model


@pytest.fixture(scope="module")
def model():
    return make_quantized(KERAS)


@pytest.fixture(scope="module")
def blob(model):
    return convert(model)


@pytest.fixture
def images():
    return make_images(20)


@pytest.mark.parametrize(("end", "labels"), [(None, 20), ("softmax", 20), ("sigmoid", 60)])
def test_all_sources_agree_in_both_flavors(flavor, end, labels, images):
    model = make_quantized(flavor, end=end)
    report = verify(model, convert(model), images)
    assert report.exact, str(report)
    assert report.num_images == 20
    assert len(report.sources) == 1 + 3 + 6 + len(MICRO)
    assert not report.not_run
    assert all(agreement.same == agreement.total == labels for agreement in report.top1.values())
    assert bool(report.probabilities) is (end is not None)


@pytest.mark.parametrize("front", ["augmented", "resized"])
def test_a_model_that_prepares_its_images_is_exported_and_verified(flavor, front):
    L = flavor.layers
    fronts = {
        "augmented": [L.RandomFlip(), L.RandomRotation(0.1)],
        "resized": [L.Resizing(12, 11), L.CenterCrop(10, 10), L.Rescaling(2.0)],
    }
    layers = [*fronts[front], L.Conv2D(4, 3, activation="relu"), L.Flatten()]
    net = flavor.keras.Sequential([L.Input((8, 8, 2)), *layers, L.Dense(3)])
    model = quantize_model(net, first_layer=6, last_layer=6)
    calibrate(model, make_images(64), verbose=False)
    model = snap(model)[0]
    report = verify(model, convert(model), make_images(20), verbose=False)
    assert report.exact, str(report)


@pytest.mark.parametrize("storage", ["int8", "int4", "int2", "tflm"])
def test_the_storage_is_found_out(storage, images):
    model = make_quantized(KERAS)
    model = snap(model, storage)[0]
    report = verify(model, convert(model, storage), images)
    assert report.exact, str(report)
    ran = {source.partition(" ")[0] for source in report.sources} - {"Keras", "formula"}
    wanted = {"int8": {"tf.lite", "LiteRT"} | MICRO, "tflm": MICRO}
    assert ran == wanted.get(storage, {"tf.lite", "LiteRT"})


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_other_input_and_output_types_are_verified_too(model, kind, images):
    blob = convert(model, input_type=kind, output_type=kind)
    assert verify(model, blob, images, runtimes=LITERT).exact


def test_several_inputs_go_by_name(flavor):
    flavor.keras.utils.set_random_seed(3)
    L = flavor.layers
    left, right = (flavor.keras.Input((6, 6, 2), name=name) for name in ("zeta", "alpha"))
    branches = [
        L.Conv2D(4, 3, padding="same", name=f"c{i}")(x) for i, x in enumerate((left, right))
    ]
    x = L.ReLU(name="relu")(L.Add(name="sum")(branches))
    x = L.Dense(3, name="head")(L.Flatten(name="flat")(x))
    net = flavor.keras.Model({"zeta": left, "alpha": right}, x)
    inputs = {"zeta": make_images(9, 6), "alpha": 3 * make_images(9, 6, seed=5) - 1}
    model = quantize_model(net, first_layer=6, last_layer=6)
    calibrate(model, [inputs], verbose=False)
    report = verify(model, convert(model), inputs, runtimes=LITERT)
    assert report.exact, str(report)


def test_batches_give_the_report_of_the_whole(model, blob, images, monkeypatch):
    whole = verify(model, blob, images, runtimes=LITERT)
    monkeypatch.setattr("tflite_export.verification._BATCH_LEVELS", 3000)
    assert verify(model, blob, images, runtimes=LITERT) == whole


def test_progress_is_shown_on_stderr_once_it_takes_long(model, blob, images, monkeypatch, capfd):
    monkeypatch.setattr("tflite_export.progress._QUIET_SECONDS", 0)
    verify(model, blob, images, runtimes=LITERT, verbose=True)
    assert "verify: 20 of 20 images" in capfd.readouterr().err
    verify(model, blob, images, runtimes=LITERT, verbose=False)
    # What is no file of the model as it is is compared with that of the snapped one.
    verify(make_quantized(KERAS, snapped=False), blob, images, runtimes=LITERT, verbose=False)
    convert(model, verbose=False)
    assert capfd.readouterr().err == ""


def test_another_models_weights_are_named(model, images):
    other = convert(make_quantized(KERAS, seed=1))
    report = verify(model, other, images, runtimes=LITERT)
    assert not report.exact
    assert any("kernel" in difference for difference in report.file_differences)


def test_another_networks_file_is_named_and_not_run(model, images):
    other = convert(make_quantized(KERAS, size=10))
    report = verify(model, other, images, runtimes=LITERT)
    assert not report.exact
    assert report.file_differences
    reason = "the file differs from the model's in more than weights and scales"
    assert report.not_run == {runtime.name: reason for runtime in LITERT}


def test_files_are_run_where_weights_alone_are_damaged(model, blob, images):
    file = from_bytes(blob)
    graph = file.subgraphs[0]
    weights = graph.tensors[graph.operators[0].inputs[1]]
    contents = file.buffers[weights.buffer].data.copy()
    contents[0] ^= 4
    file.buffers[weights.buffer].data = contents
    report = verify(model, to_bytes(file), images, runtimes=LITERT)
    assert not report.exact
    assert len(report.file_differences) == 1
    assert not report.not_run
    assert report.first_difference is not None


@pytest.mark.parametrize("change", ["scale", "shape", "connection"])
def test_files_that_could_end_the_process_are_not_run(model, blob, images, change):
    file = from_bytes(blob)
    graph = file.subgraphs[0]
    if change == "scale":
        graph.tensors[graph.operators[0].outputs[0]].quantization.scale = None
    elif change == "shape":
        graph.tensors[graph.inputs[0]].shape = np.array([1, 8, 8, 2**20], np.int32)
    else:
        graph.operators[1].inputs = graph.operators[0].inputs
    report = verify(model, to_bytes(file), images, runtimes=LITERT)
    assert not report.exact
    assert set(report.not_run) == {runtime.name for runtime in LITERT}


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_of_other_types(model, blob, images, kind):
    assert verify(model, kind(blob), images, runtimes=LITERT).exact


def test_outputs_that_are_one_tensor(images):
    net = make_network(KERAS)
    both = quantize_model(KERAS.keras.Model(net.inputs, [*net.outputs, *net.outputs]))
    calibrate(both, images, verbose=False)
    snapped, _ = snap(both)
    report = verify(snapped, convert(snapped), images, runtimes=LITERT)
    assert report.exact, str(report)


def test_a_softmax_over_the_last_axis_by_its_number(images):
    L = KERAS.layers
    net = make_network(KERAS)
    model = quantize_model(KERAS.keras.Model(net.inputs, L.Softmax(axis=1)(net.outputs[0])))
    calibrate(model, images, verbose=False)
    snapped, _ = snap(model)
    report = verify(snapped, convert(snapped), images, runtimes=LITERT)
    assert report.exact, str(report)
    assert report.probabilities


@pytest.mark.parametrize("seed", range(3))
def test_layers_of_8_bit_weights_give_the_same_levels_in_keras(flavor, seed):
    flavor.keras.utils.set_random_seed(seed)
    L = flavor.layers
    inputs = flavor.keras.Input((8, 8, 2))
    x = L.Flatten()(L.Conv2D(4, 3, padding="same", activation="relu")(inputs))
    model = quantize_model(flavor.keras.Model(inputs, L.Dense(3)(x)))
    samples = np.random.default_rng(seed).normal(size=(200, 8, 8, 2)).astype(np.float32)
    calibrate(model, samples, verbose=False)
    snapped, _ = snap(model)
    report = verify(snapped, convert(snapped), samples, runtimes=LITERT)
    assert report.exact, str(report)
    assert report.keras_exact, str(report)


def test_the_model_before_snapping_is_snapped_as_the_file_was(images):
    model = make_quantized(KERAS, snapped=False)
    report = verify(model, convert(model), images, runtimes=LITERT)
    assert report.exact, str(report)


def test_a_file_that_was_not_snapped_is_the_models_and_not_proved(images):
    model = make_quantized(KERAS, snapped=False)
    report = verify(model, convert(model, snap_first=False), images, runtimes=LITERT)
    assert not report.exact
    assert report.file_differences == ()
    assert any(not proof.holds for proof in report.proofs)


def test_a_model_of_other_bits_is_not_the_files(blob, images):
    other = quantize_model(make_network(KERAS), num_bits_weight=2, num_bits_activation=4)
    calibrate(other, make_images(64), verbose=False)
    report = verify(other, blob, images, runtimes=LITERT)
    assert not report.exact
    assert any("scale" in difference for difference in report.file_differences)


def test_a_float_model_is_refused(blob, images):
    with pytest.raises(ValueError, match="quantize"):
        verify(make_network(KERAS), blob, images)


def test_what_is_no_model_is_refused(blob, images):
    with pytest.raises(TypeError, match="`model` must be a Keras 3 or tf_keras model, got str"):
        verify("net.keras", blob, images)


@pytest.mark.parametrize("cut", [0, 4, 100, -100])
def test_a_truncated_file_is_refused(model, blob, images, cut):
    with pytest.raises(ValueError, match="`blob`"):
        verify(model, blob[:cut], images)


def test_bytes_of_another_kind_are_refused(model, images):
    with pytest.raises(ValueError, match="`blob` must be a TFLite file"):
        verify(model, b"PK\x03\x04" * 100, images)


@pytest.mark.parametrize(
    ("images", "came"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"got \(2, 8, 8, 3\)"),
        (np.zeros((8, 8, 2), np.float32), r"got \(8, 8, 2\)"),
        (np.zeros((0, 8, 8, 2), np.float32), r"got \(0, 8, 8, 2\)"),
        (np.full((2, 8, 8, 2), np.nan, np.float32), "got NaN or infinity"),
        ([np.zeros((2, 8, 8, 2))] * 2, "must be 1 arrays, one per model input, got 2"),
        (np.full((2, 8, 8, 2), 255, np.float32), r"got values in 255\.\.255"),
    ],
)
def test_images_that_do_not_fit_are_refused(model, blob, images, came):
    with pytest.raises(ValueError, match=came):
        verify(model, blob, images)


def test_images_of_text_are_refused(model, blob):
    with pytest.raises(TypeError, match="`images` must hold numbers, got the type <U3"):
        verify(model, blob, np.full((2, 8, 8, 2), "abc"))


def test_an_unknown_storage_is_refused_before_the_model_is_read(blob, images):
    with pytest.raises(ValueError, match="`storage` must be one of int8, int4, int2, tflm, got"):
        verify("no model", blob, images, storage="int3")


def test_no_runtimes_are_refused(model, blob, images):
    with pytest.raises(ValueError, match="`runtimes` must hold at least one"):
        verify(model, blob, images, runtimes=())
