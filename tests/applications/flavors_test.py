"""Both flavors build the same networks: names, shapes, and outputs under the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf import applications

_SMALL = {
    "ResNet8": {"input_shape": (16, 16, 3)},
    "ResNet101": {"input_shape": (8, 8, 1)},
    "PreActResNet34": {"input_shape": (32, 32, 3), "classes": 5},
    "AlexNet": {"input_shape": (44, 44, 3), "include_top": False, "pooling": "avg"},
}


def architecture(model):
    return {
        layer.name: (
            type(layer).__name__,
            tuple(layer.output.shape) if layer.name != "image" else None,
            tuple(tuple(weight.shape) for weight in layer.weights),
        )
        for layer in model.layers
    }


@pytest.mark.parametrize("name", sorted(_SMALL))
def test_same_architecture_and_same_outputs(name):
    build, options = getattr(applications, name), _SMALL[name]
    ours = build(keras_flavor="keras", **options)
    legacy = build(keras_flavor="tf_keras", **options)
    assert ours.name == legacy.name
    assert architecture(ours) == architecture(legacy)
    generator = np.random.default_rng(1)
    for layer in ours.layers:
        weights = layer.get_weights()
        if "BatchNormalization" in type(layer).__name__:
            # Statistics other than 0 and 1, or their order could not be seen.
            weights = [generator.uniform(0.5, 1.5, w.shape).astype("float32") for w in weights]
            layer.set_weights(weights)
        legacy.get_layer(layer.name).set_weights(weights)
    images = generator.random((2,) + tuple(options["input_shape"]), dtype="float32")
    # The same float32 operations; only the order of sums inside a kernel may differ.
    expected = np.array(legacy(images, training=False))
    largest = np.abs(expected).max()
    outputs = np.array(ours(images, training=False))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize(("writer", "reader"), [("keras", "tf_keras"), ("tf_keras", "keras")])
def test_a_weights_file_of_one_flavor_loads_in_the_other(writer, reader, tmp_path):
    path = str(tmp_path / "resnet8.weights.h5")
    written = applications.ResNet8(keras_flavor=writer)
    written.save_weights(path)
    read = applications.ResNet8(keras_flavor=reader, weights=path)
    for layer in written.layers:
        for expected, value in zip(
            layer.get_weights(), read.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(value, expected)
