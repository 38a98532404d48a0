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
import tensorflow as tf
import tf_keras

from wrpn_tf import keras_flavor

# What the imports left is never garbage: not looking for it saves a tenth of the time of the tests.
gc.freeze()


@pytest.fixture(params=["keras", "tf_keras"])
def flavor(request) -> keras_flavor.KerasFlavor:
    """Both Keras, one after the other."""
    return keras_flavor.get_flavor(request.param)


@pytest.fixture(params=["IntegerLookup", "StringLookup", "TextVectorization"])
def word_model(request, flavor):
    """A model that begins with a layer which learned words, and three of these."""
    L, is_integer = flavor.layers, request.param == "IntegerLookup"
    words = np.array([4, 5, 6] if is_integer else ["a", "b", "c"])
    lookup = getattr(L, request.param)()
    lookup.adapt(words)
    inputs = flavor.keras.Input((1,), dtype="int64" if is_integer else "string")
    x = L.GlobalAveragePooling1D()(L.Embedding(5, 8)(lookup(inputs)))
    return flavor.keras.Model(inputs, L.Dense(2)(L.Dense(8)(x))), tf.constant(words[:, None])


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seeds every random generator, in both Keras; returns the seed."""
    value = 20260
    random.seed(value)
    np.random.seed(value)
    keras.utils.set_random_seed(value)
    tf_keras.utils.set_random_seed(value)
    return value
