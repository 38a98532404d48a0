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
    Conv2D,
    Crop,
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


class NoKernels:
    """For networks without operations of a fixed scale."""

    def output_scale(self, operation, scales, largest, accepts):
        raise AssertionError(f"{operation.name} has no fixed scale")

    def is_exact(self, operation, scales):
        raise AssertionError(f"{operation.name} does not round again")


class Kernels:
    """Operations are exact where the ratio of their scales is a multiple of their unit."""

    def __init__(self, units):
        self.units = units

    def output_scale(self, operation, scales, largest, accepts):
        unit = self.units[operation.name] * scales[operation.inputs[0]]
        first = round(scales[operation.output] / unit)
        candidates = [np.float32(unit * k) for k in range(first, first + 8)]
        good = [scale for scale in candidates if scale <= largest and accepts(scale)]
        return (good or candidates)[0], operation.name

    def is_exact(self, operation, scales):
        ratio = scales[operation.output] / scales[operation.inputs[0]] / self.units[operation.name]
        return abs(ratio - round(ratio)) < 1e-4


def chosen_scales(model, kernels=None):
    scales, _ = choose_scales(model, kernels or NoKernels())
    return scales


@pytest.mark.parametrize(
    "operation",
    [
        Reshape("op", ("a",), "b"),
        MaxPool2D("op", ("a",), "b", (2, 2), (2, 2)),
        Pad("op", ("a",), "b", ((1, 1), (1, 1), (0, 0))),
        Crop("op", ("a",), "b", ((1, 1), (1, 1), (0, 0))),
        UpSample2D("op", ("a",), "b", (2, 2)),
        Shift("op", ("a",), "b", -3),
    ],
    ids=lambda op: type(op).__name__,
)
def test_what_moves_levels_has_one_scale(operation):
    chosen = chosen_scales(graph([operation], {"a": 0.1, "b": 0.1}))
    assert chosen == {"a": np.float32(0.1), "b": np.float32(0.1)}


def rounded_again(source, target):
    """What takes levels to another grid in front of a concatenation."""
    ones = np.ones((1, 1, 1, 2), np.int8)
    kernel = FoldedKernel(ones, 2, -1, np.ones(2), np.zeros(2), Origin(np.ones(2)))
    return DepthwiseConv2D(target, (source,), target, kernel)


def test_what_is_rounded_again_onto_its_own_grid_is_exact():
    model = graph([rounded_again("a", "b")], {"a": 0.1, "b": 0.1})
    assert chosen_scales(model) == {"a": np.float32(0.1), "b": np.float32(0.1)}


def joined(scales, *sources):
    """A concatenation of branches that are rounded again, and the network."""
    parts = [f"join/{i}" for i in range(len(sources))]
    operations = [rounded_again(*pair) for pair in zip(sources, parts, strict=True)]
    join = Concatenation("join", tuple(parts), "join", 3)
    return graph([*operations, join], {**scales, **dict.fromkeys(parts, scales["join"])})


def test_a_concatenation_takes_a_scale_at_which_all_branches_are_exact():
    model = joined({"a": 0.1, "b": 0.2, "join": 0.6}, "a", "b")
    chosen = chosen_scales(model, Kernels({"join/0": 3.0, "join/1": 1.25}))
    assert (chosen["a"], chosen["b"]) == (np.float32(0.1), np.float32(0.2))
    assert {chosen[name] for name in ("join/0", "join/1", "join")} == {np.float32(1.5)}


def test_a_branch_whose_scale_may_move_makes_up_for_itself():
    model = joined({"x": 0.1, "a": 0.1, "b": 0.2, "join": 0.6}, "a", "b")
    branch = Conv2D("conv", ("x",), "b", None)
    model = dataclasses.replace(model, operations=(branch, *model.operations), inputs=("x", "a"))
    chosen = chosen_scales(model, Kernels({"join/0": 6.0, "join/1": 3.5}))
    assert (chosen["a"], chosen["join"]) == (np.float32(0.1), np.float32(0.6))
    assert chosen["b"] == pytest.approx(0.6 / 3.5)


def test_a_branch_that_cannot_be_rounded_again_takes_the_concatenations_scale():
    model = joined({"a": 0.1, "b": 0.2, "join": 0.6}, "a", "b")
    chosen = chosen_scales(model, Kernels({"join/0": 6.0, "join/1": 3.85}))
    assert chosen["a"] == np.float32(0.1)
    assert {chosen[name] for name in ("b", "join/0", "join/1", "join")} == {np.float32(0.6)}


def test_a_branch_whose_relu_ends_below_the_concatenations_scale_keeps_its_own():
    model = joined({"a": 0.1, "join": 0.6}, "a")
    model = dataclasses.replace(model, largest_scales={"a": 0.101})
    chosen = chosen_scales(model, Kernels({"join/0": 7.7}))
    assert (chosen["a"], chosen["join"]) == (np.float32(0.1), np.float32(0.77))


def test_calls_of_one_quantizer_share_its_scale():
    operations = [Reshape("r", ("a",), "b"), Reshape("s", ("c",), "d")]
    scales = {"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.1}
    model = graph(operations, scales, shared=[("d", "b")])
    assert set(chosen_scales(model).values()) == {np.float32(0.1)}


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
    chosen = chosen_scales(dataclasses.replace(model, inputs=()))
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
    chosen = chosen_scales(model)
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
    chosen = chosen_scales(model)
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


def test_a_mean_and_what_it_is_joined_with_do_not_share_a_scale(flavor):
    """With one scale before and behind it, a mean of 34 values would be a tie at sums of 17."""
    layers = flavor.layers
    inputs = flavor.keras.Input((17, 2, 3), name="image")
    x = layers.Conv2D(2, 3, padding="same", activation="relu", name="a")(inputs)
    parts = [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    join = layers.Concatenate(name="join")(parts)
    model = quantized(flavor.keras.Model(inputs, layers.Dense(3)(join)))
    ends = [output_quantizer(model.get_layer(name)) for name in ("quant_a", "quant_join")]
    for quantizer, variables in ends:
        quantizer.set_range(variables, 0.0, 2.0)
    after, report = snap(model)
    assert report.exact
    assert 0 < max(map(abs, report.tensors.values())) < 0.02
    again, report = snap(after)
    assert max(map(abs, report.tensors.values())) == 0


@pytest.mark.parametrize("ratio", [1.0, 1.03, 3.0, 0.5])
def test_a_concatenations_branch_that_others_read_keeps_its_range(flavor, ratio):
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
    assert (concatenation.inputs[0] == "quant_a") == (ratio == 1.0)
    assert report.exact
    assert max(abs(report.tensors[name]) for name in ("quant_a", "quant_join")) < 0.01
