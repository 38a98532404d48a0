"""Trained networks, exported: the file computes what the accelerator computes, on every kernel."""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import pytest

from tests.integration import export_networks
from tflite_export import convert, snap, verify
from wrpn_tf import quantize_model
from wrpn_tf.keras_flavor import get_flavor

BITS = ((2, 2), (2, 4), (2, 8), (3, 3), (4, 4), (4, 8))
STORAGES = ("int8", "int4", "int2")
SIX = {f"{lib} {kernel}" for lib in ("tf.lite", "LiteRT") for kernel in ("ref", "opt", "xnn")}
NUM_TRAINING_IMAGES = 1000
NUM_TEST_IMAGES = 300

CASES = [
    *(("keras", bits, storage) for bits in BITS for storage in STORAGES),
    *(("keras", bits, "tflm") for bits in ((2, 4), (4, 8))),
    *(("tf_keras", (2, 8), storage) for storage in STORAGES),
]


@functools.cache
def digits():
    images, labels = export_networks.load_digits()
    return images[:NUM_TRAINING_IMAGES], labels[:NUM_TRAINING_IMAGES], images[-NUM_TEST_IMAGES:]


@functools.cache
def trained(flavor_name):
    flavor = get_flavor(flavor_name)
    images, labels, _ = digits()
    model = export_networks.build(flavor)
    export_networks.train(model, flavor, images, labels, epochs=25, learning_rate=1e-2)
    return model


@functools.cache
def quantized(flavor_name, num_bits_weight, num_bits_activation):
    flavor = get_flavor(flavor_name)
    images, labels, _ = digits()
    model = quantize_model(
        trained(flavor_name),
        num_bits_weight=num_bits_weight,
        num_bits_activation=num_bits_activation,
    )
    export_networks.train(model, flavor, images, labels, epochs=8, learning_rate=5e-3)
    return model


@functools.cache
def report_of(flavor_name, bits, storage):
    snapped, _ = snap(quantized(flavor_name, *bits), storage)
    _, _, images = digits()
    return verify(snapped, convert(snapped, storage), images, storage=storage, verbose=False)


@pytest.mark.slow
@pytest.mark.parametrize(("flavor_name", "bits", "storage"), CASES)
def test_every_level_is_the_accelerators_on_every_kernel(flavor_name, bits, storage):
    report = report_of(flavor_name, bits, storage)
    assert report.exact, str(report)
    wanted = {"Keras", *(f"formula {kernel}" for kernel in ("ref", "opt", "xnn"))}
    wanted |= SIX if storage != "tflm" else set()
    if storage in ("int8", "tflm") and importlib.util.find_spec("tflite_micro"):
        wanted.add("TFLM")
    assert set(report.sources) == wanted
    agreements = {source: (a.same, a.total) for source, a in report.top1.items()}
    assert agreements == dict.fromkeys(wanted, (NUM_TEST_IMAGES, NUM_TEST_IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize(("flavor_name", "bits", "storage"), CASES)
def test_keras_gives_the_same_levels_in_the_middle(flavor_name, bits, storage):
    """The first and last layers have 8-bit weights, whose margins float32 may miss."""
    report = report_of(flavor_name, bits, storage)
    counts = {layer.name: layer.sources.get("Keras") for layer in report.layers}
    counts = {name: comparison for name, comparison in counts.items() if comparison is not None}
    total = sum(comparison.total for comparison in counts.values())
    differing = sum(comparison.differing for comparison in counts.values())
    assert differing <= 1e-4 * total, str(report)


@pytest.mark.slow
def test_the_network_is_trained():
    images, labels = export_networks.load_digits()
    model = quantized("keras", 4, 8)
    predicted = np.argmax(model.predict(images[-NUM_TEST_IMAGES:], verbose=0), axis=-1)
    assert np.mean(predicted == labels[-NUM_TEST_IMAGES:]) > 0.8


@pytest.mark.slow
def test_an_unsnapped_network_is_caught():
    """What snapping is for: a plain export differs from kernel to kernel."""
    model = quantized("keras", 2, 8)
    _, _, images = digits()
    blob = convert(model, "int8", snap_first=False)
    report = verify(model, blob, images, verbose=False)
    assert not report.exact
    assert any(not proof.holds for proof in report.proofs)
