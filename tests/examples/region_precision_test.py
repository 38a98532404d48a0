"""The example of regions: its table, its figures, its refusals, and that its layers add up."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from examples import photographs, region_figures, region_measures

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*flags: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "examples" / "region_precision.py", *flags],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def small_net():
    inputs = x = keras.Input((20, 16, 3))
    for filters, strides in ((4, 1), (4, 2), (4, 1)):
        x = keras.layers.Conv2D(filters, 3, strides, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x), name="small_net")


def write_image(path: pathlib.Path, pixels) -> str:
    path.write_bytes(tf.io.encode_png(np.uint8(pixels)).numpy())
    return str(path)


def test_script_prints_a_table_and_draws_figures(tmp_path):
    pytest.importorskip("matplotlib")
    small_net().save(tmp_path / "net.keras")
    left = np.zeros((40, 48, 3))
    left[:, :24] = np.random.default_rng(0).integers(0, 256, (40, 24, 3))
    write_image(tmp_path / "left.png", left)
    result = run(
        "--model_path=net.keras",
        "--images=left.png",
        "--metric=gradient",
        "--kept=0.5",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    (row,) = (line.split() for line in lines if line.startswith("left "))
    bits, saved = float(row[1]), float(row[2].rstrip("%")) / 100
    assert saved == pytest.approx(1 - bits / 8, abs=0.5e-2 / 8 + 0.5e-3)  # both are rounded
    assert len(row) == 1 + 2 * len(wrpn_tf.regions.METRICS)
    figures = sorted(path.name for path in (tmp_path / "region_results").iterdir())
    assert figures == ["left_gradient.png", "metrics.png"]


def test_layers_add_up_to_the_network():
    model = wrpn_tf.quantize_model(small_net())
    images = {"noise": np.random.default_rng(0).random((20, 16, 3), np.float32)}
    precision = wrpn_tf.RegionPrecision("gradient", (8, 4, 0), final_bits=(4, 2, 0))
    (regions,) = region_measures.measure(model, images, precision)
    names = ["conv2d", "conv2d_1", "conv2d_2", "dense"]
    assert [layer.name.rstrip("0123456789_") for layer in regions.layers] == [
        name.rstrip("0123456789_") for name in names
    ]
    sizes = [None if layer.bits is None else layer.bits.shape for layer in regions.layers]
    assert sizes == [None, (20, 16), (10, 8), None]
    assert [layer.extent for layer in regions.layers[1:3]] == [(0, 16, 20, 0)] * 2
    # Multiply-accumulates of the three convolutions and the dense layer.
    macs = [20 * 16 * 27 * 4, 10 * 8 * 36 * 4, 10 * 8 * 36 * 4, 4 * 3]
    shares = [layer.share for layer in regions.layers]
    np.testing.assert_allclose(shares, np.divide(macs, sum(macs)), rtol=1e-12)
    mean = sum(layer.share * layer.mean_bits for layer in regions.layers)
    # The network's own sum is in float32.
    assert mean == pytest.approx(regions.mean_bits, rel=1e-5)
    assert 0 < regions.saving < 0.5
    assert set(regions.layers[2].shares) == {0, 2, 4}


def test_target_bits_are_reached_over_the_images():
    model = wrpn_tf.quantize_model(small_net())
    rng = np.random.default_rng(0)
    images = {name: rng.random((20, 16, 3), np.float32) for name in "abcd"}
    precision = wrpn_tf.RegionPrecision(wrpn_tf.regions.ColorGradient(3, 1), target_bits=7)
    regions = region_measures.measure(model, images, precision)
    # A tile more or less of 4 x 20 x 16, and what lies under the stride.
    assert np.mean([x.mean_bits for x in regions]) == pytest.approx(7, abs=0.02)


def test_images_are_cut_in_the_middle(tmp_path):
    pixels = np.zeros((8, 12, 3))
    pixels[:, 2:10] = (255, 0, 51)
    path = write_image(tmp_path / "red.png", pixels)
    (image,) = photographs.load([path], (4, 4, 3)).values()
    np.testing.assert_allclose(image, np.tile([1, 0, 0.2], (4, 4, 1)), atol=1e-6)
    (gray,) = photographs.load([str(tmp_path)], (8, 8, 1)).values()
    np.testing.assert_allclose(gray, np.full((8, 8, 1), 0.4), atol=1e-6)


def test_bundled_photographs_need_no_files():
    images = photographs.load(None, (32, 32, 3))
    assert list(images)[:2] == ["china", "flower"]
    assert all(x.shape == (32, 32, 3) and 0 <= x.min() < x.max() <= 1 for x in images.values())


def test_files_that_are_no_images_are_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"must be PNG, JPEG, GIF or BMP files, got .*text.png"):
        photographs.load([str(tmp_path / "text.png")], (8, 8, 3))
    with pytest.raises(ValueError, match=r"`images` must be image files or folders .*missing"):
        photographs.load([str(tmp_path / "missing.png")], (8, 8, 3))
    with pytest.raises(ValueError, match="`images` must have different names, got text twice"):
        photographs.load([str(tmp_path), str(tmp_path / "text.png")], (8, 8, 3))


def test_missing_matplotlib_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"The figures need matplotlib: pip install matplotlib"):
        region_figures.check_matplotlib()
