"""The experiment on CIFAR-10: its configuration, its nets, its training, and that it resumes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import pickle
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import wrpn_tf

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "experiments"
CONFIG = EXPERIMENTS / "cifar10.yaml"

pytestmark = pytest.mark.usefixtures("experiment_modules")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": {"epoch": 3}}, "`runs.w2a8`.*epoch"),
        ({"tool": {"name": "brevitas"}, "quantize": None}, "`w2a8.tool.name` must be one of larq"),
        ({"tool": {"name": "larq"}}, "`w2a8` must have `quantize` or `tool`, got both"),
        ({"quantize": None, "distill": {"scheme": "B"}}, "`w2a8` must have `quantize`"),
        ({"schedule": {"steps": [0.75, 0.5]}}, "`schedule.steps` must be rising shares.*0.75, 0.5"),
        ({"schedule": {"steps": [1.0]}}, "`schedule.steps` must be rising shares"),
        ({"schedule": {"power": -1}}, "`schedule.power` must be positive.*got -1"),
        ({"schedule": {"power": 2, "steps": [0.5]}}, "`schedule.power` .* got 2 and the .*0.5"),
        ({"float_share": 1}, "`w2a8.float_share` must be at least 0 and less than 1, got 1"),
        ({"float_share": 0.5, "quantize": None, "export": False}, "`w2a8` must have `quantize`"),
        ({"start": "later"}, "`runs.w2a8.start`.*must name a float run above it, got 'later'"),
    ],
)
def test_wrong_configuration_is_refused_by_name(tmp_path, change, message):
    import cifar10_config
    import yaml

    content = yaml.safe_load(CONFIG.read_text())
    content["runs"] = {"w2a8": {**content["runs"]["w2a8"], **change}, "later": {"title": "float"}}
    path = tmp_path / "runs.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ValueError, match=message):
        cifar10_config.read(path)


def test_deeper_net_is_quantized_and_trained_as_the_small_one(runs):
    import cifar10_config

    deeper = cifar10_config.read(EXPERIMENTS / "cifar10_resnet20.yaml")
    assert {"float", "w2a8", "w2a8_both"} <= set(deeper)
    for name, run in deeper.items():
        assert run == dataclasses.replace(runs[name], depth=20)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"runs": ["float", "w3a8"]}, "`runs` in .* must name runs of .*cifar10.yaml, got w3a8"),
        (
            {"runs": ["w2a8_from_float", "float"]},
            "`runs.w2a8_from_float.start`.*must name a float run above it, got 'float'",
        ),
        ({"runs": {"float": {"seeds": 1}}}, "`runs` in .* must be a list of names"),
        ({"runs": ["float"], "like": "runs.yaml"}, "`like` in .* must name a file that has a sch"),
        ({"runs": ["float"], "schedule": {}}, "must have the keys network, runs, and one of"),
    ],
)
def test_wrong_configuration_like_another_is_refused_by_name(tmp_path, content, message):
    import cifar10_config
    import yaml

    path = tmp_path / "runs.yaml"
    path.write_text(yaml.safe_dump({"network": 20, "like": str(CONFIG), **content}))
    with pytest.raises(ValueError, match=message):
        cifar10_config.read(path)


def test_half_quantized_runs_keep_weights_or_activations_float(runs):
    import cifar10_networks

    bits = {}
    for name in ("w32a8", "w32a2", "w2a32"):
        summary = wrpn_tf.summary(cifar10_networks.build(runs[name]))
        inner = [layer for layer in summary.layers if layer.path.startswith("stage")]
        bits[name] = {pair for layer in inner for pair in layer.macs}
    assert bits == {"w32a8": {"8x32"}, "w32a2": {"2x32"}, "w2a32": {"32x2"}}


def test_tfmots_net_starts_from_the_float_nets_weights_and_keeps_the_ends_float(runs):
    import cifar10_networks
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    network = cifar10_networks.build(runs["float"])
    tf_keras.utils.set_random_seed(0)
    model = cifar10_networks.build(runs["tfmot_w2a8"])
    wrapped = {layer.name for layer in model.layers if layer.name.startswith("quant_")}
    assert not wrapped & {"quant_stem_conv", "quant_predictions"}
    assert wrapped >= {"quant_stage1_block0_conv1", "quant_stage3_block0_shortcut"}
    kernel = model.get_layer("quant_stage2_block0_conv1").trainable_weights[0]
    np.testing.assert_array_equal(kernel, network.get_layer("stage2_block0_conv1").kernel)


def test_quantized_net_has_the_weights_of_the_float_one(runs):
    import cifar10_networks

    network = cifar10_networks.build(runs["float"])
    model = cifar10_networks.quantize(runs["w2a8_apprentice_c"], network)
    for name in ("stem_conv", "stage2_block0_shortcut", "predictions"):
        kernel = model.get_layer(f"quant_{name}").trainable_weights[0]
        np.testing.assert_array_equal(kernel, network.get_layer(name).kernel)


def test_trained_net_computes_the_same_in_keras_3(runs):
    import cifar10_networks

    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    source = cifar10_networks.build(runs["w2a8"])
    source(images, training=True)  # Ranges and moving means leave their initial values.
    target = cifar10_networks.build(runs["w2a8"], keras_flavor="keras")
    assert np.abs(np.asarray(source(images)) - np.asarray(target(images))).max() > 0.01
    cifar10_networks.copy_weights(source, target)
    difference = np.abs(np.asarray(source(images)) - np.asarray(target(images))).max(axis=1)
    # Batch norm in another order may move a value across the border of two levels, rarely.
    assert np.median(difference) == 0
    assert difference.max() < 5e-3


@pytest.fixture
def folder(tmp_path):
    """CIFAR-10's files with a few random images in each."""
    rng = np.random.default_rng(0)
    target = tmp_path / "cifar-10-batches-py"
    target.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        batch = {b"data": pixels, b"labels": rng.integers(0, 10, 20).tolist()}
        (target / name).write_bytes(pickle.dumps(batch))
    return target


