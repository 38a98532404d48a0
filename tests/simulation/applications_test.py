"""The networks that the package is for, with random weights: Keras' levels but at ties.

Keras sums in float32, and so may round what lies within its error of a tie to the other side.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.simulation.comparison import compare
from wrpn_tf import applications, calibrate, quantize_model
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization.quantize_registry import weight_name
from wrpn_tf.simulation import simulate

# A float32 sum of thousands of products, of hundreds of levels, errs by some 2^-24 of each.
_FROM_TIE = 1e-3
_SHARE = 3e-4


def randomize_statistics(model) -> None:
    """Batch norms as if trained, negative gammas among them."""
    rng = np.random.default_rng(4)
    draw = {
        "gamma": lambda shape: rng.uniform(-0.5, 1.5, shape),
        "beta": lambda shape: rng.normal(0, 0.5, shape),
        "moving_mean": lambda shape: rng.normal(0, 0.1, shape),
        "moving_variance": lambda shape: rng.uniform(0.5, 2, shape),
    }
    for layer in model_graph(model).layers().values():
        if "BatchNorm" in type(layer).__name__:
            layer.set_weights([draw[weight_name(w)](tuple(w.shape)) for w in layer.weights])


def check(model, num_images=2, **rules):
    """Quantizes and calibrates a model, compares it and returns its simulation."""
    randomize_statistics(model)
    images = np.random.default_rng(0).uniform(0, 1, (num_images, *model.input_shape[1:]))
    images = images.astype(np.float32)
    quantized = quantize_model(model, **rules)
    calibrate(quantized, images)
    simulation = simulate(quantized, images)
    result = compare(quantized, images, simulation)
    assert set(result.names) == set(simulation.levels)
    assert result.from_tie < _FROM_TIE, result
    assert result.num_different <= _SHARE * result.num_levels, result
    assert result.largest_difference <= 1, result
    return simulation


@pytest.mark.parametrize("bits", [(2, 2), (3, 4)])
def test_a_cifar_resnet(flavor, bits):
    model = applications.ResNet8(keras_flavor=flavor.name, input_shape=(16, 16, 3))
    simulation = check(model, num_bits_weight=bits[0], num_bits_activation=bits[1])
    assert len(simulation.layers) == 8 + 2  # and the projections of two shortcuts


@pytest.mark.parametrize(
    ("name", "options", "num_kernels"),
    [
        ("MobileNetV2", {"classes": 10, "alpha": 0.35}, 53),
        ("ResNet50", {"classes": 10}, 54),
        ("DenseNet121", {"classes": 10}, 121),
        ("VGG16", {"include_top": False, "pooling": "avg"}, 13),
    ],
)
def test_a_network_of_keras(name, options, num_kernels):
    network = getattr(keras.applications, name)
    model = network(weights=None, input_shape=(32, 32, 3), **options)
    assert len(check(model, num_images=1).layers) == num_kernels


@pytest.mark.parametrize(
    ("network", "size", "num_kernels"),
    [(applications.AlexNet, 44, 8), (applications.PreActResNet34, 32, 34 + 3)],
)
def test_a_network_of_the_papers(network, size, num_kernels):
    model = network(input_shape=(size, size, 3), classes=10)
    assert len(check(model, num_images=1).layers) == num_kernels
