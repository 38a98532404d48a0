"""The verdict, the table and the dictionary."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tflite_export.proof import OperationProof
from tflite_export.report import VerificationReport
from tflite_export.verification_findings import Agreement, Comparison, LayerComparison

SOURCES = (
    "Keras",
    *(f"{lib} {k}" for lib in ("formula", "tf.lite", "LiteRT") for k in ("ref", "opt", "xnn")),
    "TFLM",
)


def layer(name, total=2048, **differing):
    counts = {name.replace("_", " "): count for name, count in differing.items()}
    return LayerComparison(
        name,
        "accelerator",
        {s: Comparison(counts.get(s, 0), total, int(s in counts)) for s in SOURCES},
    )


def make_report(**changes):
    report = VerificationReport(
        num_images=128,
        sources=SOURCES,
        file_differences=(),
        proofs=(OperationProof("conv1", 16, margin=0.5), OperationProof("conv2", 8, margin=9.25)),
        layers=(layer("image"), layer("conv1"), layer("conv2"), layer("logits", 1280)),
        missing=(),
        top1={source: Agreement(128, 128) for source in SOURCES},
        probabilities={},
        not_run={},
    )
    return dataclasses.replace(report, **changes)


def test_no_difference_is_exact():
    report = make_report()
    assert report.exact
    assert report.keras_exact
    assert report.first_difference is None
    assert str(report).startswith("EXACT: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"file_differences": ("conv1/kernel: 1 of 144 integers",)},
        {"proofs": (OperationProof("conv1", 16, (3,), 0.5, "1 of 16 channels differ: 3"),)},
        {"missing": ("TFLM: conv2",)},
        {"layers": (layer("image"), layer("conv1", LiteRT_xnn=1))},
        {"layers": ()},
        {"num_images": 0},
    ],
)
def test_any_defect_is_not_exact(changes):
    report = make_report(**changes)
    assert not report.exact
    assert str(report).startswith("NOT EXACT: ")


def test_keras_is_judged_by_itself():
    report = make_report(layers=(layer("image"), layer("conv1", Keras=3)))
    assert report.exact
    assert not report.keras_exact
    assert "Keras (float32) differs in 3 of 4,096 levels" in " ".join(str(report).split())


def test_the_first_differing_layer_is_named():
    layers = (
        layer("image"),
        layer("conv1", Keras=1),
        layer("conv2", TFLM=5, LiteRT_opt=7),
        layer("logits", 1280, formula_ref=9),
    )
    report = make_report(layers=layers)
    assert report.first_difference == ("conv2", "LiteRT opt")
    text = " ".join(str(report).split())
    assert "first differing layer is 'conv2', LiteRT opt: 7 of 2,048 levels" in text


def test_every_cell_shows_its_count():
    layers = (layer("conv1"), layer("conv2", TFLM=5, LiteRT_opt=7, Keras=123_456))
    rows = {
        line.split()[0]: line.split()[1:]
        for line in str(make_report(layers=layers)).split("\n")
        if line
    }
    assert rows["conv1"] == ["2048", *["0"] * 11]
    assert rows["conv2"] == ["2048", "123k", *["0"] * 7, "7", "0", "5"]
    assert rows["Layer"] == ["levels", "Keras", *["ref", "opt", "xnn"] * 3, "TFLM"]


def test_a_source_without_the_tensor_shows_a_dash():
    flat = LayerComparison("flat", "formula ref", {"TFLM": Comparison(0, 64, 0)})
    row = next(line for line in str(make_report(layers=(flat,))).split("\n") if "flat" in line)
    assert row.split() == ["flat", "64", *["-"] * 10, "0"]


def test_labels_and_probabilities_have_rows_of_their_own():
    report = make_report(
        top1={**{source: Agreement(128, 128) for source in SOURCES}, "Keras": Agreement(126, 128)},
        probabilities={"LiteRT xnn": Comparison(12, 1280, 1)},
    )
    lines = str(report).split("\n")
    labels = next(line for line in lines if line.startswith("top-1"))
    aside = next(line for line in lines if line.startswith("probabilities (aside)"))
    assert labels.split()[2:5] == ["128", "2", "0"]
    assert aside.split()[-12:] == ["1280", *["-"] * 9, "12", "-"]
    assert report.exact


def test_the_text_fits_a_hundred_columns():
    names = ["block_13_expand_with_a_name_that_is_far_too_long_relu", "x" * 60]
    report = make_report(
        layers=tuple(layer(name, 10**7, LiteRT_ref=9_999_999) for name in names),
        file_differences=("y" * 40 + ": weights differ at 3 of 1,000 places",) * 30,
        missing=tuple(f"TFLM: {name}" for name in names),
        not_run={"TFLM": "because " * 40},
    )
    lines = str(report).split("\n")
    assert max(map(len, lines)) <= 100
    assert "... and 20 more" in str(report)


def test_the_dictionary_is_plain():
    report = make_report(layers=(layer("conv1", TFLM=5),))
    plain = report.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["exact"] is False
    assert plain["keras_exact"] is True
    assert plain["first_difference"] == ["conv1", "TFLM"]
    assert plain["layers"][0]["sources"]["TFLM"] == {"differing": 5, "total": 2048, "largest": 1}
    assert plain["proofs"][1]["margin"] == 9.25