@pytest.fixture
def small_network():
    """With all that a checkpoint must hold: batch norm, weights, and ranges where quantized."""

    def build(flavor="tf_keras", is_float=False):
        keras = importlib.import_module(flavor)
        layers = keras.layers
        keras.utils.set_random_seed(0)
        network = keras.Sequential(
            [
                layers.Input((32, 32, 3)),
                layers.Conv2D(4, 3, 4),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Conv2D(4, 3, 2),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Flatten(),
                layers.Dense(10, activation="softmax"),
            ]
        )
        return network if is_float else wrpn_tf.quantize_model(network)

    return build


@pytest.mark.parametrize(
    ("flavor", "float_share", "stops"),
    [
        ("keras", 0, [1]),
        ("tf_keras", 0, [1]),
        ("keras", 0.5, [1, 2]),
        ("tf_keras", 0.5, [1, 3]),
    ],
)
def test_killed_run_goes_on_as_if_it_had_not_been(
    runs, small_network, folder, tmp_path, monkeypatch, flavor, float_share, stops
):
    import cifar10_training
    import datasets

    data = cifar10_training.Images(datasets.load("cifar10", str(folder)))
    schedule = dataclasses.replace(runs["w2a8"].schedule, epochs=4, batch_size=25)
    run = dataclasses.replace(runs["w2a8"], schedule=schedule, float_share=float_share)

    def trained(name, stop_after=None):
        network = small_network(flavor, is_float=True)
        files = cifar10_training.RunFiles(name, 0, str(tmp_path / "out"), str(tmp_path / "work"))
        with monkeypatch.context() as patch:
            if stop_after is not None:
                accuracy = data.accuracy

                def interrupted(net):
                    if len(files.rows()) == stop_after:
                        raise KeyboardInterrupt
                    return accuracy(net)

                patch.setattr(data, "accuracy", interrupted)
            model = cifar10_training.quantized(run, 0, network, data, files)
            epochs = range(run.float_epochs, 4)
            cifar10_training.train(schedule, epochs, 0, model, model, data, files)
        rows = files.rows()
        return model, [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    whole, rows = trained("whole")
    for stop_after in stops:
        with pytest.raises(KeyboardInterrupt):
            trained("killed", stop_after)
    resumed, resumed_rows = trained("killed")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["learning_rate"] for row in rows] == ["0.10000", "0.08536", "0.05000", "0.01464"]
    assert resumed_rows == rows
    assert int(resumed.optimizer.iterations) == int(whole.optimizer.iterations) == 4 * 4
    assert len(resumed.get_weights()) > len(small_network(flavor, is_float=True).get_weights())
    for value, expected in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_result_says_how_each_part_of_a_run_was_trained(experiment_modules, tmp_path):
    import cifar10_training

    def begin(threads):
        files = cifar10_training.RunFiles("net", 0, str(tmp_path / "out"), str(tmp_path / "work"))
        return files, files.begin_part({"hardware": f"{threads} threads"}, 30)

    files, parts = begin(1)
    assert parts == [{"first_epoch": 1, "hardware": "1 threads"}]
    _, parts = begin(2)
    assert parts == [{"first_epoch": 1, "hardware": "2 threads"}]  # The first finished no epoch.
    files.save_checkpoint(_Trainer(), 4)
    expected = [
        {"first_epoch": 1, "hardware": "2 threads"},
        {"first_epoch": 5, "hardware": "3 threads"},
    ]
    assert begin(3)[1] == expected
    files.save_checkpoint(_Trainer(), 30)
    assert begin(4)[1] == expected


class _Trainer:
    """As much of a model as a checkpoint reads."""

    optimizer = types.SimpleNamespace(variables=[])

    def get_weights(self):
        return [np.ones(3)]


def test_batches_without_tensorflow_are_the_same(runs, folder, monkeypatch):
    import cifar10_training
    import datasets
    import keras

    data = cifar10_training.Images(datasets.load("cifar10", str(folder)))
    expected = list(data.batches(keras, 25, 3, 1).as_numpy_iterator())
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for own, its in zip(data.batches(keras, 25, 3, 1), expected, strict=True):
        np.testing.assert_array_equal(own[0], its[0])
        np.testing.assert_array_equal(own[1], its[1])


