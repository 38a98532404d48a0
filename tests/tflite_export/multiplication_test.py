"""The product that files hold, against literal values and, on all pairs of levels, real kernels."""

import numpy as np
import pytest

from tests.tflite_export.flatbuffer_networks import one_operation, tensor
from tests.tflite_export.flatbuffer_reference import COMBINATIONS, interpreter, run, to_int8
from tflite_export import integer_model as im
from tflite_export.flatbuffer import write
from tflite_export.multiplication import multiply

FIRST, SECOND = np.meshgrid(np.arange(-128, 128), np.arange(0, 256))


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize(
    ("scales", "relu"),
    [
        ((0.02, 1 / 255, 0.017), False),
        ((0.02, 1 / 255, 0.0203), True),
        ((0.25, 0.25, 2.0), False),  # ties
        ((0.5, 0.5, 0.0125), False),  # an output that is finer than the products
        ((0.001, 0.003, 0.05), False),
    ],
)
def test_every_kernel_multiplies_all_pairs_of_levels_like_the_formula(scales, relu, combination):
    model = one_operation(
        im.Multiply("y", ("x", "z"), "y", relu),
        tensor("x", (256, 256, 1), low=-128, high=127, scale=scales[0]),
        tensor("z", (256, 256, 1), scale=scales[1]),
        tensor("y", (256, 256, 1), low=-128, high=127, scale=scales[2]),
    )
    x, z, y = (model.tensors[name].scale for name in "xzy")
    running = interpreter(write(model), *combination)
    running.allocate_tensors()
    inputs = [to_int8(model, name, q[..., None]) for name, q in (("x", FIRST), ("z", SECOND))]
    (got,) = run(running, inputs)
    expected = np.clip(multiply(FIRST, SECOND, x, z, y), 0 if relu else -128, 127)
    np.testing.assert_array_equal(got[..., 0], expected)


def test_ties_go_away_from_zero():
    one, four = np.float32(1), np.float32(4)
    assert multiply([1, -1, 3], [2, 2, 2], one, one, four).tolist() == [1, -1, 2]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_scales_must_be_positive(position):
    scales = [np.float32(position != i) for i in range(3)]
    with pytest.raises(ValueError, match="must be positive"):
        multiply(1, 1, *scales)
