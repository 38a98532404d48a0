"""Networks of the applications and of other topologies, exported: exact on every kernel.

They are not trained: batch norms get random gains and offsets and the statistics of random images,
so that all layers have the ranges of a network that works.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from tflite_export import convert, interpreters, snap, verify
from wrpn_tf.keras_flavor import KERAS, get_flavor, keras_class
from wrpn_tf.quantization import inner_layer

NUM_IMAGES = 16
# The largest move of a tensor's scale. Sums and means move by some 0.1 %; a signed head by 2 %.
LARGEST_MOVE = 0.05
# The reference kernels take seconds for an image of the larger networks.
FAST = ("LiteRT opt", "LiteRT xnn", "tf.lite xnn")


def settled(flavor, net, images, **arguments):
    """The network quantized, with random norms and statistics and ranges of the images."""
    generator = np.random.default_rng(0)
    for norm in norms(net):
        size = norm.moving_mean.shape[0]
        if norm.gamma is not None:
            norm.gamma.assign(generator.uniform(0.5, 1.5, size).astype(np.float32))
        norm.beta.assign(generator.normal(0, 0.3, size).astype(np.float32))
    model = wrpn_tf.quantize_model(net, **arguments)
    for norm in norms(model):
        norm.momentum = 0.0
    model(images, training=True)
    wrpn_tf.calibrate(model, images)
    return model


def norms(model):
    layers = [inner_layer(layer) for layer in model.layers]
    return [layer for layer in layers if keras_class(layer) == "BatchNormalization"]


def check_exact(flavor_name, build, bits, storage, runtimes=None):
    flavor = get_flavor(flavor_name)
    flavor.keras.utils.set_random_seed(0)
    net = build(flavor)
    shape = (NUM_IMAGES, *net.input_shape[1:])
    images = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    model = settled(flavor, net, images, num_bits_weight=bits[0], num_bits_activation=bits[1])
    snapped, moves = snap(model, storage)
    assert moves.exact, str(moves)
    assert max(abs(move) for move in moves.tensors.values()) < LARGEST_MOVE
    blob = convert(snapped, storage, snap_first=False)
    chosen = [r for r in interpreters.available() if runtimes is None or r.name in runtimes]
    report = verify(snapped, blob, images[:1], storage=storage, runtimes=chosen, verbose=False)
    assert report.exact, str(report)
    assert all(proof.holds for proof in report.proofs)
    if runtimes is not None:
        assert set(runtimes) <= set(report.sources)


def application(name, size, **arguments):
    """A network of `keras.applications`, for small images."""

    def build(flavor):
        make = getattr(flavor.keras.applications, name)
        shape = (size, size, 3)
        return make(input_shape=shape, weights=None, classes=10, **arguments)

    return build


def own(name, **arguments):
    """A network of `wrpn_tf.applications`."""

    def build(flavor):
        make = getattr(wrpn_tf.applications, name)
        return make(weights=None, keras_flavor=flavor.name, **arguments)

    return build


def first_modules(name, last):
    """The first modules of an Inception; the others only take longer."""

    def build(flavor):
        net = application(name, 75)(flavor)
        x = flavor.layers.GlobalAveragePooling2D()(net.get_layer(last).output)
        return flavor.keras.Model(net.input, flavor.layers.Dense(10)(x))

    return build


NETWORKS = {
    "ResNet20": own("ResNet20"),
    "AlexNet": own("AlexNet", input_shape=(67, 67, 3), classes=10),
    "PreActResNet34": own("PreActResNet34", input_shape=(32, 32, 3), classes=10),
    "MobileNetV2": application("MobileNetV2", 32, alpha=0.35),
    "DenseNet121": application("DenseNet121", 32),
    "InceptionV3": first_modules("InceptionV3", "mixed1"),
    "InceptionResNetV2": first_modules("InceptionResNetV2", "block35_2_ac"),
    "MobileNetV3Small": application("MobileNetV3Small", 32, include_preprocessing=False),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flavor_name", "network", "bits", "storage"),
    [
        ("keras", "ResNet20", (2, 8), "int8"),
        ("tf_keras", "ResNet20", (4, 4), "int2"),
        ("keras", "AlexNet", (4, 4), "int8"),
        ("keras", "PreActResNet34", (2, 8), "int4"),
        ("tf_keras", "MobileNetV2", (2, 8), "int2"),
        ("keras", "DenseNet121", (2, 4), "int8"),
        ("keras", "InceptionV3", (2, 8), "int8"),
        ("keras", "InceptionResNetV2", (2, 8), "int8"),
        ("tf_keras", "MobileNetV3Small", (2, 8), "int8"),
    ],
)
def test_applications_are_exact(flavor_name, network, bits, storage):
    check_exact(flavor_name, NETWORKS[network], bits, storage, runtimes=FAST)


def image(flavor, size=8):
    return flavor.keras.Input((size, size, 3))


def conv_norm_relu(flavor, x, filters, size=3, limit=None, **arguments):
    L = flavor.layers
    x = L.Conv2D(filters, size, padding="same", use_bias=False, **arguments)(x)
    return L.ReLU(limit)(L.BatchNormalization()(x))


def decoder(flavor):
    """Down and up again; the output is an image."""
    L = flavor.layers
    inputs = image(flavor)
    x = conv_norm_relu(flavor, inputs, 8, strides=2)
    x = L.Conv2DTranspose(6, 3, strides=2, padding="same", use_bias=False)(x)
    x = L.ReLU()(L.BatchNormalization()(x))
    return flavor.keras.Model(inputs, L.Conv2DTranspose(2, 2, strides=2)(x))


def super_resolution(flavor):
    """Slopes of both signs, one of all channels; the output is a larger image."""
    L = flavor.layers
    inputs = image(flavor)
    x = L.PReLU("random_normal", shared_axes=[1, 2])(L.Conv2D(8, 5, padding="same")(inputs))
    x = L.BatchNormalization()(L.Conv2D(4, 1, use_bias=False)(x))
    one = flavor.keras.initializers.Constant(0.25)
    x = L.PReLU(one, shared_axes=[1, 2, 3])(x)
    x = L.PReLU("random_normal", shared_axes=[1, 2])(L.DepthwiseConv2D(3, padding="same")(x))
    return flavor.keras.Model(inputs, L.Conv2DTranspose(3, 4, strides=2, padding="same")(x))


def separable(flavor):
    """A separable convolution between ReLU6, means of windows, and a softmax."""
    L = flavor.layers
    inputs = image(flavor)
    x = conv_norm_relu(flavor, inputs, 8, limit=6.0)
    x = L.SeparableConv2D(12, 3, padding="same", use_bias=False)(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.Flatten()(L.AveragePooling2D(2)(x))
    return flavor.keras.Model(inputs, L.Dense(5, activation="softmax")(x))


def inception(flavor):
    """Five branches, joined; norms without gains; two outputs."""
    L = flavor.layers
    inputs = image(flavor)
    x = L.BatchNormalization(scale=False)(L.Conv2D(8, 3, use_bias=False)(inputs))
    x = L.ReLU()(x)
    branches = [
        conv_norm_relu(flavor, x, 4, 1),
        conv_norm_relu(flavor, conv_norm_relu(flavor, x, 4, 1), 6),
        conv_norm_relu(flavor, L.MaxPooling2D(3, 1, padding="same")(x), 4, 1),
        conv_norm_relu(flavor, L.AveragePooling2D(3, 1)(L.ZeroPadding2D(1)(x)), 4, 1),
        conv_norm_relu(flavor, L.AveragePooling2D(3, 1, padding="same")(x), 4, 1),
    ]
    x = L.GlobalAveragePooling2D()(L.AveragePooling2D(2)(L.Concatenate()(branches)))
    return flavor.keras.Model(
        inputs, [L.Dense(3, name="first")(x), L.Dense(4, activation="softmax", name="second")(x)]
    )


def u_net(flavor):
    """What a pooled image shows, sampled up, joined with the middle of the image; masks."""
    L = flavor.layers
    inputs = image(flavor)
    skip = conv_norm_relu(flavor, inputs, 8)
    x = conv_norm_relu(flavor, L.MaxPooling2D()(skip), 12)
    x = conv_norm_relu(flavor, L.Cropping2D(1)(L.UpSampling2D()(x)), 8)
    x = conv_norm_relu(flavor, L.Concatenate()([L.Cropping2D(1)(skip), x]), 8)
    return flavor.keras.Model(inputs, L.Conv2D(2, 1, activation="sigmoid")(x))


def sequence(flavor):
    """Every layer of sequences, down and up again."""
    L = flavor.layers
    inputs = flavor.keras.Input((24, 3))
    x = L.Conv1D(8, 5, padding="causal", dilation_rate=2, activation="relu")(inputs)
    x = L.Conv1D(8, 3, strides=2, padding="same", groups=2, use_bias=False)(x)
    x = L.MaxPooling1D(2, 1)(L.ReLU()(L.BatchNormalization()(x)))
    x = L.Cropping1D((1, 0))(L.ZeroPadding1D((2, 1))(x))
    x = L.SeparableConv1D(12, 3, padding="same", use_bias=False)(x)
    x = L.AveragePooling1D(2)(L.ReLU()(L.BatchNormalization()(x)))
    x = L.AveragePooling1D(3, 2, padding="same")(x)
    x = L.Conv1DTranspose(6, 3, strides=2, padding="same", activation="relu")(x)
    x = L.DepthwiseConv1D(3, activation="relu")(L.UpSampling1D(3)(x))
    parts = [L.GlobalAveragePooling1D()(x), L.GlobalMaxPooling1D()(x)]
    return flavor.keras.Model(inputs, L.Dense(5)(L.Concatenate()(parts)))


def squeezed(flavor):
    """Inverted bottlenecks whose channels are weighed by two kinds of gates; smooth activations."""
    L = flavor.layers
    inputs = image(flavor)
    x = L.Activation("swish")(L.BatchNormalization()(L.Conv2D(8, 3, use_bias=False)(inputs)))
    gate = L.Conv2D(4, 1, activation="relu")(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.Multiply()([x, L.Conv2D(8, 1, activation="sigmoid")(gate)])
    x = L.LeakyReLU(0.1)(L.BatchNormalization()(L.DepthwiseConv2D(3, use_bias=False)(x)))
    gate = L.Conv2D(8, 1)(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = x * (L.ReLU(6.0)(gate + 3.0) * (1 / 6))
    return flavor.keras.Model(inputs, L.Dense(5)(L.GlobalAveragePooling2D()(x)))


def zero_shortcuts(flavor):
    """The residual network of the papers, whose shortcuts are pixels left out and zeros."""
    return own("ResNet8", input_shape=(8, 8, 3), shortcut="zero_padding")(flavor)


def sparse_windows(flavor):
    """Windows that leave out pixels between them, and some of the edge; a head of its own range."""
    L = flavor.layers
    inputs = flavor.keras.Input((17, 18, 3))
    x = L.Conv2D(6, (2, 3), strides=(3, 2), padding="same", activation="relu")(inputs)
    x = L.DepthwiseConv2D(2, strides=3, padding="same", use_bias=False)(x)
    x = L.ReLU()(L.BatchNormalization()(x))
    y = L.Conv2D(4, (3, 1), strides=4, padding="same", activation="relu")(inputs)
    z = L.Conv2D(4, 1, strides=5, padding="same", activation="relu")(inputs)
    sequence = L.Conv1D(4, 3, strides=5, padding="same")(L.Reshape((102, 9))(inputs))
    means = [L.GlobalAveragePooling2D()(part) for part in (x, y, z)]
    parts = [*means, L.GlobalAveragePooling1D()(sequence)]
    outputs = L.Dense(5, activation="hard_sigmoid")(L.Concatenate()(parts))
    return flavor.keras.Model(inputs, outputs)


def larger_image(flavor):
    """Operations of either Keras: pixels become channels, means a gate, channels pixels again."""
    L, is_keras = flavor.layers, flavor is KERAS
    inputs = image(flavor)
    pixels = [inputs[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    x = flavor.keras.ops.concatenate(pixels, axis=-1) if is_keras else tf.concat(pixels, -1)
    x = conv_norm_relu(flavor, x, 8)
    zeros = ((0, 0), (1, 0), (0, 0), (1, 3))
    if is_keras:
        ops = flavor.keras.ops
        gate = ops.mean(x, axis=(1, 2), keepdims=True)
        x = ops.pad(ops.max_pool(x, 2, strides=1, padding="same"), zeros)[:, 1:, :, 1:9]
    else:
        gate = tf.reduce_mean(x, (1, 2), keepdims=True)
        x = tf.pad(tf.nn.max_pool2d(x, 2, 1, "SAME"), zeros)[:, 1:, :, 1:9]
    x = conv_norm_relu(flavor, x * L.Conv2D(8, 1, activation="sigmoid")(gate), 12)
    x = L.Conv2D(12, 1)(x)
    up = flavor.keras.ops.depth_to_space if is_keras else tf.nn.depth_to_space
    return flavor.keras.Model(inputs, up(x, 2))


def denoiser(flavor):
    """Two estimates of noise; the larger, and no less than a third, is taken from the image."""
    L = flavor.layers
    inputs = image(flavor)
    x = conv_norm_relu(flavor, inputs, 8)
    noise = L.Maximum()([L.Conv2D(3, 3, padding="same")(x), L.Conv2D(3, 1)(x)])
    noise = L.Minimum()([noise, L.Conv2D(3, 3, padding="same", activation="relu")(x), inputs])
    return flavor.keras.Model(inputs, L.Subtract()([inputs, noise]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        *(decoder, super_resolution, separable, inception, u_net, sequence, squeezed),
        *(zero_shortcuts, sparse_windows, larger_image, denoiser),
    ],
)
@pytest.mark.parametrize(
    ("flavor_name", "bits", "storage"),
    [("keras", (2, 8), "int8"), ("keras", (3, 3), "int4"), ("tf_keras", (4, 8), "int2")],
)
def test_topologies_are_exact(flavor_name, build, bits, storage):
    check_exact(flavor_name, build, bits, storage)


def mean_of_many(flavor):
    """A mean of 9 x 9 pixels, of channels that 4 does not divide."""
    L = flavor.layers
    inputs = image(flavor, size=9)
    x = L.GlobalAveragePooling2D()(conv_norm_relu(flavor, inputs, 6))
    return flavor.keras.Model(inputs, L.Dense(5)(x))


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["int8", "int4", "int2", "tflm"])
def test_means_of_whole_images_are_exact(storage):
    check_exact("keras", mean_of_many, (2, 8), storage)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "window", "strides", "bits"),
    [
        ((7, 9), 3, 1, (2, 8)),
        ((7, 9), 3, 1, (2, 2)),
        ((8, 7), 3, 2, (4, 4)),
        ((5, 6), 2, 1, (2, 8)),
        ((9, 4), 5, 2, (2, 8)),
        ((7, 5), 2, 2, (2, 8)),  # whole windows, and what they leave over
        ((2, 3), 5, 1, (2, 8)),  # none is whole
        ((7, 6), (3, 1), 1, (2, 8)),
    ],
)
def test_means_that_leave_padding_out_are_exact(size, window, strides, bits):
    def build(flavor):
        L = flavor.layers
        inputs = flavor.keras.Input((*size, 3))
        x = L.AveragePooling2D(window, strides, "same")(conv_norm_relu(flavor, inputs, 8))
        return flavor.keras.Model(inputs, L.Dense(5)(L.Flatten()(conv_norm_relu(flavor, x, 4, 1))))

    check_exact("keras", build, bits, "int8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flavor_name", "size", "bits"),
    [
        ("keras", 2, (2, 8)),
        ("keras", 2, (2, 2)),
        ("tf_keras", 2, (4, 4)),
        ("keras", 3, (2, 8)),
        ("keras", 4, (2, 8)),
        ("keras", (1, 2), (2, 8)),
        ("keras", (5, 1), (2, 8)),
    ],
)
def test_bilinear_upsampling_is_exact(flavor_name, size, bits):
    def build(flavor):
        L = flavor.layers
        inputs = flavor.keras.Input((4, 5, 3))
        x = L.UpSampling2D(size, interpolation="bilinear")(conv_norm_relu(flavor, inputs, 8))
        return flavor.keras.Model(inputs, L.Dense(5)(L.Flatten()(conv_norm_relu(flavor, x, 4, 1))))

    check_exact(flavor_name, build, bits, "int8")
