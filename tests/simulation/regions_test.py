"""A simulation with regions gives Keras' levels, fine and coarse, and each image's costs."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import wrpn_tf
from tests.simulation.networks import quantize_exactly, randomize
from wrpn_tf import RegionPrecision, accelerator, apply_regions
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import has_regions, output_quantizer, region_maps
from wrpn_tf.simulation import simulate


def images(count: int = 3):
    """Smooth, with one busy part each: importance differs inside each image and between them."""
    rng = np.random.default_rng(2)
    result = np.full((count, 16, 16, 3), 128.0, np.float32)
    for index in range(count):
        rows, cols = slice(3 * index, 3 * index + 9), slice(7 - 3 * index, 13 - 3 * index)
        noise = rng.integers(0, 256, result[index, rows, cols].shape)
        result[index, rows, cols] = noise
    return result


def net(flavor):
    """Sums of branches, max pooling of what is read by region, and a signed linear bottleneck."""
    layers = flavor.layers

    def norm(x):
        return layers.BatchNormalization(epsilon=2.0**-10)(x)

    image = flavor.keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-1, name="rescaling")(image)
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(x)
    x = layers.ReLU(name="stem_relu")(norm(x))
    y = layers.Conv2D(8, 3, padding="same", name="wide")(layers.MaxPooling2D(2, name="pool")(x))
    y = layers.ReLU(6.0, name="wide_relu")(norm(y))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(y)
    y = norm(layers.Conv2D(4, 1, name="bottleneck")(y))
    z = layers.Conv2D(4, 3, padding="same", groups=2, activation="relu", name="grouped")(y)
    z = layers.Add(name="sum")([y, norm(layers.Conv2D(4, 1, name="branch")(z))])
    z = layers.Conv2D(6, 3, strides=2, padding="same", name="down")(z)
    z = layers.GlobalAveragePooling2D(name="mean")(layers.ReLU(name="down_relu")(z))
    return flavor.keras.Model(image, layers.Dense(3, name="logits")(z), name="net")


@functools.cache
def quantized_net(flavor, num_bits_activation: int = 8):
    model = net(flavor)
    randomize(model)
    return quantize_exactly(model, images(), num_bits_activation=num_bits_activation)


def keras_levels(model, inputs):
    """Keras' levels of all rounded tensors in a forward pass, and those that are read instead."""
    graph = model_graph(model)
    tensors = {graph.inputs[0]: inputs}
    fine, read = {}, {}
    for call in graph.calls:
        results = graph.flatten(call.invoke(call.layer, tensors))
        tensors.update(zip(call.outputs, results, strict=True))
        if output_quantizer(call.layer) is None:
            continue
        quantizer, variables = output_quantizer(call.layer)
        name = call.layer.layer.name if has_regions(call.layer) else call.layer.name
        fine[name], *coarse = (quantizer.to_int(np.asarray(x), variables) for x in results)
        if coarse:
            (read[name],) = coarse
    np.testing.assert_array_equal(tensors[graph.outputs[0]], model(inputs))
    return fine, read


def assert_levels_are_equal(simulation, fine, read):
    for levels, expected in ((simulation.levels, fine), (simulation.read_levels, read)):
        assert levels.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(levels[name], expected[name], name)


SETTINGS = {
    "half": RegionPrecision("gradient", (8, 4)),
    "three": RegionPrecision("entropy", (8, 4, 0), kept=(0.2, 0.6), input_bits=(8, 2, 0)),
    "few": RegionPrecision("gradient", (8, 2, 1), threshold=(0.3, 0.02), final_bits=(2, 1, 1)),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_levels_are_those_of_keras(flavor, setting):
    model = apply_regions(quantized_net(flavor), SETTINGS[setting])
    simulation = simulate(model, images())
    fine, read = keras_levels(model, images())
    assert_levels_are_equal(simulation, fine, read)
    assert {"quant_stem_relu", "quant_sum"} < read.keys()
    assert ("quant_rescaling" in read) == (setting == "three")
    assert any(simulation.grids[name].low < 0 for name in read)  # the bottleneck's
    for name, levels in read.items():
        assert (levels != fine[name]).any(), name
    np.testing.assert_array_equal(simulation.outputs[0], fine["quant_logits"])


def test_important_everywhere_is_the_network_without_regions(flavor):
    quantized = quantized_net(flavor)
    model = apply_regions(quantized, RegionPrecision("entropy", (8, 4), kept=1.0))
    plain, uniform = simulate(quantized, images()), simulate(model, images())
    assert plain.levels.keys() == uniform.levels.keys()
    for name, levels in plain.levels.items():
        np.testing.assert_array_equal(uniform.levels[name], levels)
    for name, levels in uniform.read_levels.items():
        np.testing.assert_array_equal(plain.levels[name], levels)
    assert plain.layers == uniform.layers
    assert (plain.image_costs, plain.read_levels) == (None, {})
    for cost in uniform.image_costs.total.values():
        assert cost.energy.tolist() == cost.relative_cycles.tolist() == [1, 1, 1]


def test_a_network_of_fewer_bits_than_its_regions():
    model = apply_regions(quantized_net(KERAS, 4), SETTINGS["three"])
    simulation = simulate(model, images())
    assert_levels_are_equal(simulation, *keras_levels(model, images()))
    ranks = {layer.bits_by_rank for layer in simulation.image_costs.layers}
    assert ranks == {(0, 4, 4), (0, 2, 8), None}


def test_costs_are_those_of_the_maps(flavor):
    model = apply_regions(quantized_net(flavor), SETTINGS["three"])
    simulation = simulate(model, images())
    costs = simulation.image_costs
    # The model adds up some hundred float32 numbers of at most 8.
    mean_bits = np.asarray(region_maps(model)(images(), training=False)["mean_bits"])
    np.testing.assert_allclose(costs.bits, mean_bits, rtol=0, atol=1e-5)
    assert len(set(costs.bits.tolist())) == 3
    # At full bits, and bit-parallel, they are the simulation's own.
    assert costs.total["fixed"].full_cycles == simulation.cycles
    assert [layer.macs for layer in costs.layers] == [
        layer.trace.macs // max(layer.num_bits_weight - 1, 1) for layer in simulation.layers
    ]
    alone = simulate(model, images()[1:2]).image_costs
    assert alone.energy("bit_serial_group")[0] == costs.energy("bit_serial_group")[1]
    energy = wrpn_tf.analysis.region_energy(model, images(), batch_size=2, verbose=False)
    for name, cost in energy.total.items():
        np.testing.assert_array_equal(cost.bit_operations, costs.total[name].bit_operations)
        np.testing.assert_array_equal(cost.cycles, costs.total[name].cycles)


def test_the_table_has_the_costs_by_region():
    simulation = simulate(apply_regions(quantized_net(KERAS), SETTINGS["half"]), images())
    lines = simulation.to_table().splitlines()
    assert max(map(len, lines)) <= 100
    assert "The same with activations of fewer bits by region:" in lines
    assert "\n".join(lines).endswith(simulation.image_costs.to_table())


def test_a_weight_stationary_array_is_refused():
    model = apply_regions(quantized_net(KERAS), SETTINGS["half"])
    with pytest.raises(ValueError, match=r"`array` must be output stationary, 'os', for a model"):
        simulate(model, images(), accelerator.SystolicArray(dataflow="ws"))
