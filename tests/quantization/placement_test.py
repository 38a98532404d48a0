"""Where quantizers stand: the list of every quantizer in the result, net by net, in both Keras."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf import applications, quantize_model
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization.placement import rounded_tensors


def preactivation(keras, L):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", name="stem")(x)
    y = L.ReLU(name="relu1")(L.BatchNormalization(name="bn1")(x))
    y = L.Conv2D(4, 3, padding="same", name="conv1")(y)
    y = L.ReLU(name="relu2")(L.BatchNormalization(name="bn2")(y))
    y = L.Conv2D(4, 3, padding="same", name="conv2")(y)
    x = L.Add(name="add")([x, y])
    x = L.ReLU(name="relu3")(L.BatchNormalization(name="bn3")(x))
    x = L.Flatten(name="flat")(L.MaxPooling2D(name="max_pool")(x))
    return inputs, L.Dense(3, name="head")(x)


def inverted_residual(keras, L):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    x = L.ReLU(6.0, name="stem_relu")(L.BatchNormalization(name="stem_bn")(x))
    y = L.Conv2D(8, 1, use_bias=False, name="expand")(x)
    y = L.ReLU(6.0, name="expand_relu")(L.BatchNormalization(name="expand_bn")(y))
    y = L.ZeroPadding2D(1, name="pad")(y)
    y = L.DepthwiseConv2D(3, use_bias=False, name="depthwise")(y)
    y = L.ReLU(6.0, name="depthwise_relu")(L.BatchNormalization(name="depthwise_bn")(y))
    y = L.Conv2D(4, 1, use_bias=False, name="project")(y)
    y = L.BatchNormalization(name="project_bn")(y)
    x = L.Add(name="add")([x, y])
    x = L.Conv2D(6, 1, name="last_conv")(x)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    return inputs, L.Dense(3, activation="softmax", name="head")(x)


def dense_block(keras, L):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", name="stem")(x)
    y = L.ReLU(name="relu1")(L.BatchNormalization(name="bn1")(x))
    y = L.Conv2D(2, 3, padding="same", name="conv1")(y)
    x = L.Concatenate(name="concat1")([x, y])
    y = L.ReLU(name="relu2")(L.BatchNormalization(name="bn2")(x))
    y = L.Conv2D(2, 3, padding="same", name="conv2")(y)
    x = L.Concatenate(name="concat2")([x, y])
    x = L.AveragePooling2D(2, name="pool")(
        L.ReLU(name="relu3")(L.BatchNormalization(name="bn3")(x))
    )
    x = L.Conv2D(3, 1, name="conv3")(x)
    return inputs, L.GlobalMaxPooling2D(name="global_max")(x)


def squeeze_excite(keras, L):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.BatchNormalization(name="bn")(L.Conv2D(4, 3, name="stem")(x))
    x = L.Activation("swish", name="swish")(x)
    s = L.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    s = L.Conv2D(2, 1, activation="relu", name="reduce")(s)
    s = L.Conv2D(4, 1, activation="sigmoid", name="expand")(s)
    x = L.Multiply(name="excite")([x, s])
    return inputs, L.Dense(3, name="head")(L.Flatten()(x))


def without_batch_norm(keras, L):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, activation="relu", name="conv1")(x)
    x = L.MaxPooling2D(name="max_pool")(x)
    x = L.ReLU(name="relu")(L.Conv2D(4, 3, name="conv2")(x))
    x = L.Dense(5, activation="relu", name="dense1")(L.Dropout(0.1)(L.Flatten()(x)))
    x = L.Dense(5, activation="tanh", name="dense2")(x)
    return inputs, L.Dense(3, activation="softmax", name="head")(x)


def separable(keras, L):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.SeparableConv2D(4, 3, use_bias=False, name="first")(x)
    x = L.Activation("relu", name="relu")(L.BatchNormalization(name="bn")(x))
    x = L.SeparableConv2D(5, 3, activation="relu", name="middle")(x)
    x = L.SeparableConv2D(3, 3, activation="softmax", name="last")(x)
    return inputs, x


def two_inputs_and_outputs(keras, L):
    a = keras.Input((4,), name="a")
    b = keras.Input((6,), name="b")
    x = L.Concatenate(name="concat")([a, L.Dense(4, activation="relu", name="on_b")(b)])
    x = L.Dense(5, activation="relu", name="middle")(x)
    return [a, b], [L.Dense(2, name="out1")(x), L.Dense(1, activation="sigmoid", name="out2")(x)]


def shared_layer(keras, L):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    tower = L.Dense(4, activation="relu", name="tower")
    x = L.Subtract(name="difference")([tower(a), tower(b)])
    return [a, b], L.Dense(2, name="head")(x)


def nested(keras, L):
    x = block_inputs = keras.Input((8, 8, 4), name="block_input")
    x = L.Conv2D(4, 3, padding="same", name="conv")(x)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="bn")(x))
    block = keras.Model(block_inputs, x, name="block")
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", name="stem")(x)
    x = block(x)
    return inputs, L.Dense(3, name="head")(L.GlobalAveragePooling2D(name="pool")(x))


def rescaled(keras, L):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(x)
    x = L.ZeroPadding2D(1, name="pad")(x)
    x = L.Conv2D(4, 3, name="conv")(x)
    return inputs, L.Dense(3, name="head")(L.Flatten()(x))


def augmented(keras, L):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.RandomFlip(name="flip")(x)
    x = L.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(x)
    x = L.RandomRotation(0.1, name="rotate")(x)
    x = L.Conv2D(4, 3, name="conv")(x)
    return inputs, L.Dense(3, name="head")(L.Flatten()(x))


def resized(keras, L):
    """An image of another size, and masks of the size of the image that the network sees."""
    x = inputs = keras.Input((12, 10, 3), name="image")
    x = L.CenterCrop(8, 8, name="crop")(L.Resizing(9, 9, name="resize")(x))
    x = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    x = L.Conv2D(2, 1, name="head")(x)
    return inputs, L.Resizing(8, 8, name="masks")(x)


def resized_inside(keras, L):
    """As a decoder has it: a smaller tensor resized, joined with another, clipped, or rescaled."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="large")(x)
    y = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="small")(x)
    joined = L.Concatenate(name="join")([x, L.Resizing(8, 8, name="up")(y)])
    clipped = L.ReLU(name="clip")(L.Resizing(8, 8, name="again")(y))
    rescaled = L.Rescaling(2.0, name="double")(L.Resizing(8, 8, name="third")(y))
    parts = [L.Conv2D(2, 1, name=f"read{i}")(p) for i, p in enumerate((joined, clipped, rescaled))]
    return inputs, parts


