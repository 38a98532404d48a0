"""Small networks, one for each way in which channels pass through a model.

Each takes a Keras flavour and returns a model whose weights are random, statistics included, so
that no error hides behind a zero or a one.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from wrpn_tf.keras_flavor import KERAS


def randomize(model) -> None:
    """Draws all weights; variances are positive."""
    rng = np.random.default_rng(7)
    for layer in model.layers:
        if hasattr(layer, "layers"):
            randomize(layer)
        elif layer.weights:
            layer.set_weights([_draw(rng, weight) for weight in layer.weights])


def _draw(rng, weight):
    if "variance" in weight.name:
        return rng.uniform(0.5, 2.0, weight.shape)
    return rng.normal(0, 1, weight.shape) / np.sqrt(max(1, np.prod(weight.shape[:-1])))


def _built(flavor, inputs, outputs):
    model = flavor.keras.Model(inputs, outputs)
    randomize(model)
    return model


def _image(flavor, size=6, channels=3):
    return flavor.keras.Input((size, size, channels))


def residual(flavor):
    """Two convolutions and a shortcut, batch normalised."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    x = layers.Conv2D(10, 3, padding="same", name="stem")(x)
    y = layers.BatchNormalization()(x)
    y = layers.Conv2D(7, 3, padding="same", activation="relu", name="inner")(y)
    y = layers.Conv2D(10, 3, padding="same", name="last")(y)
    y = layers.Activation("relu")(layers.Add()([x, y]))
    y = layers.GlobalAveragePooling2D()(y)
    return _built(flavor, inputs, layers.Dense(4, name="logits")(y))


def dense_connections(flavor):
    """A concatenation that is added to a convolution, which splits that one's channels."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    a = layers.Conv2D(5, 3, padding="same", name="a")(x)
    b = layers.Conv2D(9, 3, padding="same", name="b")(x)
    joined = layers.Concatenate()([a, b, x])
    joined = layers.BatchNormalization()(joined)
    c = layers.Conv2D(17, 1, name="c")(a)
    y = layers.Add()([joined, c])
    y = layers.MaxPooling2D()(layers.ZeroPadding2D()(y))
    return _built(flavor, inputs, layers.Dense(4, name="logits")(layers.Flatten()(y)))


def squeeze_excite(flavor):
    """Squeeze and excitation with the number of channels written into a Reshape."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    x = layers.Conv2D(12, 3, activation="relu", name="stem")(x)
    s = layers.Reshape((1, 1, 12))(layers.GlobalAveragePooling2D()(x))
    s = layers.Conv2D(3, 1, activation="relu", name="reduce")(s)
    s = layers.Conv2D(12, 1, activation="sigmoid", name="expand")(s)
    y = layers.Multiply()([x, s])
    y = layers.GlobalMaxPooling2D(keepdims=True)(y)
    return _built(flavor, inputs, layers.Flatten()(layers.Conv2D(4, 1, name="logits")(y)))


def grouped(flavor):
    """A grouped convolution behind a sum, and one that is depthwise but for its name."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    x = layers.Conv2D(8, 3, activation="relu", name="stem")(x)
    y = layers.Conv2D(12, 3, padding="same", groups=4, activation="relu", name="grouped")(x)
    y = layers.Conv2D(8, 1, name="back")(y)
    y = layers.Add()([x, y])
    y = layers.Conv2D(16, 3, groups=8, activation="relu", name="depthwise")(y)
    y = layers.GlobalAveragePooling2D()(y)
    return _built(flavor, inputs, layers.Dense(4, name="logits")(y))


def depth_multipliers(flavor):
    """Depthwise and separable convolutions with a depth multiplier of 2."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    x = layers.Conv2D(5, 3, padding="same", name="stem")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    x = layers.BatchNormalization()(layers.ReLU()(x))
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, activation="relu", name="separable")(x)
    x = layers.DepthwiseConv2D(2, depth_multiplier=3)(x)
    return _built(flavor, inputs, layers.Dense(4, name="logits")(layers.Flatten()(x)))


