"""Average pooling, against a loop over windows."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.simulation.pooling import mean_over_space, mean_over_windows
from wrpn_tf.simulation.values import real


def mean_of(integers, row, column, pool, strides, before):
    """The mean of what a window covers of the tensor."""
    top, left = row * strides[0] - before[0], column * strides[1] - before[1]
    window = integers[:, max(top, 0) : top + pool[0], max(left, 0) : left + pool[1]]
    return window.mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("pool", "strides", "padding", "before"),
    [
        ((2, 2), (2, 2), "valid", (0, 0)),
        ((3, 2), (1, 2), "valid", (0, 0)),
        ((2, 2), (2, 2), "same", (0, 0)),  # 7 rows: the last window has one; 4 columns
        ((3, 3), (2, 2), "same", (1, 0)),  # 7 rows: (4 - 1) * 2 + 3 - 7 = 2; 4 columns: 1
        ((3, 3), (1, 1), "same", (1, 1)),
        ((1, 2), (3, 1), "same", (0, 0)),
    ],
)
def test_windows_are_averaged_without_their_padding(pool, strides, padding, before):
    integers = np.random.default_rng(1).integers(-128, 128, (2, 7, 4, 3)).astype(np.int32)
    result = real(mean_over_windows(integers, 0.5, pool, strides, padding))
    for row in range(result.shape[1]):
        for column in range(result.shape[2]):
            expected = mean_of(integers, row, column, pool, strides, before) * 0.5
            np.testing.assert_allclose(result[:, row, column], expected, rtol=1e-15)
    if padding == "same":
        assert result.shape[1:3] == (-(-7 // strides[0]), -(-4 // strides[1]))
    else:
        assert result.shape[1:3] == (
            (7 - pool[0]) // strides[0] + 1,
            (4 - pool[1]) // strides[1] + 1,
        )


def test_sequences_are_averaged_as_images_of_one_row():
    integers = np.random.default_rng(1).integers(-128, 128, (2, 7, 3)).astype(np.int32)
    result = real(mean_over_windows(integers, 0.5, (3,), (2,), "same"))
    image = real(mean_over_windows(integers[:, np.newaxis], 0.5, (1, 3), (1, 2), "same"))
    np.testing.assert_array_equal(result, image[:, 0])


@pytest.mark.parametrize("keepdims", [False, True])
def test_global_pooling_averages_all_positions(keepdims):
    integers = np.arange(2 * 3 * 4 * 5, dtype=np.int32).reshape(2, 3, 4, 5)
    result = real(mean_over_space(integers, 2.0, keepdims))
    np.testing.assert_allclose(
        result, integers.mean(axis=(1, 2), keepdims=keepdims) * 2, rtol=1e-15
    )


def test_a_sum_that_may_overflow_is_refused():
    many = np.broadcast_to(np.int32(255), (1, 2**12, 2**11, 1))
    with pytest.raises(OverflowError, match="8388608 levels"):
        mean_over_space(many, 1.0, False)
