"""What kernels cost on the array, from shapes alone, is what a simulation on data counts."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import wrpn_tf
from wrpn_tf import keras_flavor
from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.analysis import ModelProfile, array_costs, roofline_point, with_bits


def small_model(flavor):
    """Every kind of kernel that the array runs."""
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, strides=2, padding="same", groups=2, activation="relu", name="stem")(
        inputs
    )
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu")(x)
    shared = layers.Conv2D(16, 1, activation="relu", name="shared")
    x = layers.SeparableConv2D(6, 2, activation="relu", name="apart")(shared(shared(x)))
    x = layers.Conv2DTranspose(4, 3, strides=2, activation="relu", name="larger")(x)
    x = layers.Dense(5, name="last")(layers.Flatten()(x))
    return flavor.keras.Model(inputs, x)


def sequence_model(flavor):
    """The kernels that the array runs on sequences."""
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((12, 4))
    x = layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu")(inputs)
    x = layers.Conv1D(8, 3, strides=2, padding="same", groups=2, activation="relu")(x)
    x = layers.SeparableConv1D(6, 2, activation="relu")(layers.DepthwiseConv1D(3)(x))
    x = layers.Conv1DTranspose(4, 3, strides=2, activation="relu")(x)
    return flavor.keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))


@functools.cache
def float_model(flavor):
    return small_model(flavor)


@pytest.mark.parametrize("build", [small_model, sequence_model])
def test_the_array_costs_what_a_simulation_counts(flavor, build):
    model = wrpn_tf.quantize_model(build(flavor), num_bits_weight=3, num_bits_activation=4)
    shape = (2, *model.input_shape[1:])
    examples = np.random.default_rng(0).uniform(0, 1, shape).astype("float32")
    wrpn_tf.calibrate(model, examples, verbose=0)
    profile = ModelProfile(model)
    for array in (SystolicArray(), SystolicArray(rows=4, cols=16, dataflow="ws")):
        simulated = wrpn_tf.simulate(model, examples, array=array).layers
        costs = array_costs(profile, array)
        assert [cost.num_bits_weight for cost in costs] == [x.num_bits_weight for x in simulated]
        for cost, layer in zip(costs, simulated, strict=True):
            trace, expected = cost.trace, layer.trace
            assert trace.gemms == expected.gemms, cost.path
            assert (trace.cycles, trace.macs) == (expected.cycles, expected.macs), cost.path
            assert trace.dram == expected.dram, cost.path
            assert trace.utilisation == expected.utilisation


def test_separable_kernels_and_float_factors_on_the_array(flavor):
    profile = ModelProfile(float_model(flavor))
    assert {cost.reason for cost in array_costs(profile)} == {
        "more than 8 bits: weights and activations"
    }
    costs = array_costs(with_bits(profile, num_bits_weight=2, num_bits_activation=8))
    depthwise, pointwise = (x.trace.gemms[0] for x in costs if x.path == "apart")
    assert (depthwise.M, depthwise.K, depthwise.N, depthwise.passes) == (3 * 3, 2 * 2, 1, 16)
    assert (pointwise.M, pointwise.K, pointwise.N, pointwise.passes) == (3 * 3, 16, 6, 1)


def test_the_order_of_the_axes_costs_nothing(flavor):
    def traces(data_format):
        # As wide as the first convolution has filters, so that the shapes alone tell no channels.
        shape = (4, 9, 8) if data_format == "channels_first" else (9, 8, 4)
        inputs = flavor.keras.Input(shape)
        options = {"padding": "same", "groups": 2, "data_format": data_format}
        x = flavor.layers.Conv2D(8, 3, **options)(inputs)
        model = flavor.keras.Model(inputs, flavor.layers.Conv2D(6, 3, **options)(x))
        profile = with_bits(ModelProfile(model), num_bits_weight=2, num_bits_activation=8)
        return [cost.trace for cost in array_costs(profile)]

    first, second = traces("channels_first")
    assert (first.gemms[0].K, first.gemms[0].N, first.gemms[0].passes) == (3 * 3 * 2, 8 // 2, 2)
    assert [first, second] == traces("channels_last")


def test_the_roofline_is_a_bound_and_both_sides_are_reached():
    array = SystolicArray()
    trace = array.trace(64, 256, 64)
    num_bytes = 64 * 256 + 256 * 64 * 2 // 8 + 64 * 64 * 4
    fast = roofline_point(trace, array=array, dram_bytes_per_cycle=8)
    assert fast.intensity == 64 * 256 * 64 / num_bytes
    assert (fast.is_dram_bound, fast.rate) == (False, trace.macs / trace.cycles)
    slow = roofline_point(trace, array=array, dram_bytes_per_cycle=0.5)
    assert slow.dram_cycles == num_bytes / 0.5
    # Both are the same quotient but for the order of the divisions.
    assert slow.is_dram_bound
    assert slow.rate == pytest.approx(slow.intensity * 0.5, rel=1e-15)


@pytest.mark.parametrize("options", [{"array": 8}, {"profile": "resnet"}])
def test_arguments_of_another_type_are_refused(options):
    arguments = {"profile": None, **options}
    if "array" in options:
        arguments["profile"] = ModelProfile(small_model(keras_flavor.KERAS))
    with pytest.raises(TypeError, match=f"`{next(iter(options))}` must be"):
        array_costs(**arguments)


@pytest.mark.parametrize("bandwidth", [0, -1.0, float("inf"), float("nan")])
def test_a_bandwidth_is_finite_and_above_0(bandwidth):
    array = SystolicArray()
    with pytest.raises(ValueError, match="`dram_bytes_per_cycle` must be finite and > 0"):
        roofline_point(array.trace(1, 1, 1), array=array, dram_bytes_per_cycle=bandwidth)