def decoder(flavor):
    """Downwards, upwards again with a transposed convolution, and a skip connection."""
    layers = flavor.layers
    x = inputs = _image(flavor, size=8)
    a = layers.Conv2D(6, 3, padding="same", activation="relu", name="a")(x)
    b = layers.Conv2D(9, 3, strides=2, padding="same", activation="relu", name="b")(a)
    c = layers.Conv2DTranspose(7, 2, strides=2, activation="relu", name="c")(b)
    d = layers.UpSampling2D()(b)
    y = layers.Concatenate()([a, c, d])
    y = layers.Cropping2D(1)(layers.PReLU(shared_axes=[1, 2])(y))
    y = layers.PReLU()(y)
    return _built(flavor, inputs, layers.Conv2D(4, 1, name="logits")(y))


def sequence(flavor):
    """Embedding, one-dimensional convolutions, two flattened towers side by side."""
    layers = flavor.layers
    inputs = flavor.keras.Input((8,), dtype="int32")
    x = layers.Embedding(11, 6, name="embedding")(inputs)
    a = layers.Conv1D(5, 3, padding="causal", activation="relu", name="a")(x)
    b = layers.SeparableConv1D(6, 3, padding="same", name="b")(x)
    b = layers.Average()([x, b])
    towers = [layers.Flatten()(a), layers.Flatten()(layers.AveragePooling1D(2)(b))]
    y = layers.BatchNormalization()(layers.Concatenate()(towers))
    y = layers.Dense(9, activation="relu", name="hidden")(y)
    y = layers.Conv1D(5, 1, name="c")(layers.RepeatVector(3)(y))
    return _built(flavor, inputs, layers.Dense(4, name="logits")(layers.Flatten()(y)))


def einsum(flavor):
    """EinsumDense with one new axis, then with two."""
    layers = flavor.layers
    inputs = flavor.keras.Input((5, 3))
    x = layers.EinsumDense("abc,cd->abd", (5, 8), bias_axes="d", name="made")(inputs)
    x = layers.EinsumDense("...x,xy->...y", (6,), activation="relu", name="dots")(x)
    y = layers.EinsumDense("abc,cde->abde", (5, 2, 4), bias_axes="de", name="heads")(x)
    return _built(flavor, inputs, y)


def shared(flavor):
    """One convolution and one normalisation on two inputs, and one of them twice in a row."""
    layers = flavor.layers
    left, right = _image(flavor), _image(flavor)
    stem = layers.Conv2D(6, 3, padding="same", activation="relu", name="stem")
    norm = layers.BatchNormalization()
    twice = layers.Conv2D(6, 3, padding="same", name="twice")
    a, b = norm(stem(left)), norm(stem(right))
    y = layers.Concatenate()([twice(twice(a)), b])
    y = layers.GlobalAveragePooling2D()(y)
    return _built(flavor, [left, right], layers.Dense(4, name="logits")(y))


def nested(flavor):
    """A model in a model, used twice, and several outputs."""
    layers = flavor.layers
    inner_input = _image(flavor, channels=6)
    inner = layers.Conv2D(8, 3, padding="same", activation="relu", name="up")(inner_input)
    inner = layers.Conv2D(6, 3, padding="same", name="down")(inner)
    block = flavor.keras.Model(inner_input, layers.Add()([inner_input, inner]), name="block")
    x = inputs = _image(flavor)
    x = layers.Conv2D(6, 1, name="stem")(x)
    x = block(block(x))
    y = layers.Conv2D(5, 3, activation="relu", name="tail")(x)
    outputs = {
        "class": layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(y)),
        "map": layers.Conv2D(2, 1, name="mask")(y),
    }
    return _built(flavor, inputs, outputs)


def operators(flavor):
    """Python's operators with scalars, a per-pixel map, slices, and constants of one channel."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    x = layers.Conv2D(10, 3, name="stem")(x)
    x = x * (layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0))
    attention = layers.Conv2D(1, 1, activation="sigmoid", name="attention")(x)
    y = x * attention - x[:, :1] / 2.0
    y = y * np.linspace(0.5, 1.5, 4, dtype="float32").reshape((1, 4, 1))
    y = layers.Conv2D(6, 3, name="last")(y[:, :, ::-1])
    return _built(flavor, inputs, layers.Dense(4, name="logits")(y[:, 0, 1]))


def reshapes(flavor):
    """Channels moved about: to a vector per pixel, to the front, between other axes."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    x = layers.Conv2D(6, 3, padding="same", name="stem")(x)
    y = layers.Dense(5, activation="relu", name="pixels")(layers.Reshape((36, 6))(x))
    y = layers.Permute((2, 1))(y)
    y = layers.Permute((2, 1))(layers.Activation("relu")(y))
    y = layers.Concatenate(axis=1)([y, layers.Dense(5, name="more")(layers.Reshape((-1, 6))(x))])
    y = layers.Reshape((9, 8 * 5))(y)
    return _built(flavor, inputs, layers.Dense(4, name="logits")(y))


