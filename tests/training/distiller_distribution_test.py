"""Training under `tf.distribute`, in processes of its own; all of it on this machine."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.training import distributed_training

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = pathlib.Path(distributed_training.__file__)

# Two replicas add up the same float32 gradients in another order.
TOLERANCE = 1e-5


def start(flavor, strategy, output, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), flavor.name, strategy, str(output)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, output):
    try:
        log, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, log[-3000:]
    return json.loads(output.read_text())


def assert_same_training(actual, expected):
    for name in ("weights", "quantized"):
        for ours, theirs in zip(actual[name], expected[name], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    assert set(actual["history"]) == set(expected["history"])
    for name, values in expected["history"].items():
        np.testing.assert_allclose(actual["history"][name], values, rtol=TOLERANCE, err_msg=name)
    for name, value in expected["evaluation"].items():
        assert actual["evaluation"][name] == pytest.approx(value, rel=TOLERANCE), name


@pytest.fixture
def on_one_device(flavor):
    return distributed_training.train(flavor.name, tf.distribute.get_strategy())


@pytest.mark.slow
def test_mirrored_training_equals_training_on_one_device(flavor, tmp_path, on_one_device):
    output = tmp_path / "mirrored.json"
    result = finish(start(flavor, "mirrored", output), output)
    assert result["replicas"] == 2
    assert_same_training(result, on_one_device)


@pytest.mark.slow
def test_two_workers_equal_one_device(flavor, tmp_path, on_one_device):
    if flavor.name == "keras":
        pytest.skip(
            "Keras 3.15's own `fit` fails under MultiWorkerMirroredStrategy, Distiller or not."
        )
    with socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.bind(("localhost", 0))
        workers = [f"localhost:{sock.getsockname()[1]}" for sock in (first, second)]
    outputs = [tmp_path / f"worker{index}.json" for index in range(2)]
    processes = [
        start(
            flavor,
            "multi_worker",
            output,
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
        )
        for index, output in enumerate(outputs)
    ]
    try:
        results = [finish(p, output) for p, output in zip(processes, outputs, strict=True)]
    finally:
        for process in processes:
            process.kill()
    for result in results:
        assert result["replicas"] == 2
        assert_same_training(result, on_one_device)
