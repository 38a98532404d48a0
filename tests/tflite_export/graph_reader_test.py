"""Which operations each kind of layer becomes, and how tensors are named."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.small_models import chain, outline, quantized, read, residual_net
from tflite_export.graph_reader import fold_model
from tflite_export.integer_model import Conv2D, FullyConnected
from wrpn_tf.quantization import output_quantizer


def outlines(model, **arguments):
    operations = read(model, **arguments).operations
    assert len({op.name for op in operations}) == len(operations)
    return outline(operations)


def test_a_convolutional_net(flavor):
    L = flavor.layers
    model = chain(
        flavor,
        L.ZeroPadding2D(((1, 0), (2, 1)), name="pad"),
        L.Conv2D(4, 3, strides=(2, 1), name="conv"),
        L.BatchNormalization(name="norm"),
        L.ReLU(name="relu"),
        L.Dropout(0.5, name="drop"),
        L.MaxPooling2D((2, 1), strides=(1, 2), padding="same", name="pool"),
        L.Flatten(name="flat"),
        L.Dense(3, name="head"),
        L.Softmax(name="share"),
    )
    folded = read(model)
    assert outline(folded.operations) == [
        "Pad pad <- image",
        "Conv2D relu <- pad",
        "MaxPool2D pool <- relu",
        "Reshape flat <- pool",
        "FullyConnected head <- flat",
        "Softmax share <- head",
    ]
    pad, conv, pool = folded.operations[:3]
    assert pad.amounts == ((1, 0), (2, 1), (0, 0))
    assert (conv.name, conv.strides, conv.padding, conv.relu) == (
        "quant_conv",
        (2, 1),
        "valid",
        True,
    )
    assert (pool.pool, pool.strides, pool.padding) == ((2, 1), (1, 2), "same")
    assert (folded.inputs, folded.outputs) == (("quant_image",), ("share",))
    assert set(folded.quantizers) == {"quant_image", "quant_relu", "quant_head"}
    assert folded.tensors["pad"].shape == (9, 11, 3)
    assert folded.tensors["flat"].shape == (4 * 5 * 4,)
    share = folded.tensors["share"]
    assert (share.scale, share.low, share.high) == (np.float32(1 / 256), 0, 255)


def test_a_residual_block(flavor):
    assert outlines(residual_net(flavor)) == [
        "Conv2D relu0 <- image",
        "Conv2D relu1 <- relu0",
        "DepthwiseConv2D norm2 <- relu1",
        "Add relu2 <- relu0, norm2",
        "Reshape mean/image <- relu2",
        "Conv2D mean/flat <- mean/image",
        "Reshape mean <- mean/flat",
        "FullyConnected head <- mean",
    ]


def test_separable_transposed_and_depthwise_convolutions(flavor):
    L = flavor.layers
    model = chain(
        flavor,
        L.SeparableConv2D(4, 3, name="separable"),
        L.ReLU(name="relu1"),
        L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise"),
        L.Conv2DTranspose(5, 3, strides=2, padding="same", activation="relu", name="up"),
        L.Conv2D(4, 3, dilation_rate=2, name="dilated"),
        L.ReLU(6.0, name="relu6"),
    )
    folded = read(model)
    assert outline(folded.operations) == [
        "DepthwiseConv2D separable_depthwise <- image",
        "Conv2D relu1 <- separable_depthwise",
        "DepthwiseConv2D depthwise <- relu1",
        "TransposeConv up <- depthwise",
        "Conv2D relu6 <- up",
    ]
    shapes = [op.kernel.integers.shape for op in folded.operations]
    assert shapes == [(1, 3, 3, 3), (4, 1, 1, 3), (1, 3, 3, 8), (5, 3, 3, 8), (4, 3, 3, 5)]
    assert folded.operations[3].padding == "same"
    assert folded.operations[4].dilation == (2, 2)
    assert not folded.operations[0].relu


def test_a_dense_layer_on_a_sequence(flavor):
    L = flavor.layers
    model = chain(flavor, L.Dense(8, activation="relu"), L.Dense(2, name="head"), shape=(5, 6))
    folded = read(model)
    assert [type(op) for op in folded.operations] == [FullyConnected, FullyConnected]
    assert folded.tensors["quant_head"].shape == (5, 2)


def test_a_grouped_convolution_keeps_its_groups(flavor):
    L = flavor.layers
    model = chain(flavor, L.Conv2D(4, 1, activation="relu"), L.Conv2D(6, 3, groups=2, name="g"))
    (_, grouped) = read(model).operations
    assert type(grouped) is Conv2D
    assert grouped.kernel.integers.shape == (6, 3, 3, 4 // 2)


def test_a_norm_with_no_kernel_before_it_is_a_convolution_by_ones(flavor):
    """Pre-activation blocks: the norm reads a rounded sum."""
    L = flavor.layers
    x = inputs = flavor.keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", name="conv1")(x)
    y = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    y = L.Conv2D(4, 3, padding="same", name="conv2")(y)
    folded = read(flavor.keras.Model(inputs, L.Add(name="add")([x, y])))
    assert outline(folded.operations) == [
        "Conv2D conv1 <- image",
        "DepthwiseConv2D relu <- conv1",
        "Conv2D conv2 <- relu",
        "Add add <- conv1, conv2",
    ]
    assert set(np.unique(np.abs(folded.operations[1].kernel.integers))) == {1}


def test_a_norm_behind_a_relu_rounds_again_and_works_on_features_too(flavor):
    L = flavor.layers
    model = chain(
        flavor,
        L.Dense(4, activation="relu", name="dense"),
        L.BatchNormalization(name="norm"),
        L.Dense(2, name="head"),
        shape=(5, 6),
    )
    folded = read(model)
    assert outline(folded.operations) == [
        "FullyConnected dense <- image",
        "Reshape norm/image <- dense",
        "DepthwiseConv2D norm/flat <- norm/image",
        "Reshape norm <- norm/flat",
        "FullyConnected head <- norm",
    ]
    shapes = [folded.tensors[op.output].shape for op in folded.operations]
    assert shapes == [(5, 4), (1, 5, 4), (1, 5, 4), (5, 4), (5, 2)]


@pytest.mark.parametrize("limit", [None, 6.0])
def test_a_relu_behind_a_pool_rounds_again(flavor, limit):
    L = flavor.layers
    model = chain(
        flavor,
        L.Conv2D(4, 3, name="conv"),
        L.BatchNormalization(name="norm"),
        L.MaxPooling2D(name="pool"),
        L.ReLU(limit, name="relu"),
    )
    folded = read(model)
    assert outline(folded.operations) == [
        "Conv2D norm <- image",
        "MaxPool2D pool <- norm",
        "DepthwiseConv2D relu <- pool",
    ]
    assert (folded.operations[0].relu, folded.operations[2].relu) == (False, True)


def test_a_concatenation_joins_pending_tensors_on_its_own_grid(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((8, 8, 3), name="image")
    branches = [L.Conv2D(2, k, padding="same", activation="relu")(inputs) for k in (1, 3)]
    folded = read(flavor.keras.Model(inputs, L.Concatenate(name="join")(branches)))
    assert outline(folded.operations) == [
        "Conv2D join/0 <- image",
        "Conv2D join/1 <- image",
        "Concatenation join <- join/0, join/1",
    ]
    assert folded.operations[-1].axis == 3
    assert len({folded.tensors[f"quant_join{end}"].scale for end in ("", "/0", "/1")}) == 1


def test_a_concatenation_rounds_again_what_has_another_sign(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(2, 3, padding="same", activation="relu", name="conv1")(inputs)
    y = L.BatchNormalization(name="norm")(L.Conv2D(2, 3, padding="same", name="conv2")(x))
    folded = read(flavor.keras.Model(inputs, L.Concatenate(axis=-1, name="join")([x, y])))
    assert outline(folded.operations) == [
        "Conv2D conv1 <- image",
        "DepthwiseConv2D join/0 <- conv1",
        "Conv2D join/1 <- conv1",
        "Concatenation join <- join/0, join/1",
    ]


def test_a_concatenation_rounds_again_what_has_another_scale(flavor):
    """Two branches that others read as well, each with a range of its own."""
    L = flavor.layers
    inputs = flavor.keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(2, 3, padding="same", activation="relu", name="conv1")(inputs)
    y = L.Conv2D(2, 3, padding="same", activation="relu", name="conv2")(x)
    join = L.Concatenate(name="join")([x, y])
    model = quantized(flavor.keras.Model(inputs, [L.Conv2D(2, 3, name="head")(join), y]))
    for largest, name in enumerate(("quant_conv1", "quant_conv2", "quant_join"), start=1):
        quantizer, variables = output_quantizer(model.get_layer(name))
        quantizer.set_range(variables, 0.0, float(largest))
    assert outline(fold_model(model).operations)[2:5] == [
        "DepthwiseConv2D join/0 <- conv1",
        "DepthwiseConv2D join/1 <- conv2",
        "Concatenation join <- join/0, join/1",
    ]


def test_preprocessing_is_left_out_and_named(flavor):
    L = flavor.layers
    model = chain(flavor, L.Rescaling(1 / 255, name="shrink"), L.Conv2D(2, 3, name="conv"))
    folded = read(model)
    assert folded.preprocessing == ("quant_shrink",)
    assert folded.inputs == ("quant_shrink",)
    assert outline(folded.operations) == ["Conv2D conv <- shrink"]


def test_augmentation_is_left_out_and_not_named(flavor):
    L = flavor.layers
    model = chain(
        flavor,
        L.RandomFlip(name="flip"),
        L.Rescaling(1 / 255, name="shrink"),
        L.RandomZoom(0.2, name="zoom"),
        L.Conv2D(2, 3, name="conv"),
    )
    folded = read(model)
    assert folded.preprocessing == ("shrink",)
    assert folded.inputs == ("quant_zoom",)
    assert outline(folded.operations) == ["Conv2D conv <- zoom"]


def test_several_inputs_and_outputs_keep_the_models_order(flavor):
    L = flavor.layers
    inputs = [flavor.keras.Input((4,), name=name) for name in ("first", "second")]
    parts = [L.Dense(3, activation="relu", name=f"d{i}")(x) for i, x in enumerate(inputs)]
    total = L.Add(name="add")(parts)
    heads = [L.Dense(2, name="b")(total), L.Dense(2, activation="softmax", name="a")(total)]
    folded = read(flavor.keras.Model(inputs, [*heads, total]))
    assert folded.inputs == ("quant_first", "quant_second")
    assert folded.outputs == ("quant_b", "a_softmax", "quant_add")


def test_a_sequence_is_an_image_of_one_row(flavor):
    L = flavor.layers
    layers = [
        L.Conv1D(4, 3, dilation_rate=2, padding="causal", activation="relu", name="conv"),
        L.MaxPooling1D(2, name="pool"),
        L.SpatialDropout1D(0.5, name="drop"),
        L.Cropping1D((2, 1), name="crop"),
        L.Dense(2, name="head"),
    ]
    folded = read(chain(flavor, *layers, shape=(12, 3)))
    assert outline(folded.operations) == [
        "Reshape conv/image <- image",
        "Pad conv/causal <- conv/image",
        "Conv2D conv/flat <- conv/causal",
        "Reshape conv <- conv/flat",
        "Reshape pool/image <- conv",
        "MaxPool2D pool/flat <- pool/image",
        "Reshape pool <- pool/flat",
        "Crop crop <- pool",
        "FullyConnected head <- crop",
    ]
    pad, conv, pool = (folded.operations[i] for i in (1, 2, 5))
    assert pad.amounts == ((0, 0), (4, 0), (0, 0))
    assert (conv.strides, conv.padding, conv.dilation) == ((1, 1), "valid", (1, 2))
    assert conv.kernel.integers.shape == (4, 1, 3, 3)
    assert (pool.pool, pool.strides) == ((1, 2), (1, 2))
    assert folded.tensors["crop"].shape == (3, 4)


@pytest.mark.parametrize("written", ["argument", "layer", "operation"])
def test_a_sigmoid_at_the_end(flavor, written):
    L = flavor.layers
    if written == "operation" and not hasattr(flavor.keras, "ops"):
        pytest.skip("an operation of Keras 3")
    inputs = flavor.keras.Input((4,), name="image")
    head = L.Dense(1, activation="sigmoid" if written == "argument" else None, name="head")(inputs)
    if written == "layer":
        head = L.Activation("sigmoid")(head)
    elif written == "operation":
        head = flavor.keras.ops.sigmoid(head)
    folded = read(flavor.keras.Model(inputs, head))
    first, end = outline(folded.operations)
    assert first == "FullyConnected head <- image"
    assert end.split()[0] == "Sigmoid"
    assert end.split()[2:] == ["<-", "head"]
    grid = folded.tensors[folded.outputs[0]]
    assert (grid.scale, grid.low, grid.high) == (1 / 256, 0, 255)


def test_nested_models_are_read_through(flavor):
    L = flavor.layers
    inner = chain(flavor, L.Conv2D(4, 3, name="conv"), L.BatchNormalization(name="norm"))
    outer = flavor.keras.Input((8, 8, 3), name="image")
    x = L.ReLU(name="relu")(inner(outer))
    assert outlines(flavor.keras.Model(outer, x)) == ["Conv2D relu <- image"]


def test_a_layer_called_again_names_its_tensors_by_the_call(flavor):
    L = flavor.layers
    relu = L.ReLU(name="relu")
    model = chain(flavor, L.Conv2D(4, 3, name="a"), relu, L.Conv2D(4, 3, name="b"), relu)
    assert outlines(model) == ["Conv2D relu <- image", "Conv2D relu:1 <- relu"]


def test_a_sum_written_as_an_operator_is_an_addition(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((8, 8, 3), name="image")
    x, y = (L.Conv2D(4, 1, name=name)(inputs) for name in "ab")
    model = flavor.keras.Model(inputs, L.ReLU(name="relu")(x + y))
    assert outlines(model)[-1] == "Add relu <- a, b"


@pytest.mark.parametrize(("bits", "spread"), [(2, 64), (3, 32), (4, 16), (6, 4), (7, 2)])
def test_eight_bit_weights_spread_the_few_levels_that_they_read(flavor, bits, spread):
    L = flavor.layers
    first, last = L.Conv2D(4, 3, activation="relu", name="first"), L.Dense(2, name="last")
    model = chain(flavor, first, L.Conv2D(2, 1, name="conv"), L.Flatten(), last)
    folded = read(model, num_bits_weight=8, num_bits_activation=bits)
    assert outline(folded.operations)[:2] == ["Conv2D first <- image", "Conv2D conv <- first"]
    found = {op.name: op.kernel.spread for op in folded.operations if hasattr(op, "kernel")}
    assert found == {"quant_first": 1, "quant_conv": spread, "quant_last": 1}
    assert folded.tensors["quant_conv"].low < 0


def test_eight_bit_weights_write_signed_outputs_from_zero(flavor):
    L = flavor.layers
    model = chain(
        flavor, L.Conv2D(4, 3, activation="relu", name="conv"), L.Conv2D(2, 1, name="end")
    )
    folded = read(model, first_layer=8, last_layer=8)
    assert outline(folded.operations) == [
        "Conv2D conv <- image",
        "Conv2D end/positive <- conv",
        "Shift end <- end/positive",
    ]
    end, positive = folded.tensors["quant_end"], folded.tensors["quant_end/positive"]
    (_, conv, shift) = folded.operations
    assert shift.amount == end.low < 0
    assert (positive.low, positive.high) == (0, end.high - end.low)
    assert conv.relu
    assert conv.kernel.shift == -end.low
