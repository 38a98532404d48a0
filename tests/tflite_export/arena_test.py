"""The measured arena, beside what the tensors alive at once take by the profile."""

from __future__ import annotations

import pytest

import tflite_export
from tests.tflite_export import integer_networks, small_models
from tflite_export.arena import Arena, measure_arena
from tflite_export.flatbuffer import write
from wrpn_tf import keras_flavor
from wrpn_tf.analysis import ModelProfile, memory_footprint, peak_activation_bytes


@pytest.fixture(scope="module")
def blob() -> bytes:
    return write(integer_networks.varied(), storage="int8")


def test_the_arena_is_what_lives_at_once_in_a_residual_network():
    model = small_models.quantized(
        small_models.residual_net(keras_flavor.KERAS), num_bits_weight=8, num_bits_activation=8
    )
    snapped, _ = tflite_export.snap(model)
    profile = ModelProfile(snapped)
    peak = peak_activation_bytes(profile)
    # Input, shortcut, and what the depthwise convolution reads and makes.
    assert peak == 8 * 8 * 3 + 3 * 8 * 8 * 4
    assert measure_arena(tflite_export.convert(snapped)) == Arena(peak, scratch_bytes=0)
    # A layer's input and output are not all there is: the shortcut is alive too.
    assert memory_footprint(profile).activation_bytes < peak


def test_both_libraries_place_tensors_alike_and_fast_kernels_take_scratch_memory(blob):
    reference = measure_arena(blob)
    assert measure_arena(blob, library="LiteRT") == reference
    fast = measure_arena(blob, kernels="opt")
    assert fast.scratch_bytes > 0
    assert fast.num_bytes > reference.num_bytes


def test_bad_input_is_refused(blob):
    with pytest.raises(ValueError, match="`kernels` must be"):
        measure_arena(blob, kernels="xnn")
    with pytest.raises(ValueError, match="`library` must be one that is installed"):
        measure_arena(blob, library="TFLM")
    with pytest.raises(ValueError, match="`blob` must be a TFLite file"):
        measure_arena(b"no file")