def saturating_branches(keras, L):
    image = keras.Input((8, 8, 3), name="image")
    clipped = [L.Conv2D(4, 1, activation="relu6", name=f"clipped{i}")(image) for i in range(3)]
    mixed = L.Concatenate(name="mixed")([clipped[0], L.Conv2D(4, 1, name="open")(image)])
    alike = L.Concatenate(name="alike")(clipped[1:])
    heads = [L.Conv2D(2, 1, name=name)(x) for name, x in (("head1", mixed), ("head2", alike))]
    return image, heads


EXPECTED = {
    preactivation: {
        "image": "i8",
        "stem": "w8 o8",  # a branch of the sum
        "relu1": "u4",
        "conv1": "w2",
        "relu2": "u4",
        "conv2": "w2 o8",  # the other
        "add": "o8",
        "relu3": "u8",  # the last layer multiplies it, behind max pooling
        "head": "w8 o8",
    },
    inverted_residual: {
        "image": "i8",
        "stem": "w8",
        "stem_relu": "u4<=6.0",
        "expand": "w2",
        "expand_relu": "u4<=6.0",
        "depthwise": "w2",
        "depthwise_relu": "u4<=6.0",
        "project": "w2",
        "project_bn": "s8",
        "add": "s4",
        "last_conv": "w2 o8",
        "pool": "o8",
        "head": "w8 o8",
    },
    dense_block: {
        "image": "i8",
        "stem": "w8 o8",
        "relu1": "u4",
        "conv1": "w2",
        "concat1": "o8",
        "relu2": "u4",
        "conv2": "w2",
        "concat2": "o8",
        "relu3": "u8",
        "pool": "u8",
        "conv3": "w8 o8",
    },
    squeeze_excite: {
        "image": "i8",
        "stem": "w8",
        "bn": "s8",
        "swish": "o8",
        "squeeze": "o4",
        "reduce": "w2 o4",
        "expand": "w2 o8",
        "expand_sigmoid": "u8=1.0",
        "excite": "o8",
        "head": "w8 o8",
    },
    without_batch_norm: {
        "image": "i8",
        "conv1": "w8 o4",
        "conv2": "w2",
        "relu": "o4",
        "dense1": "w2 o4",
        "dense2": "w2 o8",
        "dense2_tanh": "o8",
        "head": "w8 o8",  # the softmax behind it stays float
    },
    separable: {
        "image": "i8",
        "first_depthwise": "w8 o4",
        "first": "w2",
        "relu": "u4",
        "middle_depthwise": "w2 o4",
        "middle": "w2 o4",
        "last_depthwise": "w2 o8",
        "last": "w8 o8",
    },
    two_inputs_and_outputs: {
        "a": "i8",
        "b": "i8",
        "on_b": "w8",
        "concat": "o8",
        "middle": "w8 o8",  # first: nothing stands between it and `a`
        "out1": "w8 o8",
        "out2": "w8 o8",
    },
    shared_layer: {
        "a": "i8",
        "b": "i8",
        "tower": "w8 o8",
        "difference": "o8",
        "head": "w8 o8",
    },
    nested: {
        "image": "i8",
        "stem": "w8 o4",
        "block_conv": "w2",
        "block_relu": "u8",
        "pool": "o8",
        "head": "w8 o8",
    },
    rescaled: {
        "rescale": "i8",
        "conv": "w8 o8",
        "head": "w8 o8",
    },
    augmented: {
        "rotate": "i8",
        "conv": "w8 o8",
        "head": "w8 o8",
    },
    resized: {
        "crop": "i8",
        "conv": "w8 o8",
        "head": "w8 o8",
        "masks": "o8",
    },
    saturating_branches: {
        "image": "i8",
        "clipped0": "w8 o8",  # saturates where "open" does not
        "open": "w8",
        "mixed": "o8",
        "clipped1": "w8",
        "clipped2": "w8",
        "alike": "o8",
        "head1": "w8 o8",
        "head2": "w8 o8",
    },
    resized_inside: {
        "image": "i8",
        "large": "w8 o4",
        "small": "w2 o8",
        "join": "o8",
        "clip": "o8",
        "third": "o8",
        "double": "o8",
        **{f"read{i}": "w8 o8" for i in range(3)},
    },
}


