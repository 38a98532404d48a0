"""The kernels' sums and differences, against literal values and the real kernels' of all pairs."""

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from tests.tflite_export import one_operation
from tflite_export.addition import add

FIRST, SECOND = (
    grid.astype(np.int8).reshape(1, 256, 256, 1)
    for grid in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
)


def _file(operator, scales, zero_points, relu):
    options = {"ADD": schema.AddOptionsT, "SUB": schema.SubOptionsT}[operator]()
    options.fusedActivationFunction = int(relu)
    tensors = [
        {"name": name, "shape": FIRST.shape, "dtype": np.int8, "scale": s, "zero_point": zero}
        for name, s, zero in zip("aby", scales, zero_points, strict=True)
    ]
    return one_operation.build(operator, options, tensors, [0, 1], [2], version=2)


@pytest.mark.parametrize(("operator", "sign"), [("ADD", 1), ("SUB", -1)])
@pytest.mark.parametrize(
    ("scales", "zero_points", "relu"),
    [
        ((0.02, 0.013, 0.017), (-3, 7, -9), False),
        # Exact ties: the smaller scale is half the output's.
        ((0.02, 0.01, 0.02), (-128, -128, -128), False),
        ((1 / 255, 1 / 255, 1 / 255), (-128, -128, -128), True),
        ((0.01, 0.01, 0.05), (0, 0, 0), False),
        ((0.05, 0.001, 0.3), (5, -5, 0), False),
        ((0.25, 0.125, 0.5), (1, 2, 3), True),
        ((0.25, 0.5, 0.125), (0, 0, 0), False),
        ((0.1, 0.033, 0.007), (0, 1, 0), False),
    ],
)
def test_every_kernel_adds_all_pairs_of_levels_like_the_formula(
    scales, zero_points, relu, operator, sign
):
    scales = tuple(np.float32(s) for s in scales)
    blob = _file(operator, scales, zero_points, relu)
    first, second = FIRST - np.int64(zero_points[0]), SECOND - np.int64(zero_points[1])
    for name, got in one_operation.run_all(blob, [FIRST, SECOND]).items():
        level = add(name[1], first, second, *scales, sign=sign) + zero_points[2]
        expected = np.clip(level, zero_points[2] if relu else -128, 127)
        wrong = np.count_nonzero(got != expected)
        assert wrong == 0, f"{name}: {wrong} of {got.size} pairs differ"


@pytest.mark.parametrize(
    ("kernel", "levels"), [("ref", [-1, 0, 1, 2]), ("opt", [-1, 0, 1, 2]), ("xnn", [-1, 0, 1, 2])]
)
def test_equal_scales_add_exactly(kernel, levels):
    scale = np.float32(0.1)
    assert add(kernel, [-1, 0, 0, 1], [0, 0, 1, 1], scale, scale, scale).tolist() == levels


def test_kernels_break_ties_apart():
    """(1 + 1) / 4 and (-1 - 1) / 4."""
    one, four = np.float32(1), np.float32(4)
    ties = {k: add(k, [1, -1], [1, -1], one, one, four).tolist() for k in ("ref", "xnn")}
    assert ties == {"ref": [1, -1], "xnn": [1, 0]}


def test_refusals():
    with pytest.raises(ValueError, match="`kernel` must be one of .*'gpu'"):
        add("gpu", 1, 1, np.float32(1), np.float32(1), np.float32(1))
    with pytest.raises(ValueError, match="must be positive"):
        add("ref", 1, 1, np.float32(0), np.float32(1), np.float32(1))
