"""Depths, counts and shapes of the CIFAR ResNets, and what they refuse."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wrpn_tf import applications, widen_model


def convolutions(model):
    return [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]


def layers_on_longest_path(model):
    """Convolutions and dense layers, without the projections beside the path."""
    weighted = [x.name for x in model.layers if type(x).__name__ in ("Conv2D", "Dense")]
    return len([name for name in weighted if not name.endswith("_shortcut")])


def layer_macs(layer):
    """Multiply-accumulates of one Conv2D or Dense layer from its output and kernel shapes."""
    kernel = tuple(layer.kernel.shape)
    if len(kernel) == 2:
        return kernel[0] * kernel[1]
    height, width = layer.output.shape[1:3]
    return height * width * int(np.prod(kernel))


def macs(model):
    return sum(
        layer_macs(layer) for layer in model.layers if type(layer).__name__ in ("Conv2D", "Dense")
    )


def basic_macs(n):
    """6n + 2 layers at 32x32x3 with 10 classes, written out."""
    stem = 32 * 32 * 3 * 3 * 3 * 16
    stage1 = 2 * n * 32 * 32 * 3 * 3 * 16 * 16
    stage2 = 16 * 16 * (3 * 3 * 16 * 32 + 16 * 32 + (2 * n - 1) * 3 * 3 * 32 * 32)
    stage3 = 8 * 8 * (3 * 3 * 32 * 64 + 32 * 64 + (2 * n - 1) * 3 * 3 * 64 * 64)
    return stem + stage1 + stage2 + stage3 + 64 * 10


def basic_parameters(n):
    """Kernels, four numbers per BatchNormalization channel, and the classifier's bias."""
    stem = 3 * 3 * 3 * 16
    stage1 = 2 * n * 3 * 3 * 16 * 16
    stage2 = 3 * 3 * 16 * 32 + 16 * 32 + (2 * n - 1) * 3 * 3 * 32 * 32
    stage3 = 3 * 3 * 32 * 64 + 32 * 64 + (2 * n - 1) * 3 * 3 * 64 * 64
    norms = 4 * (16 + 2 * n * 16 + (2 * n + 1) * 32 + (2 * n + 1) * 64)
    return stem + stage1 + stage2 + stage3 + norms + 64 * 10 + 10


@pytest.mark.parametrize(
    ("build", "depth", "n"),
    [
        (applications.ResNet8, 8, 1),
        (applications.ResNet14, 14, 2),
        (applications.ResNet20, 20, 3),
        (applications.ResNet32, 32, 5),
        (applications.ResNet44, 44, 7),
        (applications.ResNet56, 56, 9),
    ],
)
def test_basic_networks_have_the_depth_macs_and_parameters_of_the_formula(build, depth, n):
    model = build()
    assert model.name == f"resnet{depth}"
    assert layers_on_longest_path(model) == depth == 6 * n + 2
    assert len(convolutions(model)) == 1 + 6 * n + 2
    assert macs(model) == basic_macs(n)
    assert model.count_params() == basic_parameters(n)


def test_resnet101_has_101_layers_of_eleven_bottlenecks_per_stage():
    model = applications.ResNet101()
    assert layers_on_longest_path(model) == 101 == 9 * 11 + 2
    assert len(convolutions(model)) == 1 + 3 * 3 * 11 + 3
    expected = 32 * 32 * 3 * 3 * 3 * 16 + 256 * 10
    for side, filters, entering in ((32, 16, 16), (16, 32, 64), (8, 64, 128)):
        wide = 4 * filters
        # The stride stands in the 3x3: the first 1x1 still sees the larger map.
        first_side = side if filters == 16 else 2 * side
        expected += first_side**2 * entering * filters + side**2 * entering * wide
        expected += 10 * side**2 * wide * filters
        expected += 11 * side**2 * (3 * 3 * filters * filters + filters * wide)
    assert macs(model) == expected


