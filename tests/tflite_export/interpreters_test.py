"""The real runtimes on hand-made networks, on which all kernels agree by a wide margin."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tests.tflite_export import integer_networks
from tflite_export import integer_model as im
from tflite_export import interpreters
from tflite_export.flatbuffer import write
from tflite_export.interpreters import Runtime

TFLM = Runtime("TFLM", "ref")
SIX = [Runtime(library, k) for library in ("tf.lite", "LiteRT") for k in ("ref", "opt", "xnn")]
ALL = [*SIX, TFLM] if importlib.util.find_spec("tflite_micro") else SIX
LITERT = Runtime("LiteRT", "ref")


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def test_the_installed_runtimes_are_all():
    assert interpreters.available() == tuple(ALL)
    assert [runtime.name for runtime in (SIX[-1], TFLM)] == ["LiteRT xnn", "TFLM"]


def test_a_runtime_that_is_not_installed_is_left_out(monkeypatch):
    find = interpreters.importlib.util.find_spec
    monkeypatch.setattr(
        interpreters.importlib.util,
        "find_spec",
        lambda name: None if name.startswith("tflite_micro") else find(name),
    )
    assert interpreters.available() == tuple(SIX)


@pytest.mark.parametrize("network", [integer_networks.small(), integer_networks.varied()])
@pytest.mark.parametrize("storage", ["int8", "int2"])
def test_every_runtime_gives_every_tensor_the_same_levels(network, storage):
    images = integer_networks.images(network, 7)
    blob = write(network, storage=storage)
    wanted = interpreters.run(LITERT, blob, [images])
    assert wanted.keys() >= network.tensors.keys()
    for name, tensor in network.tensors.items():
        assert wanted[name].shape == (7, *tensor.shape)
        assert tensor.low <= wanted[name].min() <= wanted[name].max() <= tensor.high
    for runtime in SIX if storage == "int2" else ALL:
        found = interpreters.run(runtime, blob, [images])
        for name in wanted.keys() - {"softmax"}:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=f"{runtime} {name}")


def reference_levels(model, images):
    """The exact rule, for `small`, written as loops over the window and the channels."""
    image = model.tensors["image"]
    levels = {"image": np.floor(images.astype(np.float64) / image.scale + 0.5).astype(int)}

    def rounded(operation, sums):
        kernel, target = operation.kernel, model.tensors[operation.output]
        source = model.tensors[operation.inputs[0]]
        real = (sums * kernel.multiplier + kernel.bias) * kernel.scale.astype(np.float64)
        real = real * np.float64(source.scale) / np.float64(target.scale)
        low = max(target.low, 0) if operation.relu else target.low
        return np.clip(np.floor(real + 0.5), low, target.high).astype(int)

    for operation in model.operations:
        x = levels[operation.inputs[0]]
        if isinstance(operation, im.Conv2D):
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            weights = operation.kernel.integers.astype(int)
            result = 0
            for row in range(3):
                for column in range(3):
                    window = padded[:, row : row + 8, column : column + 8]
                    result = result + window @ weights[:, row, column].T
            result = rounded(operation, result)
        elif isinstance(operation, im.Add):
            result = np.clip(x + levels[operation.inputs[1]], 0, 15)
        elif isinstance(operation, im.MaxPool2D):
            result = x.reshape(len(x), 4, 2, 4, 2, 4).max((2, 4))
        elif isinstance(operation, im.Reshape):
            result = x.reshape(len(x), -1)
        else:
            result = rounded(operation, x @ operation.kernel.integers.astype(int).T)
        levels[operation.output] = result
    return levels


@pytest.mark.parametrize("runtime", ALL, ids=lambda runtime: runtime.name)
def test_the_levels_are_those_of_the_exact_rule(runtime):
    network = integer_networks.small()
    images = integer_networks.images(network, 5)
    assert_same(
        interpreters.run(runtime, write(network), [images]), reference_levels(network, images)
    )


def test_images_are_rounded_half_up_and_saturate():
    network = integer_networks.small()
    scale = network.tensors["image"].scale  # a power of two
    images = np.zeros((1, 8, 8, 3), np.float32)
    images[0, 0, :6, 0] = np.float32([0.5, -0.5, 1.4999, 1.5, 1e9, -1e9]) * scale
    found = interpreters.run(LITERT, write(network), [images])["image"]
    np.testing.assert_array_equal(found[0, 0, :6, 0], [1, 0, 1, 2, 155, -100])


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_files_with_other_inputs_and_outputs_give_the_same_levels(kind):
    network = integer_networks.small()
    images = integer_networks.images(network, 3)
    wanted = interpreters.run(LITERT, write(network), [images])
    blob = write(network, input_type=kind, output_type=kind)
    found = interpreters.run(LITERT, blob, [images])
    assert_same({name: found[name] for name in wanted}, wanted)
    outer = {name for name in found if name.endswith(f"/{kind}")}
    assert len(outer) == (2 if kind == "uint8" else 0)
    for name in outer:
        np.testing.assert_array_equal(found[name], found[name.removesuffix("/uint8")])


def test_batches_of_any_size_give_the_same_levels():
    network = integer_networks.varied()
    images = integer_networks.images(network, 5)
    blob = write(network)
    wanted = interpreters.run(LITERT, blob, [images])
    for size in (1, 2, 3, 100):
        assert_same(interpreters.Network(LITERT, blob, size).run([images]), wanted)


def test_one_network_runs_many_batches():
    network = integer_networks.small()
    images = integer_networks.images(network, 6)
    loaded = interpreters.Network(LITERT, write(network), 4)
    wanted = loaded.run([images])
    parts = [loaded.run([images[:2]]), loaded.run([images[2:]])]
    assert_same({name: np.concatenate([p[name] for p in parts]) for name in wanted}, wanted)


def test_images_of_another_shape_are_refused():
    network = integer_networks.small()
    images = np.zeros((2, 8, 7, 3), np.float32)
    with pytest.raises(ValueError, match=r"shape \(images, 8, 8, 3\), got \(2, 8, 7, 3\)"):
        interpreters.run(LITERT, write(network), [images])


def test_a_wrong_number_of_inputs_is_refused():
    network = integer_networks.small()
    images = integer_networks.images(network, 1)
    with pytest.raises(ValueError, match="must hold 1 arrays, as the file has inputs, got 2"):
        interpreters.run(LITERT, write(network), [images, images])


def test_bytes_that_are_no_file_are_refused():
    with pytest.raises(ValueError, match="TFLite"):
        interpreters.run(LITERT, b"PK\x03\x04 and more", [np.zeros((1, 8, 8, 3))])


@pytest.mark.skipif(TFLM not in ALL, reason="tflite-micro is not installed.")
def test_a_runtime_that_lacks_an_operation_says_so():
    network = integer_networks.small()
    images = integer_networks.images(network, 1)
    with pytest.raises(RuntimeError):
        interpreters.run(TFLM, write(network, storage="int2"), [images])
