"""What the report of the experiment on CIFAR-10 says of results."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "examples" / "experiments"
CONFIG = EXPERIMENTS / "cifar10.yaml"
PART = {
    "first_epoch": 1,
    "commit": "abc",
    "trained_with": "TensorFlow 2",
    "hardware": "a processor",
    "date": "2026-01-01",
}
_TFMOT = "tensorflow-model-optimization"

pytestmark = pytest.mark.usefixtures("experiment_modules")


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
            "versions": dict.fromkeys(("larq", "qkeras", _TFMOT), "2"),
            "parts": [PART],
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
    counted = {"changed": {"lost": 31, "won": 41}, "changed_by_nudge": {"lost": 21, "won": 22}}
    results("w2a8", 0, 84.0, export={**exported, **counted, "bytes": 99_000})
    results("w2a8", 1, 84.5)
    teacher = {"file": "big.h5", "test_accuracy": 91.3}
    results("w2a8_apprentice", 0, 84.2, reached_half_at=20, teacher=teacher)
    results("w2a8_apprentice", 1, 84.2, reached_half_at=29, export={**exported, "bytes": 9})
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
    assert "| 2W/8A | 0 | 83.00 | 83.10 | 83.10 | 31 + 41 | 21 + 22 | 99,000 |" in text
    assert "| 2W/8A, Apprentice B | 1 | 83.00 | 83.10 | 83.10 |  |  | 9 |" in text
    assert "w2a8_both, qkeras_w2a8" in text.split("Not run yet with seed 0: ")[1]
    assert (folder.parent / "cifar10.png").stat().st_size > 10_000


def test_report_takes_all_runs_at_once(runs, results):
    import cifar10_report

    for name in runs:  # More than a palette has colours.
        folder = results(name, 0, 80.0)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "Not run yet with seed 0" not in text
    assert (folder.parent / "cifar10.png").stat().st_size > 10_000


def test_parts_of_a_run_that_were_trained_otherwise_are_told(runs, results):
    import cifar10_report

    results("float", 0, 85.0)
    other = {"first_epoch": 25, "commit": "def", "hardware": "another"}
    folder = results("larq_w2a8", 0, 81.0, parts=[PART, PART | other])
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "| float | 0 | abc | TensorFlow 2 | a processor | 1 | 2026-01-01 |" in text
    larq = "| larq_w2a8 | 0 | abc, then def | larq 2, TensorFlow 2 | a processor, then another |"
    assert f"{larq} 1 | 2026-01-01 |" in text


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
    assert (
        "| a teacher wins it back | papers | 2W/8A, Apprentice B | +1.00 ± 0.40 | holds |" in text
    )
    assert "all at 2x | -2.00 ± 0.58 | **does not hold** |" in text
    assert "first 30 % at 2x win back" not in text


def test_convergence_is_told_with_statistics_measured_again_if_both_have_them(runs, results):
    import cifar10_report

    results("float", 0, 85.0)
    results("w2a8", 0, 84.0, reestimated=84.1)
    results("w2a8_apprentice", 0, 84.2, reached_half_at=25, reestimated=84.3)
    results("w2a8_from_float", 0, 83.9, reestimated=84.0)
    folder = results("w2a8_apprentice_c", 0, 84.2, reached_half_at=20)
    text = cifar10_report.write(runs, folder, CONFIG)
    # Their curves are 10 points above the moving averages' before the last epoch, where it is told.
    assert "| 2W/8A, Apprentice B | 2W/8A | 0 | measured again | 84.10 | 1 of 30 | 1 |" in text
    assert "from float at 0.01 | 0 | moving | 83.90 | 20 of 30 | 30 |" in text


def test_nets_from_float_weights_are_compared_with_each_other(runs, results):
    import cifar10_report

    results("float", 0, 85.0)
    results("tfmot_w2a8", 0, 81.0)
    folder = results("w2a8_from_float", 0, 84.5)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "`From float`: starts from the trained weights of the float net" in text
    assert "ahead of" not in text
    (folder / "w2a8_from_float_seed0.json").unlink()
    results("w2a8", 0, 82.0)
    results("w2a8_apprentice_c", 0, 85.5)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "## Convergence" not in text
    assert "## Claims" not in text
    results("w2a8_from_float", 0, 84.5)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "| ahead of 2W/8A, tfmot n-bit | +1.00 | reached |" in text
    assert "| 2W/8A, from float at 0.01, plain, within 1 of float | -0.50 | reached |" in text
    claim = "| a teacher wins it back, from float weights | papers"
    assert f"{claim} | 2W/8A, Apprentice C, from float at 0.01 | +1.00 ± 0.50 | open |" in text


def test_net_that_begins_in_float_is_compared_with_the_float_and_the_plain_one(runs, results):
    import cifar10_report

    results("float", 0, 85.0)
    results("w2a8_float_half", 0, 84.5)
    results("w2a8", 0, 82.0)
    results("larq_w2a8", 0, 81.0)
    folder = results("w2a8_apprentice", 0, 83.0)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "`Half of it in float`: the first half of the same epochs trains the float net" in text
    name = "2W/8A, half of it in float"
    assert f"| {name}, plain, within 1 of float | -0.50 | reached |" in text
    claim = "half of the same epochs in float win it back"
    assert f"| {claim} | ours | {name} | +2.50 ± 0.53 | holds |" in text
    # A distilled net, and another tool's, are measured by the plain one of their own start.
    assert "| 2W/8A, Apprentice B | 2W/8A | 0 |" in text
    assert "| ahead of 2W/8A, Larq DoReFa | +1.00 | reached |" in text


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


def test_nets_of_another_fall_of_the_rate_are_compared_with_each_other(runs, results):
    import cifar10_report

    results("float", 0, 86.0)
    results("float_square", 0, 85.5)
    folder = results("w2a8_square", 0, 84.7)
    text = cifar10_report.write(runs, folder, CONFIG)
    assert "`Rate as a square`: the rate falls as the square" in text
    assert "| 2W/8A, rate as a square, plain, within 1 of float | -0.80 | reached |" in text


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


def test_result_with_an_unknown_option_is_refused_by_its_file(runs, results):
    import cifar10_results

    folder = results("w2a8", 0, 80.0, run={**dataclasses.asdict(runs["w2a8"]), "later": 1})
    with pytest.raises(ValueError, match=r"w2a8_seed0\.json has a run that .* not know: .*later"):
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
