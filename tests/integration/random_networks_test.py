"""Random networks of all bits: what is exported computes what Keras does, on every kernel."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.random_networks import random_network
from tflite_export import convert, snap, verify
from wrpn_tf import calibrate, quantize_model, reestimate_batch_norm
from wrpn_tf.keras_flavor import KERAS, TF_KERAS


def _has_norms(model):
    return any(type(layer).__name__ == "BatchNormalization" for layer in model.layers)


@pytest.mark.slow
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_every_network_is_exact(data):
    model = random_network(data.draw, data.draw(st.sampled_from((KERAS, TF_KERAS))))
    storage = data.draw(st.sampled_from(("int8", "int4", "int2")))
    quantized = quantize_model(
        model,
        num_bits_weight=data.draw(st.integers(1, 8)),
        num_bits_activation=data.draw(st.sampled_from((2, 4, 8))),
    )
    images = np.random.default_rng(0).normal(size=(16, *model.input_shape[1:])).astype(np.float32)
    if _has_norms(model):
        reestimate_batch_norm(quantized, images, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of too few values for a range
        calibrate(quantized, images, verbose=False)
    snapped, moves = snap(quantized, storage, verbose=False)
    assert moves.exact, str(moves)
    report = verify(snapped, convert(snapped, storage, snap_first=False), images[:4], verbose=False)
    assert report.exact, str(report)
    again, _ = snap(snapped, storage, verbose=False)
    for first, second in zip(snapped.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