def test_names_are_stable_and_unique(flavor):
    model = applications.ResNet8(keras_flavor=flavor.name)
    assert [layer.name for layer in model.layers][:5] == [
        "image",
        "stem_conv",
        "stem_bn",
        "stem_relu",
        "stage1_block0_conv1",
    ]
    names = {layer.name for layer in model.layers}
    assert len(names) == len(model.layers)
    assert {"stage2_block0_shortcut", "stage2_block0_shortcut_bn", "stage3_block0_add"} <= names
    assert {"avg_pool", "predictions"} <= names
    assert not any("/" in name for name in names)


def test_shortcuts_project_only_where_the_width_changes():
    names = [x.name for x in applications.ResNet20().layers if x.name.endswith("_shortcut")]
    assert names == ["stage2_block0_shortcut", "stage3_block0_shortcut"]


def test_shortcuts_of_zeros_have_no_weights():
    net = applications.ResNet20(shortcut="zero_padding")
    assert len(convolutions(net)) == 19
    projections = 16 * 32 + 32 * 64 + 4 * (32 + 64)
    assert net.count_params() == basic_parameters(3) - projections
    assert macs(net) == basic_macs(3) - 2 * 64 * 2048
    bottlenecks = applications.CIFARResNet(11, block="bottleneck", shortcut="zero_padding")
    assert len(convolutions(bottlenecks)) == 10


def test_shortcuts_of_zeros_are_every_other_pixel_between_zeros(flavor):
    net = applications.ResNet8(shortcut="zero_padding", keras_flavor=flavor.name)
    names = ("stage1_block0_relu2", "stage2_block0_shortcut_zeros")
    outputs = [net.get_layer(name).output for name in names]
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    read, shortcut = flavor.keras.Model(net.input, outputs).predict(image, verbose=0)
    assert np.ptp(read) > 0
    expected = np.pad(read[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (8, 8)))
    np.testing.assert_array_equal(shortcut, expected)


def test_shortcuts_of_zeros_are_widened(flavor):
    net = applications.ResNet8(shortcut="zero_padding", keras_flavor=flavor.name)
    wide = widen_model(net, preserve_function=True)
    assert [layer.filters for layer in convolutions(wide)] == [
        2 * layer.filters for layer in convolutions(net)
    ]
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    expected, got = np.asarray(net(image)), np.asarray(wide(image))
    np.testing.assert_allclose(got, expected, atol=1e-5)  # as `widen_model` says


def test_grayscale_digits_and_any_size_fit(flavor):
    digits = applications.ResNet8(input_shape=(8, 8, 1), classes=7, keras_flavor=flavor.name)
    assert tuple(digits.output.shape) == (None, 7)
    free = applications.ResNet8(input_shape=(None, None, 3), keras_flavor=flavor.name)
    assert tuple(free(np.zeros((2, 12, 20, 3), "float32")).shape) == (2, 10)


@pytest.mark.parametrize(("pooling", "shape"), [(None, (None, 8, 8, 64)), ("avg", (None, 64))])
def test_without_top_the_features_come_out(pooling, shape):
    model = applications.ResNet8(include_top=False, pooling=pooling)
    assert tuple(model.output.shape) == shape
    assert "predictions" not in {layer.name for layer in model.layers}


def test_max_pooling_without_top():
    model = applications.ResNet8(include_top=False, pooling="max")
    assert tuple(model.output.shape) == (None, 64)


def test_classifier_activation_chooses_between_probabilities_and_logits(flavor):
    images = np.random.default_rng(0).random((3, 16, 16, 3), dtype="float32")
    options = {"input_shape": (16, 16, 3), "keras_flavor": flavor.name}
    softmax = applications.ResNet8(**options)
    # float32 sums of ten probabilities
    np.testing.assert_allclose(np.sum(softmax(images), axis=-1), 1.0, rtol=1e-5)
    logits = applications.ResNet8(classifier_activation=None, **options)
    logits.set_weights(softmax.get_weights())
    exponents = np.exp(np.array(logits(images)))
    expected = exponents / exponents.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(np.array(softmax(images)), expected, rtol=1e-4)


