"""Small quantized models of either Keras, with the statistics of trained ones."""

from __future__ import annotations

import numpy as np

from tflite_export.graph_reader import fold_model
from tflite_export.integer_model import Operation
from wrpn_tf import calibrate, quantize_model


def chain(flavor, *layers, shape=(8, 8, 3), dtype="float32"):
    """A model of layers one after the other."""
    x = inputs = flavor.keras.Input(shape, dtype=dtype, name="image")
    for layer in layers:
        x = layer(x)
    return flavor.keras.Model(inputs, x, name="net")


def randomize(model, seed=0):
    """Gives batch norms and biases values as if trained; a third of the gammas are negative."""
    generator = np.random.default_rng(seed)
    draws = {
        "gamma": lambda shape: generator.uniform(0.5, 1.5, shape) * generator.choice([1, 1, -1]),
        "beta": lambda shape: generator.normal(0, 0.3, shape),
        "moving_mean": lambda shape: generator.normal(0, 0.3, shape),
        "moving_variance": lambda shape: generator.uniform(0.5, 2, shape),
        "bias": lambda shape: generator.normal(0, 0.2, shape),
    }
    for layer in model.layers:
        for name, draw in draws.items():
            variable = getattr(layer, name, None)
            if hasattr(variable, "assign"):
                variable.assign(draw(variable.shape))


def make_images(model, count=16, seed=1):
    """One array of values in [0, 1) for each input of a model."""
    generator = np.random.default_rng(seed)
    arrays = [generator.random((count, *x.shape[1:]), np.float32) for x in model.inputs]
    return arrays[0] if len(arrays) == 1 else arrays


def quantized(model, calibrated=True, **arguments):
    """A randomized model, quantized; its observed ranges have seen data."""
    randomize(model)
    result = quantize_model(model, **arguments)
    if calibrated:
        calibrate(result, make_images(model), verbose=False)
    return result


def values(model):
    """The values of a model's weights."""
    return [np.array(variable) for variable in model.get_weights()]


def assert_same_bits(first, second):
    """Checks that arrays are equal to the last bit."""
    assert [value.tobytes() for value in first] == [value.tobytes() for value in second]


def residual_net(flavor, relu_limit=None, **head):
    """A stem, a residual block with two branches, a mean and a head."""
    L = flavor.layers
    x = inputs = flavor.keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    x = short = L.ReLU(relu_limit, name="relu0")(L.BatchNormalization(name="norm0")(x))
    x = L.Conv2D(4, 3, padding="same", name="conv1")(x)
    x = L.ReLU(relu_limit, name="relu1")(L.BatchNormalization(name="norm1")(x))
    x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="conv2")(x)
    x = L.BatchNormalization(name="norm2")(x)
    x = L.ReLU(relu_limit, name="relu2")(L.Add(name="add")([short, x]))
    x = L.GlobalAveragePooling2D(name="mean")(x)
    return flavor.keras.Model(inputs, L.Dense(3, name="head", **head)(x), name="net")


def read(model, **arguments):
    """The folded net; with ends of six bits no signed output has a shift."""
    return fold_model(quantized(model, **{"first_layer": 6, "last_layer": 6, **arguments}))


def outline(operations: tuple[Operation, ...]) -> list[str]:
    """Operations as `Class output <- input, input`."""
    return [
        f"{type(op).__name__} {op.output} <- {', '.join(op.inputs)}".replace("quant_", "")
        for op in operations
    ]
