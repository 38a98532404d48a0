"""What `lower` stores, against float64 references; and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.tflite_export.small_models import chain, quantized, residual_net
from tflite_export.batch_norm_folding import FoldedKernel
from tflite_export.graph_reader import fold_model
from tflite_export.lowering import channels_of, lower
from tflite_export.snap_model import snap
from tflite_export.storage import STORAGES, largest_weight, max_multiplier, multiplier
from wrpn_tf.keras_flavor import KERAS

L = KERAS.layers


@pytest.fixture(scope="module")
def model():
    return quantized(residual_net(KERAS), first_layer=5, last_layer=3)


def kernels(operations):
    return [op for op in operations if hasattr(op, "kernel")]


@pytest.mark.parametrize("storage", STORAGES)
def test_stored_values_are_the_folded_ones_to_the_files_precision(model, storage):
    folded, stored = fold_model(model), lower(model, storage)
    assert stored.tensors == folded.tensors
    assert (stored.inputs, stored.outputs) == (folded.inputs, folded.outputs)
    for before, after in zip(kernels(folded.operations), kernels(stored.operations), strict=True):
        kernel, source = after.kernel, folded.tensors[after.inputs[0]]
        np.testing.assert_array_equal(kernel.integers, before.kernel.integers)
        assert kernel.num_bits == before.kernel.num_bits
        assert (kernel.multiplier == kernel.multiplier[0]).all()
        # A float32 scale of one stored unit, and up to one unit more to break a tie of kernels.
        unit = before.kernel.scale / kernel.multiplier
        np.testing.assert_allclose(kernel.scale, unit, rtol=2.0**-22)
        shift = before.kernel.shift * float(folded.tensors[before.output].scale)
        bias = kernel.bias * unit * float(source.scale) - shift
        allowed = unit * float(source.scale) * kernel.multiplier
        assert (np.abs(bias - before.kernel.bias) <= allowed).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_weights_times_their_multiplier_fit_a_byte(model, storage):
    for operation in kernels(lower(model, storage).operations):
        kernel = operation.kernel
        wanted = max_multiplier(storage, type(operation), kernel.num_bits)
        larger = max_multiplier("int8", type(operation), kernel.num_bits)
        assert kernel.multiplier[0] in (wanted, larger)
        assert np.abs(kernel.integers.astype(int)).max() * kernel.multiplier.max() <= 127
        assert kernel.integers.dtype == np.int8
        assert kernel.scale.dtype == np.float32
        assert kernel.bias.dtype == kernel.multiplier.dtype == np.int32


def test_a_snapped_models_bias_and_scale_are_stored_without_a_rest(model):
    snapped, _ = snap(model)
    folded = fold_model(snapped)
    for before, after in zip(
        kernels(folded.operations), kernels(lower(snapped).operations), strict=True
    ):
        channels, rounding = channels_of(before, folded.tensors, "int8")
        unit = after.kernel.scale.astype(float) * float(rounding.input_scale)
        units_per_level = float(rounding.output_scale) / unit
        rest = channels.offset - after.kernel.bias / units_per_level
        # In levels: less than the multiplier leaves between two accumulators.
        assert (np.abs(rest) < after.kernel.multiplier / units_per_level).all()


def test_a_channel_of_gamma_zero_is_stored_as_its_bias():
    net = chain(KERAS, L.Conv2D(4, 3), L.BatchNormalization(name="norm"), L.ReLU())
    model = quantized(net, first_layer=4, last_layer=4)
    norm = model.get_layer("norm")
    norm.gamma.assign([0.0, 1.0, -1.0, 0.0])
    norm.beta.assign([0.5, 0.1, 0.1, -0.5])
    snapped, report = snap(model)
    assert report.exact
    np.testing.assert_array_equal(snapped.get_layer("norm").gamma.numpy()[[0, 3]], 0)
    (conv,) = kernels(lower(snapped).operations)
    assert not conv.kernel.integers[[0, 3]].any()
    assert conv.kernel.integers[[1, 2]].any()
    image = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    assert len(np.unique(np.array(snapped(image))[..., 0])) == 1


def test_clamps_follow_the_tensors():
    layers = (L.Conv2D(4, 3, activation="relu", name="a"), L.Conv2D(4, 3, name="b"), L.ReLU(6.0))
    for operation in lower(quantized(chain(KERAS, *layers))).operations:
        assert operation.relu


def test_accumulators_above_32_bits_are_refused_by_name():
    fan_in = 70_000
    head = L.Dense(1, kernel_initializer="ones", name="head")
    model = quantized(chain(KERAS, head, shape=(fan_in,)), weight_scale="max")
    assert fan_in * 127 * 255 > np.iinfo(np.int32).max
    with pytest.raises(OverflowError, match="'quant_head.*': accumulators must fit 32 bits, got"):
        lower(model)


def test_an_unknown_storage_is_refused(model):
    with pytest.raises(ValueError, match="`storage` must be one of int8, int4, int2, tflm"):
        lower(model, "int16")


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_shift_is_of_levels_whatever_the_outputs_scale(factor):
    folded = fold_model(quantized(chain(KERAS, L.Dense(3), shape=(4,))))
    (operation,) = kernels(folded.operations)
    shift, output = operation.kernel.shift, folded.tensors[operation.output]
    scale = np.float32(factor * output.scale)
    tensors = {**folded.tensors, output.name: dataclasses.replace(output, scale=scale)}
    channels, rounding = channels_of(operation, tensors, "int8")
    assert rounding.zero == shift > 0
    wanted = operation.kernel.bias / float(scale) + shift
    np.testing.assert_allclose(channels.offset, wanted)


def test_channels_are_in_levels_of_the_output(model):
    folded = fold_model(model)
    operation = kernels(folded.operations)[1]
    assert isinstance(operation.kernel, FoldedKernel)
    channels, rounding = channels_of(operation, folded.tensors, "int8")
    source, output = folded.tensors["quant_relu0"], folded.tensors["quant_relu1"]
    np.testing.assert_allclose(
        channels.scale * float(output.scale),
        operation.kernel.scale * float(source.scale),
        rtol=1e-14,
    )
    np.testing.assert_allclose(channels.offset * float(output.scale), operation.kernel.bias)
    sums = operation.kernel.integers.astype(int).reshape(4, -1)
    np.testing.assert_array_equal(channels.largest, np.maximum(sums, 0).sum(1) * source.high)
    np.testing.assert_array_equal(channels.smallest, np.minimum(sums, 0).sum(1) * source.high)
    assert (rounding.low, rounding.high) == (0, output.high)
    assert (rounding.multiplier == 127).all()  # of ternary weights


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_native_int4_gives_way_where_it_is_coarse(bits):
    operation = type(kernels(lower_of_one().operations)[0])
    largest = max_multiplier("int4", operation, bits)
    eight_bits = 127 // largest_weight(bits)
    assert multiplier("int4", operation, bits, room=1e9, signed=False) == largest
    coarse = multiplier("int4", operation, bits, room=0.1, signed=False)
    assert coarse == eight_bits
    assert multiplier("int8", operation, bits, room=0.1, signed=True) == eight_bits


def lower_of_one():
    return lower(quantized(chain(KERAS, L.Conv2D(2, 1, activation="relu"))))
