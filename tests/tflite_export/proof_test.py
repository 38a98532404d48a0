"""The proof against brute force: every accumulator, every pair, in exact fractions."""

from __future__ import annotations

import dataclasses
import fractions
import math

import numpy as np
import pytest

from tests.tflite_export import integer_networks
from tflite_export import integer_model as im
from tflite_export.addition import add
from tflite_export.integer_model import reachable_sums
from tflite_export.multiplication import multiply
from tflite_export.proof import RealFunction, prove
from tflite_export.requantization import ALL_KERNELS, requantize


def dense(integers, scale, bias, high=15, low=0, multiplier=1, target_scale=1 / 16, spread=1):
    """A dense layer on levels 0..3 of scale 1/4."""
    integers = np.array(integers, np.int8)
    channels = len(integers)
    kernel = im.Kernel(
        integers,
        4,
        np.full(channels, multiplier, np.int32),
        np.array(scale, np.float32),
        np.array(bias, np.int32),
        spread,
    )
    tensors = {
        "x": im.Tensor("x", integers.shape[1:], np.float32(1 / 4), 0, 3),
        "y": im.Tensor("y", (channels,), np.float32(target_scale), low, high),
    }
    operation = im.FullyConnected("y", ("x",), "y", kernel=kernel, relu=low == 0)
    return im.IntegerModel(tensors, (operation,), ("x",), ("y",))


def brute_force(model):
    """Channels at which a kernel differs from the rule at any accumulator, and the margin."""
    (operation,) = model.operations
    kernel = operation.kernel
    source, target = model.tensors["x"], model.tensors["y"]
    low = max(target.low, 0) if operation.relu else target.low
    smallest, largest = reachable_sums(operation, source)
    wrong, margin = set(), math.inf
    for channel in range(kernel.bias.size):
        sums = np.arange(smallest[channel], largest[channel] + 1)
        factor = int(kernel.multiplier[channel]) * kernel.spread
        accumulators = sums * factor + int(kernel.bias[channel])
        unit = fractions.Fraction(float(kernel.scale[channel])) * fractions.Fraction(
            float(source.scale)
        )
        unit /= kernel.spread
        unit /= fractions.Fraction(float(target.scale))
        half = fractions.Fraction(1, 2)
        wanted = [
            min(max(math.floor(int(a) * unit + half), low), target.high) for a in accumulators
        ]
        for name in ALL_KERNELS:
            read = np.float32(source.scale / kernel.spread)
            scales = read, kernel.scale[channel : channel + 1], target.scale
            kind = "fully_connected" if kernel.bias.size > 1 else "fully_connected_per_tensor"
            levels = requantize(name, kind, accumulators[:, None], *scales)[:, 0]
            if (np.clip(levels, low, target.high) != wanted).any():
                wrong.add(channel)
        for n in range(low + 1, target.high + 1):
            threshold = (n - half) / unit
            if accumulators[0] < threshold < accumulators[-1]:
                margin = min(margin, min(abs(float(a - threshold)) for a in accumulators.tolist()))
    return wrong, margin


@pytest.mark.parametrize("spread", [1, 64])
@pytest.mark.parametrize("seed", range(12))
def test_a_kernel_is_proved_exactly_where_brute_force_finds_no_difference(seed, spread):
    generator = np.random.default_rng(seed)
    channels, low = 24, -8 if seed % 3 == 0 else 0
    model = dense(
        generator.integers(-7, 8, (channels, 12)),
        generator.uniform(0.01, 0.4, channels),
        generator.integers(-40, 40, channels) * spread,
        low=low,
        high=7 if low else 15,
        multiplier=1 + 17 * (seed % 2),
        spread=spread,
    )
    (proof,) = prove(model)
    wrong, margin = brute_force(model)
    assert proof.unproved == tuple(sorted(wrong))
    assert proof.holds == (not wrong)
    assert proof.num_proved == channels - len(wrong)
    assert proof.margin == pytest.approx(margin, rel=1e-9)  # float64 against fractions


def test_both_outcomes_occur_in_the_brute_force_test():
    generator = np.random.default_rng(1)
    integers = generator.integers(-7, 8, (24, 12))
    bias = generator.integers(-40, 40, 24)
    bad = dense(integers, np.full(24, 1 / 16), bias)  # D = 4: ties
    good = dense(integers, np.full(24, 1 / 360), 18 * bias, multiplier=18)  # D = 5 * 18
    spread = dense(integers, np.full(24, 1 / 20), 64 * bias, spread=64)  # D = 5 * 64
    assert not prove(bad)[0].holds
    assert prove(good)[0].holds
    assert prove(spread)[0].holds


def test_a_model_of_another_function_than_the_file_fails():
    model = dense([[1, -2, 3], [3, 3, 1]], [1 / 360, 1 / 360], [36, -18], multiplier=18)
    (operation,) = model.operations
    scale = operation.kernel.scale.astype(np.float64)
    own = RealFunction(18 * scale, scale / 4 * operation.kernel.bias)
    assert prove(model, {"y": own})[0].holds
    moved = RealFunction(own.scale, own.bias + [0, 1 / 16])  # by one level
    (proof,) = prove(model, {"y": moved})
    assert proof.unproved == (1,)
    assert proof.failure == "1 of 2 channels differ: 1"


def test_hand_made_networks_are_proved():
    for model in (integer_networks.small(), integer_networks.varied()):
        proofs = prove(model)
        assert all(proof.holds for proof in proofs), [p for p in proofs if not p.holds]
        softmax = [isinstance(operation, im.Softmax) for operation in model.operations]
        assert len(proofs) == len(model.operations) - sum(softmax)


