"""The experiment on exported files: what it has measured, it does not measure again."""

from __future__ import annotations

import csv
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def measured(tmp_path):
    """Runs the script for one file of one net; returns its rows, and the models that are kept."""

    def run(*flags):
        flags = ["--bits=w2a8", "--storages=int8", "--epochs=1", "--images=2", *flags]
        subprocess.run(
            [sys.executable, ROOT / "examples" / "experiments" / "export_exactness.py", *flags],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=600,
            check=True,
        )
        with (tmp_path / "export_exactness.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return rows, {path.name for path in tmp_path.glob("export_exactness_models/*")}

    return run


def test_rows_are_measured_once_for_each_seed_and_number_of_images(measured):
    first, models = measured()
    assert [(row["seed"], row["epochs"], row["images"]) for row in first] == [("0", "1", "2")]
    assert models == {"digits_w2a8_1epochs_1000images_seed0.keras"}
    assert measured() == (first, models)
    other_images, same_models = measured("--images=3")
    assert [row["images"] for row in other_images] == ["2", "3"]
    assert same_models == models
    other_seed, more_models = measured("--seed=1")
    assert [row["seed"] for row in other_seed] == ["0", "0", "1"]
    assert more_models - models == {"digits_w2a8_1epochs_1000images_seed1.keras"}
    assert other_seed[2]["test_accuracy"] != first[0]["test_accuracy"]
