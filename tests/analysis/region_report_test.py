"""What regions save, image by image, and how the other reports tell of them."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import pytest

import wrpn_tf
from wrpn_tf import RegionPrecision, applications
from wrpn_tf.accelerator import ENERGY_MODELS, SystolicArray, num_planes
from wrpn_tf.analysis import ModelProfile, memory_footprint, region_energy
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.quantization import region_maps, region_plan

PRECISION = RegionPrecision(
    "gradient", (8, 4, 0), kept=(0.25, 0.5), overrides={"stem.*": (8, 8, 2)}
)


def images(count: int = 5):
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 1, (count, 16, 16, 3)).astype(np.float32)
    for index in range(count):
        pictures[index, : 3 * index] = 0.5  # so that images differ in what is important
    return pictures


@functools.cache
def quantized(flavor):
    model = applications.ResNet8(input_shape=(16, 16, 3), keras_flavor=flavor.name)
    return wrpn_tf.quantize_model(model)


@functools.cache
def regional(flavor):
    return wrpn_tf.apply_regions(quantized(flavor), PRECISION)


def test_bits_are_the_models_own(flavor):
    model = regional(flavor)
    costs = region_energy(model, images(), batch_size=2, verbose=False)
    expected = np.asarray(region_maps(model)(images(), training=False)["mean_bits"])
    # Exact here; the model adds up some thousand float32 shares of at most 8 bits.
    np.testing.assert_allclose(costs.bits, expected, rtol=0, atol=1e-5)
    assert len(set(costs.bits.tolist())) > 2
    full = region_plan(model).mean_bits()
    for name in ("bit_serial", "fixed"):
        np.testing.assert_allclose(costs.saving(name), 1 - costs.bits / full, rtol=1e-12)
    assert (costs.saving("bit_serial_group") <= costs.saving()).all()


def test_layers_without_regions_are_counted_in_full():
    costs = region_energy(regional(KERAS), images(), verbose=False)
    by_name = {layer.name: layer for layer in costs.layers}
    stem, head = by_name["quant_stem_conv"], by_name["quant_predictions"]
    array = SystolicArray()
    for layer, job in ((stem, (16 * 16, 3 * 3 * 3, 16)), (head, (1, 64, 10))):
        assert (layer.bits_by_rank, layer.macs) == (None, np.prod(job))
        for name in ENERGY_MODELS:
            M, K, N = job
            K *= 1 if name == "fixed" else 8
            assert set(layer.costs[name].cycles) == {num_planes(8) * array.cycles(M, K, N)}
            assert set(layer.costs[name].energy) == {1.0}
    assert len(costs.layers) == 1 + 8 + 1
    assert by_name["quant_stage1_block0_conv1"].bits_by_rank == (2, 8, 8)
    assert by_name["quant_stage2_block0_shortcut"].bits_by_rank == (0, 4, 8)


def test_images_at_once_do_not_matter_and_progress_is_shown(capsys):
    costs = region_energy(regional(KERAS), images())
    assert "5/5" in capsys.readouterr().out
    alone = [region_energy(regional(KERAS), images()[i : i + 1], verbose=False) for i in range(5)]
    assert capsys.readouterr().out == ""
    for name in ENERGY_MODELS:
        assert costs.cycles(name).tolist() == [x.cycles(name)[0] for x in alone]
    lines = costs.to_table().splitlines()
    assert max(map(len, lines)) == 100
    assert lines[1] == "Regions: gradient, kept 0.25, 0.5"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": images()[0]}, ValueError, r"shape \(None, 16, 16, 3\).*got \(16, 16, 3\)"),
        ({"images": images()[:0]}, ValueError, r"one image or more, got \(0, 16, 16, 3\)"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be >= 1, got 0"),
        ({"array": SystolicArray(dataflow="ws")}, ValueError, "`array` must be output stationary"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        region_energy(**{"model": regional(KERAS), "images": images(), **arguments})


def test_a_model_without_regions_is_refused():
    with pytest.raises(ValueError, match="`model` must have regions, got 'resnet8' without"):
        region_energy(quantized(KERAS), images())


def test_the_summary_is_the_networks_and_tells_of_regions(flavor):
    model = regional(flavor)
    summary = wrpn_tf.summary(model, print_fn=None)
    plain = wrpn_tf.summary(quantized(flavor), print_fn=None)
    counts = ("macs", "cost", "num_parameters", "num_bytes", "uncounted", "float_parameters")
    for name in counts:
        assert getattr(summary, name) == getattr(plain, name)
    assert [row.path for row in summary.layers] == [row.path for row in plain.layers]
    by_path = {row.path: row.bits_by_region for row in summary.layers}
    assert by_path["stage1_block0_conv2"] == (8, 4, 0)
    assert by_path["stem_conv"] is by_path["predictions"] is None
    lines = str(summary).splitlines()
    assert max(map(len, lines)) == 100
    row = next(line for line in lines if line.startswith("stage1_block0_conv2"))
    assert row.split()[:5] == ["stage1_block0_conv2", "(Conv2D)", "1x16x16x16", "2", "8/4/0"]
    text = "Activations have fewer bits at unimportant positions: gradient, kept 0.25, 0.5."
    assert any(line.startswith(text) for line in lines)
    assert not any("unimportant" in line for line in str(plain).splitlines())
    assert json.loads(json.dumps(summary.to_dict()))["regions"] == "gradient, kept 0.25, 0.5"
    own, same = (memory_footprint(ModelProfile(x)) for x in (model, quantized(flavor)))
    assert own == same


def test_a_metric_of_ones_own_is_named():
    @keras.saving.register_keras_serializable("tests")
    def upper_half(pictures):
        rows = keras.ops.arange(16, dtype="float32")[None, :, None]
        return keras.ops.zeros_like(pictures[..., 0]) - rows

    model = wrpn_tf.apply_regions(
        quantized(KERAS), RegionPrecision(upper_half, (8, 4), threshold=-7.5)
    )
    costs = region_energy(model, images(), verbose=False)
    assert costs.regions == "upper_half, threshold -7.5"
    # A convolution that reads half of the rows at 8 bits and half at 4 saves a quarter.
    assert costs.layers[1].costs["bit_serial"].energy.tolist() == [0.75] * 5
