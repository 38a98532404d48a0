"""Level dictionaries in, counts out."""

from __future__ import annotations

import numpy as np

from tests.tflite_export import integer_networks
from tflite_export import integer_model as im
from tflite_export.verification_findings import Agreement, Comparison, compare, summarize

NAMES = ("image", "stem", "conv", "branch", "add", "pool", "flat", "logits")
ROUNDED = ("image", "stem", "conv", "branch", "add", "logits")


def make_levels(model, count=3, seed=0):
    """Random levels of every tensor."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.integers(tensor.low, tensor.high + 1, (count, *tensor.shape))
        for name, tensor in model.tensors.items()
    }


def changed(levels, name, index, by):
    """A copy with one level changed."""
    copy = {key: array.copy() for key, array in levels.items()}
    copy[name][index] += by
    return copy


def only(levels, names):
    return {name: levels[name] for name in names}


def summarized(model, **sources):
    levels = make_levels(model)
    sources = {name.replace("_", " "): make(levels) for name, make in sources.items()}
    return summarize({"accelerator": only(levels, ROUNDED), **sources}, model, ROUNDED)


def test_equal_levels_differ_nowhere():
    model = integer_networks.small()
    findings = summarized(model, Keras=lambda v: only(v, ROUNDED), LiteRT_ref=lambda v: v)
    assert tuple(layer.name for layer in findings.layers) == NAMES
    assert findings.missing == ()
    for layer in findings.layers:
        assert all(c.differing == c.largest == 0 for c in layer.sources.values())
        assert {c.total for c in layer.sources.values()} <= {
            3 * int(np.prod(model.tensors[layer.name].shape))
        }


def test_each_changed_level_is_counted_where_it_is():
    model = integer_networks.small()
    findings = summarized(
        model,
        LiteRT_ref=lambda v: v,
        LiteRT_xnn=lambda v: changed(changed(v, "conv", (0, 1, 2, 3), -2), "conv", (2, 0, 0, 0), 1),
    )
    counts = {
        (layer.name, source): (c.differing, c.largest)
        for layer in findings.layers
        for source, c in layer.sources.items()
        if c.differing
    }
    assert counts == {("conv", "LiteRT xnn"): (2, 2)}


def test_what_the_accelerator_only_moves_is_compared_among_the_others():
    model = integer_networks.small()
    findings = summarized(
        model, formula_ref=lambda v: v, TFLM=lambda v: changed(v, "flat", (0, 5), 1)
    )
    (flat,) = (layer for layer in findings.layers if layer.name == "flat")
    assert flat.reference == "formula ref"
    assert flat.sources == {"TFLM": Comparison(1, 3 * 64, 1)}


def test_labels_are_compared_by_the_first_largest_logit():
    model = integer_networks.small()
    wanted = {"logits": np.array([[1, 5, 5], [7, 0, 0], [0, 0, 9]])}
    other = {"logits": np.array([[1, 4, 5], [8, 0, 0], [0, 0, 9]])}
    findings = summarize({"accelerator": wanted, "TFLM": other}, model, ["logits"])
    assert findings.top1 == {"TFLM": Agreement(same=2, total=3)}


def test_the_label_of_a_single_logit_is_yes_or_no():
    b = integer_networks.Builder((4,))
    b.dense("logit", "image", 1)
    wanted = {"logit": np.array([[3], [-7], [1]])}
    other = {"logit": np.array([[1], [-1], [0]])}
    findings = summarize({"accelerator": wanted, "TFLM": other}, b.model("logit"), ["logit"])
    assert findings.top1 == {"TFLM": Agreement(same=2, total=3)}


def test_labels_of_a_sigmoid_are_those_of_each_logit():
    b = integer_networks.Builder((4,))
    b.dense("logits", "image", 3)
    b.tensor("share", (3,), 1 / 256, 0, 255)
    b.operations.append(im.Sigmoid("share", ("logits",), "share"))
    wanted = {"logits": np.array([[0, 5, 9], [-7, 1, 2]])}
    other = {"logits": np.array([[1, 5, 7], [-1, 2, 0]])}
    findings = summarize({"accelerator": wanted, "TFLM": other}, b.model("share"), ["logits"])
    assert findings.top1 == {"TFLM": Agreement(same=4, total=6)}


def test_a_softmax_is_compared_aside_and_its_logits_give_the_labels():
    model = integer_networks.varied()
    levels = make_levels(model)
    ours = changed(levels, "softmax", (0, 3), 1)
    findings = summarize(
        {"accelerator": only(levels, ["logits"]), "formula ref": levels, "TFLM": ours},
        model,
        ["logits"],
    )
    assert "softmax" not in [layer.name for layer in findings.layers]
    assert findings.probabilities == {"TFLM": Comparison(1, 3 * 10, 1)}
    # The accelerator's levels of the other output were not given.
    assert findings.top1["TFLM"] == Agreement(3, 3)
    assert findings.top1["formula ref"] == Agreement(3, 3)


def test_a_tensor_that_a_source_lacks_is_missing():
    model = integer_networks.small()
    findings = summarized(
        model,
        Keras=lambda v: only(v, [*ROUNDED[:-1]]),
        TFLM=lambda v: only(v, [n for n in NAMES if n != "pool"]),
    )
    assert findings.missing == ("Keras: logits", "TFLM: pool")


def test_a_rounding_that_the_file_has_not_is_missing():
    model = integer_networks.small()
    levels = {"accelerator": {"other": np.zeros((1, 2), int)}}
    assert summarize(levels, model, ["other"]).missing == ("accelerator: other",)


def test_other_shapes_differ_throughout():
    assert compare(np.zeros((2, 3), int), np.zeros((2, 4), int)) == Comparison(8, 8, 0)


def test_batches_add_up_to_the_whole():
    model = integer_networks.varied()
    levels = make_levels(model, 5)
    sources = {
        "accelerator": only(levels, ["image", "logits"]),
        "formula ref": levels,
        "LiteRT xnn": changed(changed(levels, "signed", (4, 0, 0, 0), 3), "logits", (1, 1), -200),
    }

    def cut(part):
        return {
            source: {name: array[part] for name, array in found.items()}
            for source, found in sources.items()
        }

    whole = summarize(sources, model, ["image", "logits"])
    parts = [summarize(cut(part), model, ["image", "logits"]) for part in (slice(2), slice(2, 5))]
    assert parts[0] + parts[1] == whole
    assert whole.layers[-1].sources["LiteRT xnn"] == Comparison(1, 50, 200)
