"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import random

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
import tf_keras

from wrpn_tf import keras_flavor

# What the imports left is never garbage: not looking for it saves a tenth of the time of the tests.
gc.freeze()


@pytest.fixture(params=["keras", "tf_keras"])
def flavor(request) -> keras_flavor.KerasFlavor:
    """Both Keras, one after the other."""
    return keras_flavor.get_flavor(request.param)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seeds every random generator, in both Keras; returns the seed."""
    value = 20260
    random.seed(value)
    np.random.seed(value)
    keras.utils.set_random_seed(value)
    tf_keras.utils.set_random_seed(value)
    return value
