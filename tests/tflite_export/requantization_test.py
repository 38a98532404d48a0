"""The kernels' rounding, against literal values and against the real kernels."""

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from tests.tflite_export import one_operation
from tflite_export.requantization import (
    divide_half_away,
    divide_half_up,
    exact_levels,
    quantize_multiplier,
    requantize,
)

ROWS, CHANNELS = 400, 64
INPUT_ZERO, OUTPUT_ZERO = -3, -5


@pytest.mark.parametrize(
    ("multiplier", "mantissa", "shift"),
    [
        (0.5, 2**30, 0),
        (1.0, 2**30, 1),
        (0.75, 3 * 2**29, 0),
        (0.1, round(0.8 * 2**31), -3),
        # Rounds up to 2^31, which is written as the next power of two.
        (1.0 - 2.0**-40, 2**30, 1),
        (2.0**-33, 0, 0),
        (0.0, 0, 0),
    ],
)
def test_quantize_multiplier(multiplier, mantissa, shift):
    assert [int(x) for x in quantize_multiplier(multiplier)] == [mantissa, shift]


@pytest.mark.parametrize(
    ("value", "away", "up"), [(6, 2, 2), (-6, -2, -1), (5, 1, 1), (-5, -1, -1), (-7, -2, -2)]
)
def test_ties_of_a_division_by_four(value, away, up):
    assert divide_half_away(np.int64(value), np.int64(2)) == away
    assert divide_half_up(np.int64(value), np.int64(2)) == up


@pytest.mark.parametrize(
    ("kernel", "kind", "levels"),
    [
        # 10 accumulator units per level; thresholds at -15, -5, 5, 15. Multiplying by 0.1 / 2^-3
        # rounds 4 * 0.8 = 3.2 to 3 and so on; the shift by 3 then sees halves at 4 / 8.
        ("ref", "conv", [-2, -1, -1, 0, 0, 1, 1, 2]),
        ("opt", "conv", [-1, -1, 0, 0, 0, 1, 1, 2]),
        ("tflm", "fully_connected", [-2, -1, -1, 0, 0, 1, 1, 2]),
        ("ref", "fully_connected", [-2, -1, -1, 0, 0, 1, 1, 2]),
        ("xnn", "conv", [-2, -1, 0, 0, 0, 0, 1, 2]),
    ],
)
def test_ties_of_each_kernel(kernel, kind, levels):
    accumulators = [-15, -6, -5, -4, 4, 5, 6, 15]
    scales = (np.float32(1), np.float32(0.125), np.float32(1.25))
    assert requantize(kernel, kind, accumulators, *scales).tolist() == levels


def test_the_exact_rule_rounds_halves_up():
    assert exact_levels([-3, -1, 0, 1, 3], 0.5, 0.0).tolist() == [-1, 0, 0, 1, 2]
    assert exact_levels([0, 4], 0.25, 0.5).tolist() == [1, 2]


def test_levels_beyond_int64_keep_their_sign():
    assert exact_levels([-3, 0, 3], 1e30, 0.0).tolist() == [-(2**62), 0, 2**62]


def test_results_saturate_where_they_leave_int32():
    for kernel in ("ref", "opt", "xnn"):
        levels = requantize(kernel, "conv", [2**30, -(2**30)], 1.0, 1.0, 0.01)
        assert levels[0] > 2**30
        assert levels[1] < -(2**30)


def test_unknown_kernels_and_kinds_are_refused():
    with pytest.raises(ValueError, match="`kernel` must be one of .*'gpu'"):
        requantize("gpu", "conv", [1], 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="`kind` must be one of .*'softmax'"):
        requantize("ref", "softmax", [1], 1.0, 1.0, 1.0)


def _scales(case):
    """Scales of the input, each channel's weights and the output; whole ratios make ties."""
    random = np.random.default_rng(case)
    ratios = 2.0 ** random.uniform(-1, 10, CHANNELS)
    if case == 1:
        ratios = np.resize([2, 4, 6, 8, 10, 16, 32, 64, 128, 3, 5, 7, 12, 14, 20, 24], CHANNELS)
        return np.float32(1 / 64), (1 / ratios).astype(np.float32), np.float32(1 / 64)
    source, target = np.float32(0.0173), np.float32(0.0291)
    return source, (target / (source * ratios)).astype(np.float32), target


def _quantized(name, shape, scale, zero_point):
    return {
        "name": name, "shape": shape, "dtype": np.int8, "scale": scale, "zero_point": zero_point
    }  # fmt: skip


def _constant(name, data, scale, axis=0):
    return {
        "name": name, "shape": data.shape, "dtype": data.dtype, "scale": scale, "data": data,
        "axis": axis,
    }  # fmt: skip


def _options(kind):
    options = getattr(schema, f"{kind}OptionsT")()
    if kind != "FullyConnected":
        options.padding, options.strideW, options.strideH = schema.Padding.VALID, 1, 1
    return options


