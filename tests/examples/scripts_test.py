"""Each example runs as a user runs it, with as little training as its flags allow."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(script: str, *flags: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, ROOT / "examples" / script, *flags],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


# Scheme B, the Distiller's default, runs in the README and in the quickstart.
RUNS = {
    "quantize": (
        ["quantize_existing_model.py", "--epochs=1", "--save_to=new/quantized.keras"],
        "Saved: new/quantized.keras",
    ),
    "quantize an application": (
        ["quantize_existing_model.py", "--application=MobileNet", "--weights=none"],
        "Same answer as in float",
    ),
    "widen": (
        ["widen.py", "--epochs=1", "--save_to=new/wide.keras"],
        "(rounding; sums have more terms).\nSaved: new/wide.keras",
    ),
    "distil, scheme A": (
        ["distill.py", "--scheme=A", "--epochs=1", "--teacher_depth=8"],
        "student, 2b/8b",
    ),
    "distil, scheme C": (
        ["distill.py", "--scheme=C", "--epochs=1", "--teacher_depth=8"],
        "student, float",
    ),
    "export": (
        ["export_and_verify.py", "--epochs=1", "--images=4", "--storages=int8,int2"],
        "EXACT: ",
    ),
    "trained network": (["trained_network.py"], "photograph              Keras"),
    "tfmot, one layer": (
        ["tfmot_interoperability.py", "--use=config", "--epochs=1"],
        "quant_conv2                 QuantizeWrapperV2   3\n",
    ),
    "tfmot, a whole model": (
        ["tfmot_interoperability.py", "--use=scheme", "--epochs=1"],
        "quant_conv2                 QuantizeWrapperV2   3\n",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("command", "expected"), RUNS.values(), ids=RUNS.keys())
def test_script_runs(command, expected, tmp_path):
    result = _run(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout


@pytest.mark.slow
def test_quickstart_prints_a_table_and_saves_a_whole_file(tmp_path):
    import keras

    flags = ["--epochs=1", "--seeds=1", "--num_images=64"]
    result = _run("quickstart.py", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    for row in ("float (teacher)", "2b/8b", "2b/8b, 2x wide", "2b/8b, distilled"):
        assert any(line.startswith(row + " ") for line in lines), row
    assert any("as good as float" in line for line in lines)
    *lines, command = lines
    assert max(map(len, lines)) <= 100
    assert command.split() == ["python", str(ROOT / "examples" / "quickstart.py"), *flags]
    assert [path.name for path in (tmp_path / "quickstart_results").iterdir()] == ["low_bit.keras"]
    keras.saving.load_model(tmp_path / "quickstart_results" / "low_bit.keras")


@pytest.mark.parametrize(
    ("script", "flags", "expected"),
    [
        ("quickstart.py", ["--dataset=cifar10"], "`data_dir` must be given for cifar10"),
        ("quickstart.py", ["--batch_size=1001"], "`batch_size` must be at most 1000"),
        ("quickstart.py", ["--width_multiplier=0"], "`width_multiplier` must be"),
        ("distill.py", ["--batch_size=1001"], "`batch_size` must be at most 1000"),
        ("export_and_verify.py", ["--dataset=cifar10"], "`data_dir` must be given for cifar10"),
        ("widen.py", ["--model_path=missing.keras"], "Keras 3 model, got 'missing.keras'"),
        ("widen.py", ["--model_path=text.keras"], "`Model.save` wrote, got 'text.keras'"),
        ("widen.py", ["--overrides=stem"], "`overrides` must be REGULAR_EXPRESSION=MULTIPLIER"),
        (
            "quantize_existing_model.py",
            ["--model_path=text.h5"],
            "`model_path` must be a file that Keras 3's `Model.save` wrote, got 'text.h5'",
        ),
        (
            "quantize_existing_model.py",
            ["--application=resnet"],
            "`application` must be a network of keras.applications, got 'resnet'",
        ),
    ],
)
def test_bad_flags_end_in_one_line(script, flags, expected, tmp_path):
    for name in ("text.keras", "text.h5"):
        (tmp_path / name).write_text("no model")
    result = _run(script, *flags, cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert expected in result.stderr
    assert not result.stdout  # Nothing has begun.


@pytest.mark.parametrize(
    ("script", "flags", "expected"),
    [
        ("export_and_verify.py", ["--storages=int8,int3"], "must be among int8, int4, int2, tflm"),
        ("export_and_verify.py", ["low_bit.keras"], "Flags only, got low_bit.keras."),
        ("experiments/export_exactness.py", ["digits"], "Flags only, got digits."),
        ("search_bits.py", ["--uniform=4,9"], "must be bits from 2 to 8"),
        ("trained_network.py", ["--images=cat.jpg", "--data_dir=cifar10"], "At most one of"),
        (
            "quantize_existing_model.py",
            ["--images=some.npy"],
            "--images needs --model_path or --application",
        ),
        (
            "quantize_existing_model.py",
            ["--model_path=mine.keras", "--application=MobileNet"],
            "At most one of",
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused_at_once(script, flags, expected, tmp_path):
    result = _run(script, *flags, cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert expected in result.stdout + result.stderr
