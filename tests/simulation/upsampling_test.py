"""Interpolated levels against Keras' layer, in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from wrpn_tf.simulation.upsampling import interpolated


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 2), (1, 5), (4, 8)])
@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (1, 1, 1, 2)])
def test_interpolated_levels_are_what_keras_computes(shape, size):
    integers = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int32)
    layer = keras.layers.UpSampling2D(size, interpolation="bilinear", dtype="float64")
    expected = np.asarray(layer(integers.astype(np.float64)))
    result = interpolated(integers, 0.5, size)
    ((sums, scale),) = result.terms
    assert (sums.dtype, scale) == (np.int32, 0.5)
    # Keras' weights are float32.
    np.testing.assert_allclose(sums / result.divisor, expected, atol=1e-4)
    np.testing.assert_array_equal(np.rint(expected * result.divisor), sums)