def _operation(kind, weights, bias, scales):
    """Returns a file of one operation on a [ROWS, inputs] matrix, and its input's shape."""
    source, weight, target = scales
    out, depth = weights.shape
    image = kind != "fully_connected"
    x = _quantized("x", [1, ROWS, 1, depth] if image else [ROWS, depth], source, INPUT_ZERO)
    y = _quantized("y", [1, ROWS, 1, out] if image else [ROWS, out], target, OUTPUT_ZERO)
    b = _constant("b", bias, source * weight)
    if kind == "conv":
        w = _constant("w", weights.reshape(out, 1, 1, depth), weight)
        return one_operation.build("CONV_2D", _options("Conv2D"), [x, w, b, y], [0], [3])
    if kind == "transpose_conv":
        shape = _constant("shape", np.array(y["shape"], np.int32), None)
        w = _constant("w", weights.reshape(out, 1, 1, depth), weight)
        tensors = [shape, w, x, b, y]
        options = _options("TransposeConv")
        return one_operation.build("TRANSPOSE_CONV", options, tensors, [2], [4])
    w = _constant("w", weights, weight)
    options = _options("FullyConnected")
    return one_operation.build("FULLY_CONNECTED", options, [x, w, b, y], [0], [3], version=4)


def _assert_kernels_agree(blob, q, kind, accumulators, scales):
    for name, got in one_operation.run_all(blob, [q]).items():
        levels = requantize(name[1], kind, accumulators, *scales)
        expected = np.clip(levels + OUTPUT_ZERO, -128, 127)
        wrong = np.flatnonzero(got.reshape(expected.shape) != expected)
        assert wrong.size == 0, f"{name}: {wrong.size} of {expected.size} differ, {wrong[:5]}"


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize(
    "kind", ["conv", "transpose_conv", "fully_connected", "fully_connected_per_tensor"]
)
def test_every_kernel_rounds_like_the_formula(kind, case):
    random = np.random.default_rng([case, len(kind)])
    source, weight, target = _scales(case)
    if kind == "fully_connected_per_tensor":
        weight = weight[5:6]
    scales = source, weight, target
    weights = random.integers(-127, 128, (CHANNELS, 32)).astype(np.int8)
    bias = random.integers(-20000, 20000, CHANNELS).astype(np.int32)
    q = random.integers(-128, 128, (ROWS, 32)).astype(np.int8)
    blob = _operation(kind.removesuffix("_per_tensor"), weights, bias, scales)
    accumulators = (q.astype(np.int64) - INPUT_ZERO) @ weights.T.astype(np.int64) + bias
    assert accumulators.size >= 20_000
    image = q if kind.startswith("fully") else q.reshape(1, ROWS, 1, 32)
    _assert_kernels_agree(blob, image, kind, accumulators, scales)


@pytest.mark.parametrize("case", [0, 1])
def test_depthwise_kernels_round_like_the_formula(case):
    random = np.random.default_rng(case)
    scales = _scales(case)
    weights = random.integers(-127, 128, (1, 3, 3, CHANNELS)).astype(np.int8)
    bias = random.integers(-20000, 20000, CHANNELS).astype(np.int32)
    q = random.integers(-128, 128, (1, 22, 22, CHANNELS)).astype(np.int8)
    real = q.astype(np.int64) - INPUT_ZERO
    accumulators = bias + sum(
        real[:, row : row + 20, column : column + 20] * weights[0, row, column].astype(np.int64)
        for row in range(3)
        for column in range(3)
    )
    options = _options("DepthwiseConv2D")
    options.depthMultiplier = 1
    tensors = [
        _quantized("x", q.shape, scales[0], INPUT_ZERO),
        _constant("w", weights, scales[1], axis=3),
        _constant("b", bias, scales[0] * scales[1]),
        _quantized("y", (1, 20, 20, CHANNELS), scales[2], OUTPUT_ZERO),
    ]
    blob = one_operation.build("DEPTHWISE_CONV_2D", options, tensors, [0], [3])
    assert accumulators.size >= 20_000
    _assert_kernels_agree(blob, q, "conv", accumulators, scales)


@pytest.mark.parametrize("kind", ["fully_connected", "fully_connected_per_tensor"])
def test_dense_multipliers_are_of_the_precision_that_the_formula_says(kind):
    """Biases next to thresholds of ten million units tell float32 from float64 products."""
    source, target = np.float32(0.0173), np.float32(0.0291)
    weight = np.full(CHANNELS if kind == "fully_connected" else 1, 1.7e-7, np.float32)
    scales = source, weight, target
    unit = float(target) / (float(source) * float(weight[0]))
    offsets = np.arange(CHANNELS) - CHANNELS // 2
    # 99.5 units of float32's precision, 6e-8, to both sides.
    bias = np.round(99.5 * unit + offsets * unit * 2e-7).astype(np.int32)
    blob = _operation("fully_connected", np.zeros((CHANNELS, 4), np.int8), bias, scales)
    q = np.full((ROWS, 4), INPUT_ZERO, np.int8)
    _assert_kernels_agree(blob, q, kind, np.broadcast_to(bias, (ROWS, CHANNELS)), scales)
