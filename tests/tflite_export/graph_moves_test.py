"""What layers that move levels, and round nothing, become."""

from __future__ import annotations

from tests.tflite_export.small_models import chain, outline, read
from tflite_export.integer_model import Crop, Permute
from wrpn_tf.keras_flavor import KERAS


def test_edges_cut_off_and_pixels_repeated(flavor):
    L = flavor.layers
    model = chain(
        flavor,
        L.Cropping2D(((1, 0), (2, 1)), name="crop"),
        L.Conv2D(4, 1, activation="relu", name="conv"),
        L.UpSampling2D((2, 3), name="zoom"),
        L.Conv2D(2, 1, name="head"),
    )
    folded = read(model)
    assert outline(folded.operations) == [
        "Crop crop <- image",
        "Conv2D conv <- crop",
        "UpSample2D zoom <- conv",
        "Conv2D head <- zoom",
    ]
    crop, _, zoom, _ = folded.operations
    assert (crop.amounts, zoom.size) == (((1, 0), (2, 1), (0, 0)), (2, 3))
    assert [folded.tensors[name].shape for name in ("crop", "zoom")] == [(7, 5, 3), (14, 15, 4)]


def test_slices_and_axes_in_another_order(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((6, 8, 3), name="image")
    x = L.Conv2D(4, 1, activation="relu", name="conv")(inputs)
    left, right = x[..., :2], x[:, 1:-1, :, -3:]
    x = L.Permute((2, 3, 1), name="turn")(right)
    row = L.Conv2D(4, 1, name="high")(left)[:, 2]
    model = flavor.keras.Model(inputs, [L.Conv2D(2, 1, name="wide")(x), L.Dense(2)(row)])
    folded = read(model)
    crops = {
        op.amounts: folded.tensors[op.output].shape
        for op in folded.operations
        if isinstance(op, Crop)
    }
    assert crops == {
        ((0, 0), (0, 0), (0, 2)): (6, 8, 2),
        ((1, 1), (0, 0), (1, 0)): (4, 8, 3),
        ((2, 3), (0, 0), (0, 0)): (1, 8, 4),
    }
    (turn,) = [op for op in folded.operations if isinstance(op, Permute)]
    assert (turn.name, turn.order) == ("turn", (1, 2, 0))
    assert folded.tensors["turn"].shape == (8, 3, 4)


def test_operations_of_keras_3_that_move_levels():
    ops = KERAS.keras.ops
    inputs = KERAS.keras.Input((6, 1, 3), name="image")
    x = KERAS.layers.Conv2D(4, 1, activation="relu", name="conv")(inputs)
    x = ops.transpose(ops.expand_dims(ops.squeeze(x, 2), 1), (0, 1, -1, 2))
    folded = read(KERAS.keras.Model(inputs, KERAS.layers.Dense(2, name="head")(x)))
    kinds = [type(operation).__name__ for operation in folded.operations]
    assert kinds == ["Conv2D", "Reshape", "Reshape", "Permute", "FullyConnected"]
    assert folded.operations[3].order == (0, 2, 1)
    assert [folded.tensors[op.output].shape for op in folded.operations[1:4]] == [
        (6, 4),
        (1, 6, 4),
        (1, 4, 6),
    ]
