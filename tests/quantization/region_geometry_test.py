"""Which part of the image a position stands for: against what it depends on, found by running."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization.region_geometry import resolutions
from wrpn_tf.regions import Resolution


def last_resolution(flavor, *layers, size=(12, 14)):
    """The model of a chain of layers, and the resolution of its output."""
    inputs = x = flavor.layers.Input((*size, 3))
    x = flavor.layers.Conv2D(2, 1)(x)  # a model needs weights
    for layer in layers:
        x = layer(x)
    model = flavor.keras.Model(inputs, x)
    graph = model_graph(model)
    return model, resolutions(graph, graph.inputs[0]).get(graph.outputs[0])


def positions_read(model, row, column):
    """First and last image position, down and right, that an output position depends on."""
    image = tf.Variable(tf.random.uniform((1, *model.input_shape[1:3], 3), 0.5, 1.0, seed=3))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(image)[:, row, column])
    read = np.abs(tape.gradient(total, image).numpy()[0]).sum(-1) > 0
    return [
        (np.flatnonzero(read.any(1 - a))[0], np.flatnonzero(read.any(1 - a))[-1]) for a in (0, 1)
    ]


def chains(layers):
    return {
        "pointwise": [layers.Conv2D(2, 1)],
        "patches": [layers.Conv2D(2, 2, 2)],
        "pooled": [layers.AveragePooling2D(2), layers.AveragePooling2D(3)],
        "padded patches": [layers.ZeroPadding2D(((1, 2), (2, 0))), layers.AveragePooling2D(2)],
        "cropped patches": [layers.Cropping2D(((1, 0), (3, 2))), layers.Conv2D(2, 3, 3)],
    }


@pytest.mark.parametrize(
    "name", ["pointwise", "patches", "pooled", "padded patches", "cropped patches"]
)
def test_where_windows_do_not_overlap_it_is_what_the_position_depends_on(flavor, name):
    tf.random.set_seed(5)
    model, found = last_resolution(flavor, *chains(flavor.layers)[name])
    assert found.size == tuple(model.output_shape[1:3])
    for row, column in ((1, 1), (found.size[0] - 2, found.size[1] - 2)):
        for axis, (first, last) in enumerate(positions_read(model, row, column)):
            start = found.offset[axis] + found.stride[axis] * (row, column)[axis]
            assert (first, last) == (start, start + found.stride[axis] - 1)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(
    ("stride", "padding"), [(1, "same"), (1, "valid"), (2, "same"), (2, "valid")]
)
def test_with_larger_kernels_it_is_the_middle_of_the_window(flavor, kernel, stride, padding):
    tf.random.set_seed(5)
    layer = flavor.layers.Conv2D(2, kernel, stride, padding=padding)
    model, found = last_resolution(flavor, layer, size=(20, 20))
    row = found.size[0] // 2
    for axis, (first, last) in enumerate(positions_read(model, row, row)):
        start = found.offset[axis] + stride * row
        before, after = start - first, last - (start + stride - 1)
        assert before + after == kernel - stride
        assert 0 <= after - before <= 1


def test_upsampling_divides_what_a_position_stands_for(flavor):
    L = flavor.layers
    _, upsampled = last_resolution(flavor, L.AveragePooling2D(4), L.UpSampling2D(2), size=(12, 16))
    assert upsampled == Resolution((2.0, 2.0), (0.0, 0.0), (6, 8))
    _, transposed = last_resolution(flavor, L.Conv2DTranspose(2, 2, 2), L.ZeroPadding2D(1))
    assert transposed == Resolution((0.5, 0.5), (-0.5, -0.5), (26, 30))


def test_both_branches_of_a_block_have_one_resolution(flavor):
    L = flavor.layers
    inputs = L.Input((16, 16, 4))
    main = L.Conv2D(4, 3, 2, padding="same")(inputs)
    added = L.Add()([main, L.Conv2D(4, 1, 2, padding="same")(inputs)])
    graph = model_graph(flavor.keras.Model(inputs, L.ReLU()(added)))
    found = resolutions(graph, graph.inputs[0])
    assert {found[call.outputs[0]] for call in graph.calls} == {
        Resolution((2.0, 2.0), (0.0, 0.0), (8, 8))
    }


def test_behind_a_global_pool_positions_stand_for_nothing(flavor):
    _, found = last_resolution(flavor, flavor.layers.GlobalAveragePooling2D())
    assert found is None


def test_a_scale_of_its_own_per_channel_keeps_the_image_in_view(flavor):
    L = flavor.layers
    inputs = L.Input((8, 8, 4))
    x = L.Conv2D(4, 3, padding="same")(inputs)
    gate = L.Conv2D(4, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    graph = model_graph(flavor.keras.Model(inputs, L.Multiply()([x, gate])))
    assert resolutions(graph, graph.inputs[0])[graph.outputs[0]].size == (8, 8)