def zero_shortcuts(flavor):
    """Residual blocks whose shortcuts are every other pixel and channels of zeros."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    for index, zeros in enumerate([(1, 3), (0, 4)]):
        filters = x.shape[-1] + sum(zeros)
        y = layers.Conv2D(filters, 3, 2, "same", activation="relu", name=f"inner_{index}")(x)
        y = layers.Conv2D(filters, 3, padding="same", name=f"last_{index}")(y)
        x = layers.ReLU()(layers.Add()([pad_channels(flavor, x[:, ::2, ::2], zeros), y]))
    y = layers.GlobalAveragePooling2D()(x)
    return _built(flavor, inputs, layers.Dense(4, name="logits")(y))


def pad_channels(flavor, x, zeros):
    """Zeros before and behind an image's channels."""
    pad = flavor.keras.ops.pad if flavor is KERAS else tf.pad
    return pad(x, ((0, 0), (0, 0), (0, 0), zeros))


def operations(flavor):
    """What both Keras have as operations: padded, pooled, resized, with axes exchanged."""
    layers, is_keras = flavor.layers, flavor is KERAS
    ops = flavor.keras.ops if is_keras else tf
    x = inputs = _image(flavor)
    x = layers.Conv2D(6, 3, padding="same", name="stem")(x)
    x = ops.pad(x, ((0, 0), (1, 1), (0, 2), (0, 0)))
    # As TensorFlow's arguments may come, too.
    x = x if is_keras else tf.reshape(shape=(-1, 8, 8, 6), tensor=x)
    if is_keras:
        x = ops.average_pool(ops.max_pool(x, 2), 2, strides=1)
        x = ops.swapaxes(ops.image.resize(x, (6, 9)), 1, 2)
    else:
        x = tf.nn.avg_pool2d(tf.nn.max_pool2d(x, 2, 2, "VALID"), 2, 1, "VALID")
        x = tf.transpose(tf.image.resize(x, (6, 9)), (0, 2, 1, 3))
    x = ops.reshape(x, (-1, 54, 6))
    return _built(flavor, inputs, layers.Dense(4, name="logits")(layers.Flatten()(x)))


def partial_blocks(flavor):
    """Blocks that compute with some of the channels, as CSPNet's and Res2Net's do."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    y = layers.Conv2D(5, 3, padding="same", activation="relu", name="part")(x[..., 3:])
    x = layers.Concatenate()([x[..., :3], layers.Add()([y, x[..., -5:]])])
    split = flavor.keras.ops.split if flavor is KERAS else tf.split
    first, second, *others = split(x, 4, axis=-1)
    second = layers.Conv2D(2, 3, padding="same", name="second")(layers.Add()([first, second]))
    _, lower = split(layers.Concatenate()([first, second, *others]), 2, axis=1)
    y = layers.GlobalAveragePooling2D()(lower[:, :, 1:, 1:])
    return _built(flavor, inputs, layers.Dense(4, name="logits")(y))


# Networks that keep their function at every multiplier >= 1.
REPLICABLE = (
    residual,
    dense_connections,
    squeeze_excite,
    grouped,
    depth_multipliers,
    decoder,
    sequence,
    einsum,
    shared,
    nested,
    operators,
    reshapes,
    zero_shortcuts,
    operations,
    partial_blocks,
)


def normalized(flavor):
    """Statistics over the channels: exact only with equally many copies of each."""
    layers = flavor.layers
    x = inputs = _image(flavor)
    x = layers.Conv2D(8, 3, name="stem")(x)
    x = layers.LayerNormalization()(x)
    x = layers.Conv2D(12, 1, name="next")(x)
    x = layers.GroupNormalization(groups=3)(x)
    x = layers.LayerNormalization(axis=[1, 2])(x)
    return _built(flavor, inputs, layers.Conv2D(4, 1, name="logits")(x))
