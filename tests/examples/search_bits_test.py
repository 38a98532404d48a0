"""The example runs as a user runs it, with a network of their own."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import keras

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_uniform_bits_and_those_found_are_compared(tmp_path):
    layers = keras.layers
    hidden = [layers.Dense(12, "relu"), layers.Dense(12, "relu")]
    ends = layers.Flatten(), layers.Dense(10, "softmax")
    model = keras.Sequential([keras.Input((8, 8, 1)), ends[0], *hidden, ends[1]])
    model.save(tmp_path / "mine.keras")
    flags = [
        "--model_path=mine.keras",
        "--images=16",
        "--uniform=3",
        "--budget=bytes",
        "--checkpoint=passes",
    ]
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / "search_bits.py", *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    uniform, found = result.stdout.splitlines()[-3:-1]
    assert uniform.split()[:3] == ["uniform", "3", "bits"]
    assert found.split()[0] == "searched"
    assert (tmp_path / "passes").is_file()
