"""Layers as matrix products, against TensorFlow's kernels in float64, where all sums are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf.accelerator import (
    SystolicArray,
    bit_planes,
    conv2d,
    conv2d_transpose,
    dense,
    depthwise_conv2d,
    num_planes,
)

ARRAY = SystolicArray()
PADDINGS = ("same", "valid")


def random_levels(generator, shape, low):
    return generator.integers(low, low + 256, shape)


def random_weights(generator, shape, num_bits):
    largest = 2 ** num_planes(num_bits) - 1
    n = generator.integers(-largest, largest + 1, shape)
    return np.where(n < 0, -1, 1) if num_bits == 1 else n


def tensorflow_conv2d(q, n, strides, padding, dilation, groups):
    parts = [
        tf.nn.conv2d(
            tf.constant(part, tf.float64), kernel, strides, padding.upper(), dilations=dilation
        )
        for part, kernel in zip(
            np.split(q, groups, axis=-1),
            np.split(np.asarray(n, np.float64), groups, axis=-1),
            strict=True,
        )
    ]
    return tf.concat(parts, axis=-1).numpy()


@pytest.mark.parametrize(
    ("strides", "dilation", "padding"),
    [
        (strides, dilation, padding)
        for strides, dilation, padding in itertools.product(
            [(1, 1), (2, 2), (3, 2)], [(1, 1), (2, 3)], PADDINGS
        )
        if strides == (1, 1) or dilation == (1, 1)
    ],
)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4)])
def test_conv2d(kernel, strides, dilation, padding):
    generator = np.random.default_rng(1)
    q = random_levels(generator, (2, 11, 12, 3), low=-128)
    n = random_weights(generator, (*kernel, 3, 5), num_bits=8)
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    out, _ = conv2d(q, n, num_bits=8, array=ARRAY, low=-128, **options)
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, tensorflow_conv2d(q, n, groups=1, **options))


@pytest.mark.parametrize("num_bits", range(1, 9))
@pytest.mark.parametrize("low", [0, -1, -128, -255])
def test_every_width_and_zero_point(num_bits, low):
    generator = np.random.default_rng(num_bits)
    q = random_levels(generator, (1, 4, 5, 2), low)
    n = random_weights(generator, (3, 3, 2, 4), num_bits)
    out, _ = conv2d(q, n, num_bits=num_bits, array=ARRAY, low=low, padding="same")
    expected = tensorflow_conv2d(q, n, (1, 1), "same", (1, 1), groups=1)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("extreme", [-128, 127])
def test_extremes(extreme):
    q = np.full((1, 6, 6, 64), extreme)
    n = np.full((3, 3, 64, 2), 127)
    out, trace = conv2d(q, n, num_bits=8, array=ARRAY, low=-128, padding="valid")
    assert (out == extreme * 127 * 9 * 64).all()
    assert {trace.smallest, trace.largest} == {0, extreme * 127 * 9 * 64}


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 3)])
def test_a_causal_convolution_of_one_row_is_keras_conv1d(stride, dilation):
    generator = np.random.default_rng(stride + dilation)
    q, n = random_levels(generator, (2, 11, 3), -4), random_weights(generator, (4, 3, 5), 3)
    out, trace = conv2d(
        q[:, np.newaxis],
        n[np.newaxis],
        num_bits=3,
        array=ARRAY,
        low=-4,
        strides=(1, stride),
        dilation=(1, dilation),
        padding="causal",
    )
    layer = tf.keras.layers.Conv1D(
        5, 4, stride, "causal", dilation_rate=dilation, use_bias=False, dtype="float64"
    )
    layer.build((None, None, 3))
    layer.set_weights([n])
    np.testing.assert_array_equal(out[:, 0], layer(q.astype(float)))
    assert trace.dram.activation_reads == 11 * 3 * 8  # the zeros in front are not read


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_groups(groups):
    generator = np.random.default_rng(2)
    q = random_levels(generator, (2, 7, 6, 6), low=-3)
    n = random_weights(generator, (3, 2, 6 // groups, 12), num_bits=4)
    out, _ = conv2d(q, n, num_bits=4, array=ARRAY, low=-3, strides=2, padding="same", groups=groups)
    expected = tensorflow_conv2d(q, n, (2, 2), "same", (1, 1), groups)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", PADDINGS)
def test_depthwise_conv2d(multiplier, strides, padding):
    generator = np.random.default_rng(3)
    q = random_levels(generator, (2, 9, 8, 5), low=-7)
    n = random_weights(generator, (3, 3, 5, multiplier), num_bits=2)
    out, _ = depthwise_conv2d(
        q, n, num_bits=2, array=ARRAY, low=-7, strides=strides, padding=padding
    )
    expected = tf.nn.depthwise_conv2d(
        tf.constant(q, tf.float64), n.astype(float), [1, strides, strides, 1], padding.upper()
    )
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("shape", [(1, 6), (4, 6), (2, 3, 6), (2, 3, 2, 6)])
def test_dense(shape):
    generator = np.random.default_rng(4)
    q = random_levels(generator, shape, low=-100)
    n = random_weights(generator, (6, 10), num_bits=3)
    out, trace = dense(q, n, num_bits=3, array=ARRAY, low=-100)
    np.testing.assert_array_equal(out, q @ n)
    assert trace.macs == 2 * int(np.prod(shape[1:-1])) * 6 * 10


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 3), (4, 4)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_conv2d_transpose(kernel, strides, padding):
    generator = np.random.default_rng(5)
    q = random_levels(generator, (2, 4, 5, 3), low=-9)
    n = random_weights(generator, (*kernel, 6, 3), num_bits=8)
    out, _ = conv2d_transpose(
        q, n, num_bits=8, array=ARRAY, low=-9, strides=strides, padding=padding
    )
    layer = tf_keras.layers.Conv2DTranspose(
        6, kernel, strides, padding, use_bias=False, dtype="float64"
    )
    layer.build(q.shape)
    layer.set_weights([n])
    np.testing.assert_array_equal(out, layer(q.astype(float)))


@pytest.mark.parametrize("max_rows", [1, 7, 8, 24, 1000])
@pytest.mark.parametrize("groups", [1, 3])
def test_fewer_rows_at_a_time_give_the_same(max_rows, groups):
    generator = np.random.default_rng(6)
    q = random_levels(generator, (2, 6, 5, 3), low=-1)
    n = random_weights(generator, (3, 3, 3 // groups, 6), num_bits=5)
    options = {"num_bits": 5, "array": ARRAY, "low": -1, "padding": "same", "groups": groups}
    whole, trace = conv2d(q, n, **options)
    parts, same_trace = conv2d(q, n, max_rows=max_rows, **options)
    np.testing.assert_array_equal(parts, whole)
    assert same_trace == trace


def test_no_more_rows_than_asked_are_written_out(monkeypatch):
    seen = []
    module = __import__("wrpn_tf.accelerator.convolution", fromlist=["gemm"])
    original = module.gemm
    monkeypatch.setattr(module, "gemm", lambda u, *a, **k: seen.append(u) or original(u, *a, **k))
    q = np.ones((1, 10, 10, 2), int)
    conv2d(q, np.ones((3, 3, 2, 4), int), num_bits=2, array=ARRAY, padding="same", max_rows=8)
    assert [u.shape for u in seen] == [(1, 8, 18)] * 12 + [(1, 4, 18)]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.sampled_from(PADDINGS),
    groups=st.integers(1, 3),
    num_bits=st.integers(1, 8),
    low=st.integers(-255, 0),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_conv2d_plane_by_plane(size, kernel, stride, padding, groups, num_bits, low, seed):
    """The planes, each a ternary layer, shifted and added, are the layer."""
    generator = np.random.default_rng(seed)
    q = random_levels(generator, (1, *size, 2 * groups), low)
    n = random_weights(generator, (*kernel, 2, 2 * groups), num_bits)
    options = {"array": ARRAY, "low": low, "strides": stride, "padding": padding}
    out, trace = conv2d(q, n, num_bits=num_bits, groups=groups, **options)
    strides = (stride, stride)
    expected = tensorflow_conv2d(q, n, strides, padding, (1, 1), groups)
    np.testing.assert_array_equal(out, expected)
    planes = [
        conv2d(q, plane, num_bits=2, groups=groups, **options) for plane in bit_planes(n, num_bits)
    ]
    np.testing.assert_array_equal(sum(part << i for i, (part, _) in enumerate(planes)), out)
    assert trace.cycles == sum(part.cycles for _, part in planes)
    assert trace.macs == sum(part.macs for _, part in planes)
