"""Scales of sums and concatenations, on graphs written by hand and read from models."""

from __future__ import annotations

import dataclasses
import fractions

import numpy as np
import pytest

from tests.tflite_export.small_models import quantized, residual_net
from tflite_export.batch_norm_folding import FoldedKernel, Origin
from tflite_export.graph_reader import FoldedModel, fold_model
from tflite_export.integer_model import (
    Add,
    Concatenation,
    Crop2D,
    DepthwiseConv2D,
    MaxPool2D,
    Pad,
    Reshape,
    Shift,
    Tensor,
    UpSample2D,
)
from tflite_export.snap_model import snap
from tflite_export.snapping_sum import check_sum
from tflite_export.tensor_scales import choose_scales
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.quantization import output_quantizer

L = KERAS.layers


def graph(operations, scales, shared=(), low=None):
    """A folded model of tensors by name, whose quantizers have a variable each."""
    low = low or {}
    tensors = {
        name: Tensor(name, (4, 4, 2), np.float32(scale), low.get(name, 0), low.get(name, 0) + 255)
        for name, scale in scales.items()
    }
    quantizers = {name: (None, {"range": object()}) for name in scales}
    for name, other in shared:
        quantizers[name] = quantizers[other]
    written = {op.output for op in operations}
    inputs = tuple(name for name in scales if name not in written)
    outputs = (operations[-1].output,)
    return FoldedModel(tensors, tuple(operations), inputs, outputs, quantizers, {}, ())


def never(operation, scales, largest):
    raise AssertionError(f"{operation.name} has no fixed scale")


@pytest.mark.parametrize(
    "operation",
    [
        Reshape("op", ("a",), "b"),
        MaxPool2D("op", ("a",), "b", (2, 2), (2, 2)),
        Pad("op", ("a",), "b", ((1, 1), (1, 1), (0, 0))),
        Crop2D("op", ("a",), "b", ((1, 1), (1, 1))),
        UpSample2D("op", ("a",), "b", (2, 2)),
        Shift("op", ("a",), "b", -3),
    ],
    ids=lambda op: type(op).__name__,
)
def test_what_moves_levels_has_one_scale(operation):
    chosen = choose_scales(graph([operation], {"a": 0.1, "b": 0.1}), never)
    assert chosen == {"a": np.float32(0.1), "b": np.float32(0.1)}


def rounded_again(source, target):
    """What takes levels to another grid in front of a concatenation."""
    ones = np.ones((1, 1, 1, 2), np.int8)
    kernel = FoldedKernel(ones, 2, -1, np.ones(2), np.zeros(2), Origin(np.ones(2)))
    return DepthwiseConv2D(target, (source,), target, kernel)


def as_it_is(operation, scales, largest):
    return scales[operation.output]


def test_what_is_rounded_again_onto_almost_its_own_grid_takes_it():
    join = Concatenation("join", ("b", "c"), "d", 3)
    operations = [MaxPool2D("pool", ("x",), "a"), rounded_again("a", "b"), join]
    scales = {"x": 0.1, "a": 0.1, "b": 0.104, "c": 0.104, "d": 0.104}
    assert set(choose_scales(graph(operations, scales), never).values()) == {np.float32(0.104)}


@pytest.mark.parametrize("change", ["another scale", "another sign", "a limit", "a shift"])
def test_what_is_rounded_again_onto_another_grid_keeps_its_own(change):
    scales = {"a": 0.1, "b": 0.11 if change == "another scale" else 0.104}
    operation = rounded_again("a", "b")
    if change == "a shift":
        kernel = dataclasses.replace(operation.kernel, bias=np.ones(2))
        operation = dataclasses.replace(operation, kernel=kernel)
    model = graph([operation], scales, low={"b": -128} if change == "another sign" else None)
    if change == "a limit":
        model = dataclasses.replace(model, largest_scales={"a": 0.101})
    assert choose_scales(model, as_it_is) == {n: np.float32(s) for n, s in scales.items()}


def test_a_chain_of_grids_that_are_near_does_not_drift():
    scales = {"a": 0.1, "b": 0.104, "c": 0.108}
    model = graph([rounded_again("a", "b"), rounded_again("b", "c")], scales)
    wanted = {"a": 0.104, "b": 0.104, "c": 0.108}
    assert choose_scales(model, as_it_is) == {n: np.float32(s) for n, s in wanted.items()}


def test_calls_of_one_quantizer_share_its_scale():
    operations = [Reshape("r", ("a",), "b"), Reshape("s", ("c",), "d")]
    scales = {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.1}
    model = graph(operations, scales, shared=[("d", "b")])
    assert set(choose_scales(model, never).values()) == {np.float32(0.1)}


