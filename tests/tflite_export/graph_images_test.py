"""What becomes of images that are pooled or interpolated, as the exporter reads them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.small_models import chain, outline, read


@pytest.mark.parametrize("keepdims", [False, True])
def test_global_pools(flavor, keepdims):
    L = flavor.layers
    for pool in (L.GlobalAveragePooling2D, L.GlobalMaxPooling2D):
        is_max = pool is L.GlobalMaxPooling2D
        layers = [L.Conv2D(8, 3, activation="relu", name="conv"), pool(keepdims=keepdims, name="p")]
        if is_max:
            layers.append(L.Dense(2, name="head"))
        wanted = ["Conv2D conv <- image"]
        if not is_max:
            wanted += ["Reshape p/image <- conv", "Conv2D p/flat <- p/image", "Reshape p <- p/flat"]
        elif keepdims:
            wanted += ["MaxPool2D p <- conv"]
        else:
            wanted += ["MaxPool2D p/flat <- conv", "Reshape p <- p/flat"]
        folded = read(chain(flavor, *layers))
        assert outline(folded.operations)[: len(wanted)] == wanted
        name = "p" if is_max else "quant_p"
        assert folded.tensors[name].shape == ((1, 1, 8) if keepdims else (8,))
        if is_max:
            assert folded.operations[1].pool == (6, 6)
            assert folded.tensors["p"].scale == folded.tensors["quant_conv"].scale


def test_a_mean_is_a_convolution_by_ones_with_the_share_as_its_scale(flavor):
    L = flavor.layers
    model = chain(flavor, L.ReLU(name="relu"), L.AveragePooling2D((2, 3), (2, 1), name="mean"))
    model = chain(flavor, L.Conv2D(4, 1, activation="relu"), *model.layers[1:])
    (_, mean) = read(model).operations[-2:]
    assert mean.name == "quant_mean"
    np.testing.assert_array_equal(mean.kernel.integers, np.ones((1, 2, 3, 4)))
    np.testing.assert_array_equal(mean.kernel.scale, 1 / 6)
    assert mean.strides == (2, 1)


def test_a_mean_without_its_padding_has_its_edges_averaged_apart(flavor):
    L = flavor.layers
    pool = L.AveragePooling2D(2, 1, padding="same", name="mean")
    model = chain(flavor, L.Conv2D(4, 1, activation="relu", name="conv"), pool)
    folded = read(model)
    assert outline(folded.operations)[1:] == [
        "DepthwiseConv2D mean/0/0 <- conv",
        "Crop mean/0/1/crop <- conv",
        "DepthwiseConv2D mean/0/1 <- mean/0/1/crop",
        "Concatenation mean/0 <- mean/0/0, mean/0/1",
        "Crop mean/1/0/crop <- conv",
        "DepthwiseConv2D mean/1/0 <- mean/1/0/crop",
        "Crop mean/1/1/crop <- conv",
        "DepthwiseConv2D mean/1/1 <- mean/1/1/crop",
        "Concatenation mean/1 <- mean/1/0, mean/1/1",
        "Concatenation mean <- mean/0, mean/1",
    ]
    shares = [op.kernel.scale[0] for op in folded.operations[1:] if hasattr(op, "kernel")]
    assert shares == [1 / 4, 1 / 2, 1 / 2, 1]
    assert [op.axis for op in folded.operations if hasattr(op, "axis")] == [2, 2, 1]


def test_a_mean_whose_windows_cover_all_is_one_operation_whatever_its_padding(flavor):
    L = flavor.layers
    pool = L.AveragePooling2D((2, 4), padding="same", name="mean")
    model = chain(flavor, L.Conv2D(4, 1, activation="relu", name="conv"), pool)
    folded = read(model)
    assert outline(folded.operations)[1:] == ["DepthwiseConv2D mean <- conv"]
    assert folded.operations[1].name == "quant_mean"


def test_bilinear_upsampling_is_a_convolution_for_each_place_between_pixels(flavor):
    L = flavor.layers
    zoom = L.UpSampling2D((1, 2), interpolation="bilinear", name="zoom")
    folded = read(chain(flavor, L.Conv2D(4, 1, activation="relu", name="conv"), zoom))
    assert outline(folded.operations)[1:] == [
        "EdgePad zoom/flat/0/edge <- conv",
        "DepthwiseConv2D zoom/flat/0 <- zoom/flat/0/edge",
        "EdgePad zoom/flat/1/edge <- conv",
        "DepthwiseConv2D zoom/flat/1 <- zoom/flat/1/edge",
        "Concatenation zoom/flat <- zoom/flat/0, zoom/flat/1",
        "Reshape zoom <- zoom/flat",
    ]
    weights = [op.kernel.integers[0, 0, :, 0].tolist() for op in folded.operations[2:5:2]]
    assert weights == [[1, 3], [3, 1]]
    assert folded.tensors["quant_zoom"].shape == (8, 16, 4)


def test_a_mean_of_all_pixels_is_a_convolution_of_one_column(flavor):
    """One channel at a time where 4 do not divide them, as of 5; otherwise 2 or 4 at once."""
    L = flavor.layers
    for channels, group in ((5, 1), (6, 2), (8, 4)):
        mean = L.GlobalAveragePooling2D(name="mean")
        model = chain(flavor, L.Conv2D(channels, 3, activation="relu", name="conv"), mean)
        folded = read(model)
        *_, image, mean, flat = folded.operations
        height, width, _ = folded.tensors["quant_conv"].shape
        column = (height * width, channels // group, group)
        assert folded.tensors[image.output].shape == column
        assert folded.tensors[mean.output].shape == (1, *column[1:])
        assert folded.tensors[flat.output].shape == (channels,)
        pick = np.eye(group)[:, None, None, :]
        np.testing.assert_array_equal(
            mean.kernel.integers, np.broadcast_to(pick, (group, column[0], 1, group))
        )
        np.testing.assert_array_equal(mean.kernel.scale, [1 / column[0]] * group)


def test_a_concatenation_joins_means(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(2, 3, activation="relu", name="conv")(inputs)
    parts = [L.GlobalAveragePooling2D(name="mean")(x), L.GlobalMaxPooling2D(name="max")(x)]
    folded = read(flavor.keras.Model(inputs, L.Concatenate(name="join")(parts)))
    assert outline(folded.operations)[-4:] == [
        "Reshape join/0/image <- conv",
        "Conv2D join/0/flat <- join/0/image",
        "Reshape join/0 <- join/0/flat",
        "Concatenation join <- join/0, max",
    ]
    assert folded.tensors["quant_join/0"].shape == (2,)
