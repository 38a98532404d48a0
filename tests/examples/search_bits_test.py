"""The example runs as a user runs it, with as little training as its flags allow."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_uniform_bits_and_those_found_are_compared(tmp_path):
    flags = ["--epochs=1", "--images=16", "--uniform=3", "--budget=bytes", "--checkpoint=passes"]
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