def test_each_kernel_layer_of_a_network_can_fail():
    model = integer_networks.varied()
    for position, operation in enumerate(model.operations):
        if not hasattr(operation, "kernel"):
            continue
        kernel = operation.kernel
        scale = kernel.scale.copy()
        # Accumulators M apart, less than one unit below the first thresholds.
        source, target = (model.tensors[n] for n in (operation.inputs[0], operation.output))
        scale[-1] = target.scale / (source.scale * kernel.multiplier[-1] * 1.003)
        bias = kernel.bias.copy()
        bias[-1] = kernel.multiplier[-1] // 2
        broken = dataclasses.replace(
            operation, kernel=dataclasses.replace(kernel, scale=scale, bias=bias)
        )
        operations = list(model.operations)
        operations[position] = broken
        failed = [
            p
            for p in prove(dataclasses.replace(model, operations=tuple(operations)))
            if not p.holds
        ]
        assert [(p.name, p.unproved) for p in failed] == [(operation.name, (bias.size - 1,))]


def addition(scales, relu=True, high=15, low=0, sign=1):
    first, second, target = scales
    tensors = {
        "a": im.Tensor("a", (4,), np.float32(first), 0, 15),
        "b": im.Tensor("b", (4,), np.float32(second), -8, 7),
        "y": im.Tensor("y", (4,), np.float32(target), low, high),
    }
    total = im.Add("y", ("a", "b"), "y", relu=relu, sign=sign)
    return im.IntegerModel(tensors, (total,), ("a", "b"), ("y",))


@pytest.mark.parametrize(
    ("scales", "relu", "holds"),
    [
        ((1 / 15, 1 / 15, 1 / 15), True, True),
        ((1 / 15, 1 / 45, 1 / 15), True, True),
        ((1 / 4, 1 / 4, 1 / 2), False, False),  # ties
        ((0.3, 0.127, 0.457), False, True),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_additions_are_proved_pair_by_pair(scales, relu, holds, sign):
    low = 0 if relu else -8
    model = addition(scales, relu, low=low, high=15 if relu else 7, sign=sign)
    (proof,) = prove(model)
    a, b, y = (fractions.Fraction(float(np.float32(scale))) for scale in scales)
    wrong = False
    for i in range(16):
        for j in range(-8, 8):
            wanted = math.floor((i * a + sign * j * b) / y + fractions.Fraction(1, 2))
            floats = [np.float32(scale) for scale in scales]
            found = {
                int(np.clip(add(k, i, j, *floats, sign=sign), low, 15 if relu else 7))
                for k in ALL_KERNELS
            }
            wrong |= found != {min(max(wanted, low), 15 if relu else 7)}
    assert wrong is not holds
    assert proof.holds is holds
    assert proof.num_channels == 1
    if not holds:
        assert ("+" if sign > 0 else "-") in proof.failure.partition("first")[2].partition(":")[0]


@pytest.mark.parametrize(
    ("scales", "relu", "holds"),
    [
        ((1 / 15, 1 / 15, 1 / 15), True, True),
        ((0.25, 0.5, 0.875), False, True),
        ((0.25, 0.5, 1.0), False, False),  # ties
        ((0.25, 0.5, 0.25 * 0.5 * 43.9999), False, True),
    ],
)
def test_products_are_proved_pair_by_pair(scales, relu, holds):
    low, high = (0, 15) if relu else (-8, 7)
    model = addition(scales, relu, low=low, high=high)
    model = dataclasses.replace(model, operations=(im.Multiply("y", ("a", "b"), "y", relu),))
    (proof,) = prove(model)
    a, b, y = (fractions.Fraction(float(np.float32(scale))) for scale in scales)
    floats = [np.float32(scale) for scale in scales]
    wrong = any(
        np.clip(math.floor(i * a * j * b / y + fractions.Fraction(1, 2)), low, high)
        != np.clip(multiply(i, j, *floats), low, high)
        for i in range(16)
        for j in range(-8, 8)
    )
    assert wrong is not holds
    assert proof.holds is holds
    assert proof.num_channels == 1
    assert holds or "first 1 * -4: -1, not 0" in proof.failure


def test_moved_levels_must_keep_their_meaning():
    x = im.Tensor("x", (4,), np.float32(0.5), 0, 15)
    for changes in ({"scale": np.float32(0.25)}, {"high": 14}, {"low": -1}):
        y = dataclasses.replace(x, name="y", **changes)
        model = im.IntegerModel({"x": x, "y": y}, (im.Reshape("y", ("x",), "y"),), ("x",), ("y",))
        (proof,) = prove(model)
        assert not proof.holds
        assert "makes levels 0..15 of scale 0.5 of 'x', not" in proof.failure


def test_a_shift_must_move_by_what_its_tensors_differ():
    x = im.Tensor("x", (4,), np.float32(0.5), 0, 15)
    y = dataclasses.replace(x, name="y", low=-5, high=10)
    for amount, holds in ((-5, True), (-4, False), (0, False)):
        shift = im.Shift("y", ("x",), "y", amount)
        model = im.IntegerModel({"x": x, "y": y}, (shift,), ("x",), ("y",))
        assert prove(model)[0].holds is holds


def test_an_accumulator_beyond_32_bits_fails():
    model = dense(np.full((1, 4), 7), [1 / 20], [2**31 - 80])
    assert prove(model)[0].unproved == (0,)
