"""Where float32 is exact, the simulation gives Keras' levels: all of them, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from tests.simulation.comparison import compare
from tests.simulation.networks import gated, mixed, quantize_exactly, randomize, sequence, shared
from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.simulation import simulate

IMAGES = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3)).astype(np.float32)
STEPS = np.random.default_rng(5).integers(0, 256, (9, 16, 3)).astype(np.float32)
PAIR = [np.random.default_rng(i).integers(-64, 64, (3, 6, 5, 4)) / np.float32(8) for i in (3, 4)]


def quantized_net(build, flavor, images, **bits):
    model = build(flavor)
    randomize(model)
    return quantize_exactly(model, images, **bits)


@pytest.mark.parametrize("bits", [(1, 2), (2, 8), (4, 4), (8, 8)])
@pytest.mark.parametrize(
    ("build", "inputs", "ties"), [(mixed, IMAGES, 100), (sequence, STEPS, 20), (gated, IMAGES, 30)]
)
def test_every_kind_of_layer_gives_keras_levels(flavor, build, inputs, ties, bits):
    quantized = quantized_net(
        build, flavor, inputs, num_bits_weight=bits[0], num_bits_activation=bits[1]
    )
    simulation = simulate(quantized, inputs)
    result = compare(quantized, inputs, simulation)
    assert set(result.names) == set(simulation.levels)
    assert result.num_different == 0
    assert result.num_ties > ties


def test_outputs_stand_in_the_models_order(flavor):
    quantized = quantized_net(mixed, flavor, IMAGES)
    simulation = simulate(quantized, IMAGES)
    keras_outputs = quantized(IMAGES)
    assert simulation.output_names == ("quant_logits", "quant_map", "quant_hidden")
    for levels, name in zip(simulation.outputs, simulation.output_names, strict=True):
        np.testing.assert_array_equal(levels, simulation.levels[name])
    for index, name in enumerate(["class", "map", "vector"]):
        scale = simulation.scales[simulation.output_names[index]]
        if name == "class":
            # Keras' softmax is of float32 exponentials.
            probabilities = simulation.probabilities[index]
            np.testing.assert_allclose(probabilities, keras_outputs[name], rtol=1e-5, atol=1e-7)
            assert probabilities.dtype == np.float32
        else:
            assert simulation.probabilities[index] is None
            np.testing.assert_array_equal(scale * simulation.outputs[index], keras_outputs[name])


def test_levels_lie_on_their_grids(flavor):
    simulation = simulate(quantized_net(mixed, flavor, IMAGES), IMAGES)
    for name, levels in simulation.levels.items():
        assert levels.dtype == np.int32
        assert simulation.grids[name].low <= levels.min(), name
        assert levels.max() <= simulation.grids[name].high, name


def test_a_layer_called_again_has_a_number(flavor):
    quantized = quantized_net(shared, flavor, PAIR)
    simulation = simulate(quantized, PAIR)
    result = compare(quantized, PAIR, simulation)
    assert result.num_different == 0
    assert set(result.names) == set(simulation.levels)
    assert {"quant_conv", "quant_conv:1", "quant_conv:2"} < simulation.levels.keys()
    assert [layer.name for layer in simulation.layers].count("quant_conv:2") == 1
    by_name = simulate(quantized, {"right": PAIR[1], "left": PAIR[0]})
    np.testing.assert_array_equal(by_name.outputs[0], simulation.outputs[0])


def test_examples_and_arrays_do_not_change_levels(flavor):
    """One at a time or all together, on any array: the same integers and the same costs."""
    quantized = quantized_net(mixed, flavor, IMAGES)
    together = simulate(quantized, IMAGES)
    alone = simulate(quantized, IMAGES[1:2])
    elsewhere = simulate(quantized, IMAGES, SystolicArray(rows=3, cols=16, dataflow="ws"))
    for name, levels in together.levels.items():
        np.testing.assert_array_equal(alone.levels[name], levels[1:2])
        np.testing.assert_array_equal(elsewhere.levels[name], levels)
    assert alone.cycles == together.cycles != elsewhere.cycles


def test_batch_norm_without_a_kernel_and_a_sigmoid(flavor):
    """Batch norm on the rounded input alone, then a sigmoid at the end."""
    L = flavor.layers
    inputs = flavor.keras.Input((4, 4, 3))
    x = L.BatchNormalization(epsilon=2.0**-10)(inputs)
    x = L.Dense(1)(L.Flatten()(x))
    model = flavor.keras.Model(inputs, L.Activation("sigmoid")(x))
    randomize(model)
    images = IMAGES[:, :4, :4] / 16
    quantized = quantize_exactly(model, images)
    simulation = simulate(quantized, images)
    assert compare(quantized, images, simulation).num_different == 0
    np.testing.assert_allclose(simulation.probabilities[0], quantized(images), rtol=1e-6)