def test_weights_file_restores_the_outputs(flavor, tmp_path):
    options = {"input_shape": (8, 8, 1), "keras_flavor": flavor.name}
    model = applications.ResNet8(**options)
    path = tmp_path / "resnet8.weights.h5"
    model.save_weights(str(path))
    images = np.random.default_rng(0).random((2, 8, 8, 1), dtype="float32")
    loaded = applications.ResNet8(weights=path, **options)
    np.testing.assert_array_equal(np.array(loaded(images)), np.array(model(images)))


def test_a_file_without_weights_is_refused(flavor, tmp_path):
    path = tmp_path / "text.weights.h5"
    path.write_text("no weights")
    with pytest.raises(ValueError, match="`weights` must be a file written by `save_weights`"):
        applications.ResNet8(weights=path, keras_flavor=flavor.name)


def test_weights_of_another_network_are_refused(flavor, tmp_path):
    path = str(tmp_path / "three.weights.h5")
    applications.ResNet8(classes=3, keras_flavor=flavor.name).save_weights(path)
    with pytest.raises(ValueError, match="of the same network, 'resnet8'"):
        applications.ResNet8(weights=path, keras_flavor=flavor.name)


@pytest.mark.parametrize("depth", [0, 2, 5, 18, 101, -4])
def test_depths_that_are_not_6n_plus_2_are_refused(depth):
    with pytest.raises(ValueError, match=rf"`depth` must be 6n \+ 2 .*got {depth}\."):
        applications.CIFARResNet(depth)


def test_depths_that_are_not_9n_plus_2_are_refused_for_bottlenecks():
    with pytest.raises(ValueError, match=r"`depth` must be 9n \+ 2 .*got 32\."):
        applications.CIFARResNet(32, block="bottleneck")


@pytest.mark.parametrize("depth", [True, 20.0, "20"])
def test_depths_that_are_no_integers_are_refused(depth):
    with pytest.raises(TypeError, match="`depth` must be an integer"):
        applications.CIFARResNet(depth)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"block": "dense"}, ValueError, '`block` must be "basic" or "bottleneck", got \'dense\'.'),
        (
            {"shortcut": "A"},
            ValueError,
            '`shortcut` must be "projection" or "zero_padding", got \'A\'.',
        ),
        ({"classes": 0}, ValueError, "`classes` must be >= 1, got 0."),
        ({"classes": 2.0}, TypeError, "`classes` must be an integer, got 2.0."),
        ({"classes": True}, TypeError, "`classes` must be an integer, got True."),
        ({"input_shape": (3, 8, 3)}, ValueError, "height >= 4, got (3, 8, 3)"),
        ({"input_shape": (8, 2, 3)}, ValueError, "width >= 4, got (8, 2, 3)"),
        ({"input_shape": (8, 8, 0)}, ValueError, "channels >= 1, got (8, 8, 0)"),
        ({"input_shape": (8, 8, None)}, TypeError, "got channels None"),
        ({"input_shape": (8.0, 8, 3)}, TypeError, "got height 8.0"),
        ({"input_shape": (32, 32)}, ValueError, "must be (height, width, channels), got (32, 32)"),
        ({"pooling": "sum"}, ValueError, '`pooling` must be None, "avg" or "max", got \'sum\'.'),
        ({"weights": "imagenet"}, ValueError, "got 'imagenet', which is no file"),
        ({"weights": 3}, TypeError, "`weights` must be None or a path, got 3."),
        (
            {"keras_flavor": "torch"},
            ValueError,
            '`keras_flavor` must be "keras" or "tf_keras", got \'torch\'.',
        ),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        applications.CIFARResNet(8, **options)
