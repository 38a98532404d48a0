"""The experiment on regions: its controls, mixes and passes, and what its report says."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import wrpn_tf
from wrpn_tf import RegionPrecision

pytestmark = pytest.mark.usefixtures("experiment_modules")


@pytest.fixture
def sensitivity():
    """Three layers of equal cost: one fragile, one robust, one that bears 4 bits only."""
    from region_sensitivity import Sensitivity

    moves = np.array([[0.5, 0.9], [0.01, 0.02], [0.02, 0.8]])
    return Sensitivity(("a", "b", "c"), np.full(3, 0.3), moves, np.zeros((1, 1, 1), np.float32))


@pytest.mark.parametrize(
    ("saved", "bits"),
    [
        (0.0, {"a": 8, "b": 8, "c": 8}),
        (0.3 * 4 / 8, {"a": 8, "b": 4, "c": 8}),
        (0.3 * 8 / 8, {"a": 8, "b": 2, "c": 4}),
        (0.3 * 14 / 8, {"a": 4, "b": 2, "c": 4}),
    ],
)
def test_mixes_lower_robust_layers_first(sensitivity, saved, bits):
    from region_sensitivity import uniform_mix

    assert uniform_mix(sensitivity, saved - 1e-9) == bits


def test_mix_that_saves_too_much_is_refused(sensitivity):
    from region_sensitivity import uniform_mix

    with pytest.raises(ValueError, match=r"`saved` must be at most 0\.675"):
        uniform_mix(sensitivity, 0.7)


def test_random_maps_depend_on_the_image_alone():
    from region_metrics import SmoothRandom

    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)) / np.float32(255)
    maps = SmoothRandom(32)(images).numpy()
    assert maps.shape == (8, 8, 8)
    np.testing.assert_array_equal(SmoothRandom(32)(images[5:]).numpy(), maps[5:])
    assert len(np.unique(maps[:, 0, 0])) > 4


def test_metrics_see_the_original_image_exactly():
    from region_metrics import on_original

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)) / np.float32(255)
    mean = np.random.default_rng(1).random((32, 32, 3), np.float32)
    seen = on_original(lambda x: x, mean)((images - mean + 1) * np.float32(0.5))
    np.testing.assert_array_equal(np.round(seen.numpy() * 255), np.round(images * 255))
    np.testing.assert_allclose(seen, images, rtol=1e-7)  # 1 / 255 as a product


def test_second_pass_takes_small_margins_and_its_control_as_many():
    from region_settings import Setting, in_doubt

    margins = np.array([0.1, 5.0, 0.4, 3.0])
    outputs = np.stack([np.exp(margins), np.ones(4), np.exp([-9.0] * 4)], 1)
    again = in_doubt(outputs, Setting("two_pass", "4", 0.5))
    assert again.tolist() == [True, False, True, False]
    assert in_doubt(outputs, Setting("two_pass_random", "4", 0.5)).sum() == 2


def test_two_passes_are_regions_of_whole_images():
    import tf_keras
    from region_metrics import Doubt
    from region_settings import Setting, in_doubt

    tf_keras.utils.set_random_seed(0)
    x = images = tf_keras.Input((8, 8, 3))
    for filters in (8, 8, 8):
        x = tf_keras.layers.ReLU()(tf_keras.layers.Conv2D(filters, 3, padding="same")(x))
    x = tf_keras.layers.GlobalAveragePooling2D()(x)
    outputs = tf_keras.layers.Dense(4, activation="softmax", kernel_initializer="normal")(x)
    network = wrpn_tf.quantize_model(tf_keras.Model(images, outputs))
    batch = np.random.default_rng(0).random((64, 8, 8, 3), np.float32)
    wrpn_tf.calibrate(network, batch, verbose=False)
    first = wrpn_tf.apply_regions(network, RegionPrecision("center", (8, 2), threshold=1e9))
    low, full = first(batch).numpy(), network(batch).numpy()
    greatest = np.sort(np.log(low), 1)
    margin = float(np.median(greatest[:, -1] - greatest[:, -2])) + 1e-4
    again = in_doubt(low, Setting("two_pass", "2", margin))
    assert 0 < again.sum() < 64
    precision = RegionPrecision(
        Doubt(first, 0.0), (8, 2), threshold=-margin, value_range=(0.0, 1.0)
    )
    result = wrpn_tf.apply_regions(network, precision)(batch).numpy()
    np.testing.assert_array_equal(result, np.where(again[:, None], full, low))
    assert (low != full).any(1).mean() > 0.5  # or it would show nothing


def test_sensitivity_is_the_same_in_both_keras_flavors():
    import keras
    import tf_keras
    from region_sensitivity import measure_sensitivity

    batch = np.random.default_rng(0).random((8, 16, 16, 3), np.float32)
    weights = None
    found = []
    for flavor in (keras, tf_keras):
        layers = flavor.layers
        x = images = flavor.Input((16, 16, 3))
        for filters, stride, name in ((8, 1, "a"), (8, 2, "b"), (8, 1, "c")):
            x = layers.Conv2D(filters, 3, stride, padding="same", name=f"conv_{name}")(x)
            x = layers.ReLU(name=f"relu_{name}")(x)
        x = layers.GlobalAveragePooling2D()(x)
        model = flavor.Model(images, layers.Dense(4, activation="softmax", name="top")(x))
        weights = weights or model.get_weights()
        model.set_weights(weights)
        network = wrpn_tf.quantize_model(model)
        wrpn_tf.calibrate(network, batch, verbose=False)
        found.append(measure_sensitivity(network, batch, batch_size=4))
    first, second = found
    assert first.layers == second.layers == ("relu_a", "relu_b")
    assert first.log_tiles.shape == (8, 4, 4)
    assert (first.by_layer > 0).all()
    for values in ("shares", "by_layer", "log_tiles"):
        # Sums of the same float32 numbers, in the order of each flavor's kernels.
        np.testing.assert_allclose(getattr(first, values), getattr(second, values), rtol=1e-3)


def test_lucky_rows_are_set_aside():
    from region_rows import best, set_aside

    columns = ("bits", "saved_with_metric", "difference")
    shared = {"weights": "base", "metric": "entropy", "accuracy_error": "0.3"}
    rows = [
        shared | dict(zip(columns, cells, strict=True))
        for cells in (("8/4", "40", "-0.1"), ("8/4", "30", "-0.5"), ("8/4", "20", "-0.2"))
    ]
    assert set_aside(rows, "accuracy_error") == rows[:1]
    assert best(rows, "accuracy_error") == rows[2]
    other = {**rows[0], "bits": "8/2"}
    assert best([*rows, other], "accuracy_error") == other
    assert best(rows[:2], "accuracy_error") is None


def test_report_says_what_is_saved_at_no_loss(tmp_path):
    pytest.importorskip("matplotlib")
    import csv_rows
    import region_report
    import region_rows

    shared = {"weights": "base", "images": 100, "accuracy_error": 0.3, "agreement": 99}
    shared |= {"least_saved": 0, "most_saved": 50, "seed": 0, "epochs": 1, "seconds": 1}
    rows = [
        ("full", "8", 0, 0.0, 0.0),
        ("uniform", "4", 0, -1.0, 50.0),
        ("entropy", "8/4", 6, -0.2, 30.0),
        ("entropy", "8/4", 5, -0.5, 40.0),
        ("center", "8/4", 6, -1.2, 30.0),
    ]
    path = tmp_path / "curve.csv"
    for metric, bits, target, difference, saved in rows:
        row = shared | {"metric": metric, "bits": bits, "target": target, "difference": difference}
        row |= {"difference_error": 0.1, "accuracy": 90 + difference}
        row |= {"saved": saved, "saved_with_metric": saved}
        csv_rows.append(path, region_rows.COLUMNS, row)
    region_report.write(path)
    text = path.with_suffix(".md").read_text()
    # Uniform precision is interpolated: 30 of 50 % saved, of one point lost.
    assert "| entropy | base | 30.0 | 8/4 | -0.20 ± 0.10 | -0.60 | none |" in text
    assert "| centre (control) | base | none |" in text
    assert "| entropy | 8/4 | 30.0 | **+1.00 (0.14)** |  | **+0.40 (0.14)** |" in text
    # 30 % is less than the paper's third.
    assert "within the test set's standard error: no method." in text
    assert path.with_suffix(".png").stat().st_size > 10_000


def test_committed_confirmation_is_that_of_the_committed_rows():
    import csv_rows
    import region_confirmation
    import region_rows

    results = pathlib.Path(region_confirmation.__file__).parents[1] / "results"
    rows = csv_rows.read(results / "region_confirmation.csv")
    assert [x.key for x in region_confirmation.SETTINGS] == [region_rows.key(x) for x in rows]
    text = region_confirmation.report(csv_rows.read(results / "region_curve.csv"), rows)
    assert text == (results / "region_confirmation.md").read_text()


def test_confirmation_marks_what_beats_uniform_precision():
    import region_confirmation

    shared = {"weights": "base", "images": "100", "accuracy": "90", "accuracy_error": "0.3"}
    columns = ("metric", "bits", "target", "difference", "saved_with_metric")
    rows = [
        shared | {"difference_error": "0.1"} | dict(zip(columns, cells, strict=True))
        for cells in (
            ("full", "8", "0", "0", "0"),
            ("uniform", "4", "0", "-1.0", "50"),
            ("uniform", "mix45", "0", "-1.4", "45"),
            ("two_pass", "4", "1", "-0.5", "45"),
            ("two_pass", "4", "1.5", "-0.2", "27"),
            ("entropy", "8/4", "6", "-0.7", "27"),
        )
    ]
    text = region_confirmation.report(rows, rows)
    # At 45 % the mix loses more than 4 bits do, which save more; below, it is interpolated.
    assert "| 45.0 | -0.50 ± 0.10 | **-1.00** |" in text
    assert "| 27.0 | -0.20 ± 0.10 | **-0.84** |" in text
    assert "| entropy | 8/4, mean 6 | 27.0 | -0.70 ± 0.10 | 27.0 | -0.70 ± 0.10 | -0.84 |" in text