@pytest.mark.parametrize("build", EXPECTED, ids=lambda build: build.__name__)
def test_every_quantizer_of_a_net(flavor, listed, build):
    model = flavor.keras.Model(*build(flavor.keras, flavor.layers))
    quantized = quantize_model(model, num_bits_weight=2, num_bits_activation=4)
    assert listed(quantized) == EXPECTED[build]


def basic_block(name, first_in_stage):
    expected = {
        f"{name}_conv1": "w2",
        f"{name}_relu1": "u4",
        f"{name}_conv2": "w2",
        f"{name}_bn2": "s8",
        f"{name}_relu2": "u4",  # of a sum of normalized values
    }
    if first_in_stage:
        expected |= {f"{name}_shortcut": "w2", f"{name}_shortcut_bn": "s8"}
    return expected


@pytest.mark.parametrize(("depth", "blocks"), [(8, 1), (20, 3)])
def test_every_quantizer_of_a_resnet(flavor, listed, depth, blocks):
    model = applications.CIFARResNet(depth, keras_flavor=flavor.name)
    expected = {"image": "i8", "stem_conv": "w8", "stem_relu": "u4"}
    for stage in (1, 2, 3):
        for block in range(blocks):
            expected |= basic_block(f"stage{stage}_block{block}", stage > 1 and block == 0)
    expected[f"stage3_block{blocks - 1}_relu2"] = "u8"  # averaged, not multiplied
    expected |= {"avg_pool": "o8", "predictions": "w8 o8"}
    assert listed(quantize_model(model, num_bits_activation=4)) == expected


def test_operators_are_rounded_behind_them(flavor, listed):
    L = flavor.layers
    inputs = flavor.keras.Input((4,), name="a")
    x = L.Dense(4, name="first")(inputs)
    y = L.Dense(4, activation="relu", name="branch")(x)
    z = x + y
    name = z._keras_history[0].name.replace(".", "_")
    model = flavor.keras.Model(inputs, L.Dense(2, name="head")(z))
    assert listed(quantize_model(model)) == {
        "a": "i8",
        "first": "w8 o8",
        "branch": "w2 o8",
        name: "o8",
        "head": "w8 o8",
    }


def test_operators_on_operators_are_each_rounded(flavor, listed):
    L = flavor.layers
    inputs = flavor.keras.Input((4,), name="a")
    x = L.Dense(4, activation="relu", name="first")(inputs)
    y = x * 0.5
    z = x * y
    names = [tensor._keras_history[0].name.replace(".", "_") for tensor in (y, z)]
    model = flavor.keras.Model(inputs, L.Dense(2, name="head")(z))
    assert listed(quantize_model(model)) == {
        "a": "i8",
        "first": "w8 o8",
        names[0]: "o8",
        names[1]: "o8",
        "head": "w8 o8",
    }


def test_a_norm_behind_a_layers_own_relu_is_an_operation_of_its_own(flavor, listed):
    L = flavor.layers
    inputs = flavor.keras.Input((8, 8, 3), name="a")
    x = L.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = L.BatchNormalization(name="bn")(x)
    model = flavor.keras.Model(inputs, L.Conv2D(2, 3, name="head")(x))
    assert listed(quantize_model(model)) == {
        "a": "i8",
        "conv": "w8 o8",
        "bn": "s8",
        "head": "w8 o8",
    }