def odd_denominators(first, second, output):
    """Whether the addends' scales over the output's are fractions with one odd denominator."""
    ratios = [
        fractions.Fraction(float(scale) / float(output)).limit_denominator(1023)
        for scale in (first, second)
    ]
    # A float32 each: the ratio of two is off by no more than two halves of an ulp.
    for ratio, scale in zip(ratios, (first, second), strict=True):
        assert float(scale) / float(output) == pytest.approx(float(ratio), rel=2.0**-22)
    return all(ratio.denominator % 2 for ratio in ratios)


@pytest.mark.parametrize("seed", range(20))
def test_a_sums_ratios_have_odd_denominators(seed):
    first, second, output = np.random.default_rng(seed).uniform(0.05, 0.3, 3)
    add = Add("add", ("a", "b"), "c", relu=True)
    model = graph([add], {"a": first, "b": second, "c": output}, low={"a": -128})
    chosen = choose_scales(dataclasses.replace(model, inputs=()), never)
    for name, tensor in model.tensors.items():
        assert float(chosen[name]) / float(tensor.scale) == pytest.approx(1, abs=0.02), name
    assert odd_denominators(chosen["a"], chosen["b"], chosen["c"])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("limited", ["a", "b", "c"])
def test_a_sums_scales_stay_below_their_limits(seed, limited):
    scales = dict(zip("abc", np.random.default_rng(seed).uniform(0.05, 0.3, 3), strict=True))
    model = graph([Add("add", ("a", "b"), "c", relu=True)], scales, low={"a": -128})
    largest = float(model.tensors[limited].scale)
    model = dataclasses.replace(model, inputs=(), largest_scales={limited: largest})
    chosen = choose_scales(model, never)
    assert chosen[limited] <= largest
    assert odd_denominators(chosen["a"], chosen["b"], chosen["c"])


def test_what_the_model_reads_and_what_others_read_keeps_its_scale():
    """`x` is an input, and `b` is read twice: the sum's scale makes up for both."""
    operations = [
        Reshape("r", ("x",), "a"),
        Reshape("s", ("b",), "d"),
        Add("add", ("a", "b"), "c"),
    ]
    scales = {"x": 0.11, "a": 0.11, "b": 0.23, "d": 0.23, "c": 0.27}
    model = dataclasses.replace(graph(operations, scales), inputs=("x",))
    chosen = choose_scales(model, never)
    assert {name: chosen[name] for name in "xabd"} == {n: np.float32(scales[n]) for n in "xabd"}
    tensors = {n: dataclasses.replace(t, scale=chosen[n]) for n, t in model.tensors.items()}
    assert check_sum((tensors["a"], tensors["b"]), tensors["c"]).exact


def test_the_sums_of_a_model_have_ratios_with_odd_denominators(flavor):
    model = quantized(residual_net(flavor))
    folded = fold_model(snap(model)[0])
    (add,) = (op for op in folded.operations if isinstance(op, Add))
    scales = [folded.tensors[name].scale for name in (*add.inputs, add.output)]
    assert odd_denominators(*scales)


def test_a_chain_of_sums_keeps_what_the_first_has_bound():
    x = inputs = KERAS.keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    for i in range(3):
        y = L.Conv2D(4, 3, padding="same", name=f"conv{i}")(x)
        x = L.ReLU(name=f"relu{i}")(L.Add(name=f"add{i}")([x, y]))
    model = quantized(KERAS.keras.Model(inputs, L.Conv2D(2, 1)(x)))
    folded = fold_model(snap(model)[0])
    adds = [op for op in folded.operations if isinstance(op, Add)]
    assert len(adds) == 3
    for add in adds:
        scales = [folded.tensors[name].scale for name in (*add.inputs, add.output)]
        assert odd_denominators(*scales), add.name


@pytest.mark.parametrize("ratio", [1.03, 0.98, 3.0, 0.5])
def test_a_concatenations_branch_that_others_read_keeps_its_range(flavor, ratio):
    """But for the little by which it may become the concatenation's."""
    layers = flavor.layers
    inputs = flavor.keras.Input((8, 8, 3), name="image")
    first = layers.Conv2D(2, 3, padding="same", activation="relu", name="a")(inputs)
    second = layers.Conv2D(2, 3, padding="same", activation="relu", name="b")(first)
    join = layers.Concatenate(name="join")([first, second])
    model = quantized(flavor.keras.Model(inputs, layers.Conv2D(2, 1, name="head")(join)))
    largest = fold_model(model).tensors["quant_a"].scale * 255
    quantizer, variables = output_quantizer(model.get_layer("quant_join"))
    quantizer.set_range(variables, 0.0, float(ratio * largest))
    after, report = snap(model)
    folded = fold_model(after)
    (concatenation,) = (op for op in folded.operations if isinstance(op, Concatenation))
    assert len({folded.tensors[name].grid for name in concatenation.inputs}) == 1
    is_near = abs(ratio - 1) < 0.05
    assert (concatenation.inputs[0] == "quant_a") == is_near
    assert report.exact
    moved = max(map(abs, report.tensors.values()))
    assert 0.015 < moved < 0.031 if is_near else moved < 0.01
