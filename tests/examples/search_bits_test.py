"""The example runs as a user runs it, with a network of their own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def search(tmp_path):
    """Runs the script on a small network that ends in an activation."""

    def run(activation, *flags):
        keras.utils.set_random_seed(0)
        layers = keras.layers
        hidden = [layers.Dense(12, "relu"), layers.Dense(12, "relu")]
        ends = layers.Flatten(), layers.Dense(10, activation)
        model = keras.Sequential([keras.Input((8, 8, 1)), ends[0], *hidden, ends[1]])
        model.save(tmp_path / "mine.keras")
        return subprocess.run(
            [
                sys.executable,
                ROOT / "examples" / "search_bits.py",
                "--model_path=mine.keras",
                *flags,
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


def test_uniform_bits_and_those_found_are_compared(search, tmp_path):
    flags = ["--images=16", "--uniform=3", "--budget=bytes"]
    results = [search("softmax", *flags, "--checkpoint=passes"), search(None, *flags)]
    assert results[0].returncode == 0, results[0].stderr
    uniform, found = results[0].stdout.splitlines()[-3:-1]
    assert uniform.split()[:3] == ["uniform", "3", "bits"]
    assert found.split()[0] == "searched"
    assert (tmp_path / "passes").is_file()
    floats = [line for x in results for line in x.stdout.splitlines() if line.startswith("Float")]
    assert len(floats) == 2
    assert floats[0] == floats[1]  # Logits are told as the probabilities that they stand for.


def test_outputs_that_are_no_classes_are_refused(search):
    result = search("sigmoid")
    assert result.returncode == 1
    assert "ends in a softmax of 10 classes, as digits has, or their logits" in result.stderr
    assert "(None, 10) of 'dense" in result.stderr