def test_integer_file_is_added_to_a_net_that_was_trained_without_tensorflow(folder, tmp_path):
    import yaml

    content = yaml.safe_load(CONFIG.read_text())
    content["schedule"] |= {"epochs": 1, "batch_size": 25}
    config = tmp_path / "short.yaml"
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    command = [sys.executable, str(EXPERIMENTS / "cifar10_train.py"), "--keras_flavor=keras"]
    command += [f"--config={config}", "--run=w2a8", f"--data_dir={folder}"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=600)
    path = tmp_path / "cifar10" / "w2a8_seed0.json"
    result = json.loads(path.read_text())
    assert [part["first_epoch"] for part in result["parts"]] == [1]
    assert result["parts"][0]["trained_with"].startswith("Keras 3")
    made = result["export"]
    assert made["keras_accuracy"] == result["test_accuracy"]
    moved = 20 * (made["tflite_accuracy"] - made["keras_accuracy"]) / 100  # Of 20 test images.
    assert made["changed"]["won"] - made["changed"]["lost"] == pytest.approx(moved)
    path.write_text(json.dumps({**result, "export": None, "seconds": 77}))
    subprocess.run(command, cwd=tmp_path, check=True, timeout=600)
    assert json.loads(path.read_text()) == {**result, "seconds": 77}


def test_teacher_that_does_not_know_the_images_is_refused_before_training(folder, tmp_path):
    wrpn_tf.applications.CIFARResNet(8, keras_flavor="tf_keras").save(tmp_path / "random.h5")
    command = [sys.executable, str(EXPERIMENTS / "cifar10_train.py"), "--run=w2a8_apprentice"]
    command += [f"--config={CONFIG}", f"--data_dir={folder}", "--teacher=random.h5"]
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 1
    accuracy = re.fullmatch(r"teacher: (.*) %\n", result.stdout)[1]
    assert float(accuracy) % 5 == 0  # Of 20 test images.
    assert f"at least 50 % of the test images right, got {accuracy} % by random.h5" in result.stderr
    assert not list((tmp_path / "cifar10").iterdir())


@pytest.mark.parametrize("flavor", ["keras", "tf_keras"])
def test_controls_ranges_are_larger_only_while_it_runs(small_network, folder, flavor):
    import cifar10_export
    import cifar10_training
    import datasets

    data = cifar10_training.Images(datasets.load("cifar10", str(folder)))
    model = small_network(flavor)
    before, weights = data.outputs(model), model.get_weights()
    difference = np.abs(cifar10_export._nudged_outputs(model, data) - before).max()
    assert 0 < difference < 0.1
    for value, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    ("change", "rates"),
    [
        ({"steps": [0.5, 0.7]}, [0.1, 0.1, 0.01, 0.001]),
        ({"power": 2}, [0.1, 0.05625, 0.025, 0.00625]),
    ],
)
def test_rate_falls_as_the_schedule_says(runs, small_network, folder, tmp_path, change, rates):
    import cifar10_training
    import datasets

    data = cifar10_training.Images(datasets.load("cifar10", str(folder)))
    schedule = dataclasses.replace(runs["w2a8"].schedule, epochs=4, batch_size=25, **change)
    model = small_network()
    files = cifar10_training.RunFiles("steps", 0, str(tmp_path / "out"), str(tmp_path / "work"))
    cifar10_training.train(schedule, range(4), 0, model, model, data, files)
    assert [float(row["learning_rate"]) for row in files.rows()] == rates


@pytest.fixture
def trained(runs):
    """Runs a queue of two workers; returns what was trained, in order, and what failed."""
    import cifar10_queue

    def run(only=None, done=(), failing=(), seeds=None):
        done = set(done)
        order = []

        def train(job):
            order.append(job.name)
            if job.name in failing:
                return 1
            done.add((job.run.name, job.seed))
            return 0

        def finished(name, seed):
            return (name, seed) in done

        jobs = cifar10_queue.jobs(runs, set(only or runs), seeds, finished)
        return order, cifar10_queue.Queue(jobs, train, finished, workers=2).run()

    return run


def test_queue_trains_each_missing_run_once_and_first_seeds_first(trained):
    order, failed = trained(only=["float", "w2a8", "w4a4_2x"], done=[("w2a8", 0)])
    assert sorted(order) == ["float_seed0", "float_seed1", "w2a8_seed1", "w4a4_2x_seed0"]
    assert set(order[:2]) == {"float_seed0", "w4a4_2x_seed0"}
    assert not failed
    assert trained(only=["w4a4_2x"], done=[("w4a4_2x", 0)]) == ([], [])


def test_queue_starts_a_run_after_the_one_whose_weights_it_takes(trained):
    order, failed = trained(only=["w2a8_apprentice_c", "float"], seeds=1)
    assert order == ["float_seed0", "w2a8_apprentice_c_seed0"]
    assert not failed


def test_queue_names_what_failed_and_what_could_not_start(trained):
    order, failed = trained(only=["w2a8_apprentice_c", "float"], failing=["float_seed0"], seeds=1)
    assert order == ["float_seed0"]
    assert failed == ["float_seed0", "w2a8_apprentice_c_seed0"]
