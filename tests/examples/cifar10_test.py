"""The experiment on CIFAR-10: its configuration, its nets, resuming, and what its report says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "examples" / "experiments"
CONFIG = EXPERIMENTS / "cifar10.yaml"
_TFMOT = "tensorflow-model-optimization"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """The experiment's modules find each other as they do when it runs as a script."""
    for folder in (EXPERIMENTS, ROOT / "examples"):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in [name for name in sys.modules if name.startswith("cifar10") or name == "datasets"]:
        del sys.modules[name]


@pytest.fixture
def runs():
    import cifar10_config

    return cifar10_config.read(CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": {"epoch": 3}}, "`runs.w2a8`.*epoch"),
        ({"tool": {"name": "brevitas"}, "quantize": None}, "`w2a8.tool.name` must be one of larq"),
        ({"tool": {"name": "larq"}}, "`w2a8` must have `quantize` or `tool`, got both"),
        ({"quantize": None, "distill": {"scheme": "B"}}, "`w2a8` must have `quantize`"),
        ({"schedule": {"steps": [0.75, 0.5]}}, "`schedule.steps` must be rising shares.*0.75, 0.5"),
        ({"schedule": {"steps": [1.0]}}, "`schedule.steps` must be rising shares"),
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
    for name, run in deeper.items():
        assert run == dataclasses.replace(runs[name], depth=20, seeds=1)


def test_half_quantized_runs_keep_weights_or_activations_float(runs):
    import cifar10_networks

    import wrpn_tf

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


def test_run_with_a_start_has_the_float_runs_weights(runs, tmp_path):
    import cifar10_networks

    network = cifar10_networks.build(runs["float"])
    network.save_weights(tmp_path / "final.h5")
    model = cifar10_networks.build(runs["w2a8_apprentice_c"], tmp_path / "final.h5")
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
    """Quantized, with all that a checkpoint must hold: batch norm, ranges, weights."""
    import wrpn_tf

    def build(flavor="tf_keras"):
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
        return wrpn_tf.quantize_model(network)

    return build


@pytest.mark.parametrize("flavor", ["keras", "tf_keras"])
def test_killed_run_goes_on_as_if_it_had_not_been(
    runs, small_network, folder, tmp_path, monkeypatch, flavor
):
    import cifar10_training
    import datasets

    data = cifar10_training.Images(datasets.load("cifar10", str(folder)))
    schedule = dataclasses.replace(runs["w2a8"].schedule, epochs=3, batch_size=25)

    def trained(name, stop_after=None):
        model = small_network(flavor)
        files = cifar10_training.RunFiles(name, 0, str(tmp_path / "out"), str(tmp_path / "work"))
        with monkeypatch.context() as patch:
            if stop_after is not None:
                accuracy = data.accuracy

                def interrupted(net):
                    if len(files.rows()) == stop_after:
                        raise KeyboardInterrupt
                    return accuracy(net)

                patch.setattr(data, "accuracy", interrupted)
            cifar10_training.train(schedule, 0, model, model, data, files)
        rows = files.rows()
        return model, [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    whole, rows = trained("whole")
    with pytest.raises(KeyboardInterrupt):
        trained("killed", stop_after=1)
    resumed, resumed_rows = trained("killed")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert resumed_rows == rows
    for value, expected in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


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
    assert result["trained_with"].startswith("Keras 3")
    assert result["export"]["keras_accuracy"] == result["test_accuracy"]
    path.write_text(json.dumps({**result, "export": None, "date": "then"}))
    subprocess.run(command, cwd=tmp_path, check=True, timeout=600)
    assert json.loads(path.read_text()) == {**result, "date": "then"}


def test_rate_falls_to_a_tenth_after_each_step(runs, small_network, folder, tmp_path):
    import cifar10_training
    import datasets

    data = cifar10_training.Images(datasets.load("cifar10", str(folder)))
    schedule = dataclasses.replace(runs["w2a8"].schedule, epochs=4, batch_size=25, steps=[0.5, 0.7])
    model = small_network()
    files = cifar10_training.RunFiles("steps", 0, str(tmp_path / "out"), str(tmp_path / "work"))
    cifar10_training.train(schedule, 0, model, model, data, files)
    assert [float(row["learning_rate"]) for row in files.rows()] == [0.1, 0.1, 0.01, 0.001]


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
    order, failed = trained(only=["float", "w2a8", "w2a2"], done=[("w2a8", 0)])
    assert sorted(order) == ["float_seed0", "float_seed1", "w2a2_seed0", "w2a8_seed1"]
    assert set(order[:2]) == {"float_seed0", "w2a2_seed0"}
    assert not failed
    assert trained(only=["w2a2"], done=[("w2a2", 0)]) == ([], [])


def test_queue_starts_a_run_after_the_one_whose_weights_it_takes(trained):
    order, failed = trained(only=["w2a8_apprentice_c", "float"], seeds=1)
    assert order == ["float_seed0", "w2a8_apprentice_c_seed0"]
    assert not failed


def test_queue_names_what_failed_and_what_could_not_start(trained):
    order, failed = trained(only=["w2a8_apprentice_c", "float"], failing=["float_seed0"], seeds=1)
    assert order == ["float_seed0"]
    assert failed == ["float_seed0", "w2a8_apprentice_c_seed0"]


@pytest.fixture
def results(runs, tmp_path):
    """Writes results as runs do: name, seed -> accuracies of 30 epochs, rising to the last."""
    folder = tmp_path / "cifar10"
    folder.mkdir()

    def write(name, seed, last, reached_half_at=30, reestimated=None, **more):
        curve = [last - 5.0 + 10 * (epoch >= reached_half_at) for epoch in range(1, 30)] + [last]
        lines = ["epoch,test_accuracy"] + [f"{i},{x}" for i, x in enumerate(curve, start=1)]
        if reestimated is not None:
            lines[0] += ",reestimated_accuracy"
            lines[1:] = [f"{line},{x + 10}" for line, x in zip(lines[1:], curve, strict=True)]
            lines[-1] = f"30,{last},{reestimated}"
        (folder / f"{name}_seed{seed}.csv").write_text("\n".join(lines) + "\n")
        content = {
            "run": dataclasses.asdict(runs[name]),
            "parameters": 78714,
            "seconds": 60,
            "commit": "abc",
            "versions": dict.fromkeys(("tensorflow", "larq", "qkeras", _TFMOT), "2"),
            "hardware": "a processor",
            "date": "2026-01-01",
            **more,
        }
        (folder / f"{name}_seed{seed}.json").write_text(json.dumps(content))
        return folder

    return write


def test_report_says_what_is_reached_and_what_is_missed(runs, results):
    import cifar10_report

    results("float", 0, 85.0)
    results("float", 1, 86.0)
    exported = {"keras_accuracy": 83.0, "snapped_accuracy": 83.1, "tflite_accuracy": 83.1}
    results("w2a8", 0, 84.0, export={**exported, "bytes": 99_000})
    results("w2a8", 1, 84.5)
    teacher = {"file": "big.h5", "test_accuracy": 91.3}
    results("w2a8_apprentice", 0, 84.2, reached_half_at=20, teacher=teacher)
    results("w2a8_apprentice", 1, 84.2, reached_half_at=29)
    folder = results("larq_w2a8", 0, 84.5)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert text == (folder.parent / "cifar10.md").read_text()
    assert "(cifar10.png)" in text
    assert "--config=examples/experiments/cifar10.yaml" in text
    assert "Teacher: `big.h5` (91.30 %)." in text
    assert "| float | 85.50 ± 0.71 | 2 | +0.00 |" in text
    assert "| 2W/8A | 84.25 ± 0.35 | 2 | -1.25 |" in text
    assert "| 2W/8A, plain, within 1 of float | -1.25 | **missed** |" in text
    assert "| ahead of 2W/8A, Larq DoReFa | -0.50 | **missed** |" in text
    assert "at most 85 % of the epochs | 67%, 97% | **missed** |" in text
    assert "| 2W/8A, seed 0: file within 0.1 of Keras | +0.10 | reached |" in text
    assert "| 2W/8A, Apprentice B | 2W/8A | 0 | moving | 84.00 | 20 of 30 | 30 |" in text
    assert "w2a8_both, qkeras_w2a8" in text.split("Not run yet with seed 0: ")[1]
    assert (folder.parent / "cifar10.png").stat().st_size > 10_000


def test_report_takes_all_runs_at_once(runs, results):
    import cifar10_report

    for name in runs:  # More than a palette has colours.
        folder = results(name, 0, 80.0)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "Not run yet with seed 0" not in text
    assert (folder.parent / "cifar10.png").stat().st_size > 10_000


def test_claims_are_open_within_two_standard_errors(runs, results):
    import cifar10_report

    # Two nets of 80 %: (2 * 0.8 * 0.2 / 10,000) ** 0.5 = 0.57 points; of two seeds each: 0.40.
    results("float", 0, 80.0)
    results("w2a8_both", 0, 81.0)
    results("w4a4_2x", 0, 78.0)
    results("w2a8", 0, 80.0)
    results("w2a8", 1, 80.0)
    results("w2a8_apprentice", 0, 81.0)
    folder = results("w2a8_apprentice", 1, 81.0)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "2x, Apprentice B | +1.00 ± 0.56 | open |" in text
    assert "| a teacher wins it back | 2W/8A, Apprentice B | +1.00 ± 0.40 | holds |" in text
    assert "all at 2x | -2.00 ± 0.58 | **does not hold** |" in text
    assert "first 30 % at 2x win back" not in text


def test_convergence_is_told_with_statistics_measured_again_if_both_have_them(runs, results):
    import cifar10_report

    results("float", 0, 85.0)
    results("w2a8", 0, 84.0, reestimated=84.1)
    results("w2a8_apprentice", 0, 84.2, reached_half_at=25, reestimated=84.3)
    folder = results("w2a8_apprentice_c", 0, 84.2, reached_half_at=20)
    text = cifar10_report.write(runs, folder, CONFIG)
    # Their curves are 10 points above the moving averages' before the last epoch, where it is told.
    assert "| 2W/8A, Apprentice B | 2W/8A | 0 | measured again | 84.10 | 1 of 30 | 1 |" in text
    assert "from float at 0.01 | 2W/8A | 0 | moving | 84.00 | 20 of 30 | 30 |" in text


def test_rows_without_a_common_seed_are_not_compared(runs, results):
    import cifar10_report

    results("float", 0, 85.0)
    results("w2a8", 1, 84.5)
    folder = results("larq_w2a8", 0, 84.0)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "| 2W/8A | 84.50 | 1 |  |" in text
    assert "ahead of" not in text
    assert "within 1 of float" not in text


def test_nets_of_another_weight_decay_are_not_compared(runs, results):
    import cifar10_report

    results("w2a8_decay", 0, 84.0)
    results("w2a8_apprentice", 0, 84.5)
    folder = results("larq_w2a8", 0, 83.0)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "ahead of" not in text
    assert "## Convergence" not in text


def test_nets_trained_in_steps_are_compared_with_each_other(runs, results):
    import cifar10_report

    results("float", 0, 86.0)
    results("w2a8", 0, 83.0)
    results("float_steps", 0, 85.5)
    results("w2a8_steps", 0, 84.7)
    folder = results("w2a8_apprentice_steps", 0, 85.0, reached_half_at=24)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "`In steps`: the rate falls to a tenth after 50 and after 75 %" in text
    assert "| 2W/8A, in steps | 84.70 | 1 | -0.80 |" in text
    assert "| 2W/8A, in steps, plain, within 1 of float | -0.80 | reached |" in text
    assert "| 2W/8A, plain, within 1 of float | -3.00 | **missed** |" in text
    assert (
        "| 2W/8A, Apprentice B, in steps | 2W/8A, in steps | 0 | moving | 84.70 | 24 of 30 | 30 |"
        in text
    )


def test_bound_that_is_met_exactly_is_reached(runs, results):
    import cifar10_report

    results("float", 0, 85.91)
    folder = results("w2a8", 0, 84.91)
    assert "| -1.00 | reached |" in cifar10_report.write(runs, folder, CONFIG)


def test_result_of_another_configuration_is_refused(runs, results):
    import cifar10_results

    changed = dataclasses.asdict(runs["w2a8"])
    changed["schedule"]["learning_rate"] = 0.3
    folder = results("w2a8", 0, 80.0, run=changed)
    with pytest.raises(ValueError, match=r"w2a8_seed0\.json was obtained with another"):
        cifar10_results.read(runs, folder)


def test_result_from_before_an_option_has_its_default(runs, results):
    import cifar10_results

    before = dataclasses.asdict(runs["w2a8"])
    del before["schedule"]["steps"]
    folder = results("w2a8", 0, 80.0, run=before)
    assert cifar10_results.read(runs, folder)["w2a8"].nets[0].accuracy == 80.0


@pytest.mark.parametrize("report", sorted((ROOT / "examples" / "results").glob("cifar10*.md")))
def test_committed_report_is_what_the_committed_results_say(report):
    import cifar10_config
    import cifar10_report
    import cifar10_results

    config = EXPERIMENTS / f"{report.stem}.yaml"
    runs = cifar10_config.read(config)
    rows = cifar10_results.read(runs, report.with_suffix(""))
    assert report.read_text() == cifar10_report.markdown(runs, rows, report.stem, config.name)
