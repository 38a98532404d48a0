"""Arguments of layers that do not fit: refused, by name."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.accelerator import SystolicArray, conv2d, conv2d_transpose, dense, depthwise_conv2d

ARRAY = SystolicArray()
Q = np.zeros((1, 5, 5, 4), np.int32)
N = np.zeros((3, 3, 4, 6), np.int8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": Q.astype(np.float32)}, TypeError, "`q` must hold integers, got float32"),
        ({"q": Q + 256}, ValueError, r"`q` must be in 0..255, got 256..256"),
        ({"q": Q - 1}, ValueError, r"`q` must be in 0..255, got -1..-1"),
        ({"q": Q + 128, "low": -128}, ValueError, r"`q` must be in -128..127, got 128..128"),
        ({"q": Q[0]}, ValueError, r"`q` must be \[batch, height, width, channels\]"),
        ({"q": Q[:0]}, ValueError, r"`q` must have entries, got shape \(0, 5, 5, 4\)"),
        ({"n": N.astype(float)}, TypeError, "`n` must hold integers, got float64"),
        ({"n": N + 2}, ValueError, r"`n` must be in -1..1 for 2 bits, got 2..2"),
        ({"n": N[0]}, ValueError, r"`n` have 4 dimensions, got shapes .* and \(3, 4, 6\)"),
        ({"n": N[:, :, :3]}, ValueError, "`n` must have 4 input channels .* got 3"),
        ({"q": Q[:, :2]}, ValueError, "`n` reaches over 3 values, but `q` has only 2"),
        ({"low": 1}, ValueError, r"`low` must be in -255..0, got 1"),
        ({"low": -256}, ValueError, r"`low` must be in -255..0, got -256"),
        ({"low": 0.0}, TypeError, "`low` must be an int, got float 0.0"),
        ({"groups": 3}, ValueError, "`groups` must divide the 4 channels and 6 filters, got 3"),
        ({"groups": 0}, ValueError, "`groups` must be at least 1, got 0"),
        ({"padding": "full"}, ValueError, "`padding` must be one of .* got 'full'"),
        ({"strides": 0}, ValueError, "`strides` must be at least 1, got 0"),
        ({"strides": (1, 2, 3)}, ValueError, "`strides` must be one or two numbers"),
        ({"strides": 1.5}, TypeError, "`strides` must be an int, got float 1.5"),
        ({"dilation": (1, 0)}, ValueError, "`dilation` must be at least 1, got 0"),
        ({"num_bits": 9}, ValueError, "`num_bits` must be in 1..8, got 9"),
        ({"max_rows": 0}, ValueError, "`max_rows` must be at least 1, got 0"),
    ],
)
def test_arguments_of_conv2d_that_do_not_fit_are_refused(change, error, message):
    arguments = {"q": Q, "n": N, "num_bits": 2, "array": ARRAY} | change
    with pytest.raises(error, match=message):
        conv2d(**arguments)


@pytest.mark.parametrize(
    ("layer", "q", "n"),
    [
        (dense, np.zeros((2, 3), int), np.zeros((4, 5), int)),
        (dense, np.zeros(3, int), np.zeros((3, 5), int)),
        (depthwise_conv2d, Q, np.zeros((3, 3, 5, 1), int)),
        (depthwise_conv2d, Q, np.zeros((3, 3, 4), int)),
        (conv2d_transpose, Q, np.zeros((3, 3, 4, 6), int)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(layer, q, n):
    with pytest.raises(ValueError, match=r"`(q|n|groups)`.* got "):
        layer(q, n, num_bits=2, array=ARRAY)


def test_a_transposed_convolution_is_not_causal():
    with pytest.raises(
        ValueError, match=r"`padding` must be one of \('same', 'valid'\), got 'causal'"
    ):
        conv2d_transpose(Q, np.zeros((3, 3, 6, 4), int), num_bits=2, array=ARRAY, padding="causal")