def test_a_nested_model_with_operators_may_be_called_twice(flavor, listed):
    L = flavor.layers
    block_inputs = flavor.keras.Input((4,))
    x = L.Dense(4, name="dense")(block_inputs)
    block = flavor.keras.Model(block_inputs, x + block_inputs, name="block")
    inputs = flavor.keras.Input((4,), name="a")
    x = L.Dense(4, name="first")(inputs)
    model = flavor.keras.Model(inputs, L.Dense(2, name="head")(block(block(x))))
    found = listed(quantize_model(model))
    assert found["block_dense"] == "w2 o8"
    assert sorted(found.values()).count("o8") == 2  # one behind each sum


def test_whole_numbers_are_no_values_to_round(flavor, listed):
    L = flavor.layers
    tokens = flavor.keras.Input((6,), dtype="int32", name="tokens")
    x = L.Embedding(1000, 4, name="embedding")(tokens)
    x = L.Dense(4, activation="relu", name="dense")(L.Flatten(name="flat")(x))
    model = flavor.keras.Model(tokens, L.Dense(2, name="head")(x))
    with pytest.warns(UserWarning, match="1 layer stays float"):
        quantized = quantize_model(model)
    assert "tokens" not in listed(quantized)


def test_an_input_that_is_padded_first_is_rounded(flavor, listed):
    L = flavor.layers
    inputs = flavor.keras.Input((6, 6, 3), name="a")
    x = L.Conv2D(2, 3, name="head")(L.Cropping2D(1)(L.ZeroPadding2D(2)(inputs)))
    found = listed(quantize_model(flavor.keras.Model(inputs, x)))
    assert found == {"a": "i8", "head": "w8 o8"}


@pytest.mark.parametrize(
    ("function", "is_unsigned"),
    [
        (lambda L, x: x * 0.5, True),
        (lambda L, x: x * np.linspace(0.5, 2, 4, dtype="float32"), True),
        (lambda L, x: L.ReLU(6.0)(x + 3.0) * (1 / 6), True),
        (lambda L, x: L.Activation("tanh")(x), True),
        (lambda L, x: L.LeakyReLU()(x), True),
        (lambda L, x: x + x, True),
        (lambda L, x: x - x, False),
        (lambda L, x: x - 0.25, False),
        (lambda L, x: x * -1.0, False),
        (lambda L, x: L.Activation("tanh")(x - 1.0), False),
    ],
)
def test_functions_of_values_that_are_not_negative(flavor, function, is_unsigned):
    L = flavor.layers
    inputs = flavor.keras.Input((6, 6, 3))
    x = function(L, L.Conv2D(4, 1, activation="relu")(inputs))
    model = flavor.keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))
    graph = model_graph(model)
    flatten = next(call for call in graph.calls if "flatten" in call.path)
    assert rounded_tensors(graph)[flatten.inputs[0]].unsigned is is_unsigned


def features_and_scores(flavor, *, with_features):
    L = flavor.layers
    inputs = flavor.keras.Input((4,))
    x = L.Dense(8, activation="relu", name="first")(inputs)
    features = L.Dense(8, activation="relu", name="features")(x)
    scores = L.Dense(2, name="scores")(features)
    return flavor.keras.Model(inputs, [features, scores] if with_features else scores)


@pytest.mark.parametrize("last_layer", [8, "float"])
def test_features_that_are_an_output_as_well_are_quantized_as_if_not(flavor, listed, last_layer):
    arguments = {"num_bits_activation": 4, "last_layer": last_layer}
    shown, hidden = (
        listed(quantize_model(features_and_scores(flavor, with_features=each), **arguments))
        for each in (True, False)
    )
    # What the last layer multiplies has 8 bits.
    names = {name for name in hidden if not name.startswith("input")}
    assert {name: shown[name] for name in names} == {name: hidden[name] for name in names}
    assert shown["first"] == "w8 o4"
    assert shown["features"] == "w2 o8"


def test_an_output_that_kernels_read_has_their_bits(flavor, listed):
    L = flavor.layers
    inputs = flavor.keras.Input((4,))
    x = L.Dense(8, activation="relu", name="first")(inputs)
    y = L.Dense(8, activation="relu", name="second")(x)
    model = flavor.keras.Model(inputs, [x, L.Dense(2, name="last")(y)])
    found = listed(quantize_model(model, num_bits_activation=4, last_layer="float"))
    assert found["first"] == "w8 o4"


def test_a_float_head_leaves_the_logits_of_others_rounded(flavor, listed):
    L = flavor.layers
    inputs = flavor.keras.Input((4,))
    x = L.Dense(8, activation="relu")(inputs)
    model = flavor.keras.Model(inputs, [L.Dense(2, name="cls")(x), L.Dense(2, name="reg")(x)])
    found = listed(quantize_model(model, overrides={"cls": "float"}))
    assert "cls" not in found
    assert found["reg"] == "w8 o8"
