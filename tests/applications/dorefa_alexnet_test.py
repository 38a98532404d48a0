"""The DoReFa AlexNet without groups: counts, shapes, order of its layers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wrpn_tf import applications

# side and channels of the input, kernel size, filters, side of the output
_CONVOLUTIONS = (
    ("conv0", 3, 12, 96, 54),
    ("conv1", 96, 5, 256, 54),
    ("conv2", 256, 3, 384, 27),
    ("conv3", 384, 3, 384, 14),
    ("conv4", 384, 3, 256, 14),
)
_DENSE = (("fc0", 6 * 6 * 256, 4096), ("fc1", 4096, 4096), ("predictions", 4096, 1000))


def test_shapes_macs_and_parameters_at_224():
    model = applications.AlexNet()
    macs = parameters = 0
    for name, channels, kernel_size, filters, side in _CONVOLUTIONS:
        layer = model.get_layer(name)
        assert tuple(layer.kernel.shape) == (kernel_size, kernel_size, channels, filters)
        assert tuple(layer.output.shape) == (None, side, side, filters)
        assert not layer.use_bias
        macs += side * side * kernel_size * kernel_size * channels * filters
        parameters += kernel_size * kernel_size * channels * filters
    assert round(parameters / 1e6, 3) == 3.752  # the convolutions of the paper's Figure 1
    for name, inputs, units in _DENSE:
        assert tuple(model.get_layer(name).kernel.shape) == (inputs, units)
        assert model.get_layer(name).use_bias == (name == "predictions")
        macs += inputs * units
        parameters += inputs * units
    assert round(macs / 1e6, 1) == 3049.6  # the figure behind the paper's Table 3
    norms = 4 * (256 + 384 + 384 + 256 + 4096 + 4096)
    assert model.count_params() == parameters + norms + 1000


def test_twice_the_width_costs_what_the_paper_says():
    """All layers twice as wide, the image and the classes as they are: 3.918 times the MACs."""
    macs = {name: side**2 * size**2 * c * f for name, c, size, f, side in _CONVOLUTIONS}
    macs.update({name: inputs * units for name, inputs, units in _DENSE})
    ends = macs["conv0"] + macs["predictions"]
    wide = 2 * ends + 4 * (sum(macs.values()) - ends)
    assert round(wide / sum(macs.values()), 3) == 3.918


def test_layers_stand_in_the_documented_order(flavor):
    model = applications.AlexNet(input_shape=(44, 44, 3), classes=2, keras_flavor=flavor.name)
    order = "image conv0 relu0 conv1 bn1 relu1 pool1 conv2 bn2 relu2 pool2 conv3 bn3 relu3 "
    order += "conv4 bn4 relu4 pool4 flatten fc0 bn_fc0 relu_fc0 fc1 bn_fc1 relu_fc1 predictions"
    assert [layer.name for layer in model.layers] == order.split()
    assert tuple(model.get_layer("pool4").output.shape) == (None, 1, 1, 256)
    probabilities = np.array(model(np.ones((2, 44, 44, 3), "float32")))
    assert probabilities.shape == (2, 2)
    # float32 sum of two probabilities
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1.0, rtol=1e-5)


def test_too_small_an_input_is_refused():
    with pytest.raises(ValueError, match=re.escape("width >= 44, got (44, 43, 3)")):
        applications.AlexNet(input_shape=(44, 43, 3))


def test_unknown_sizes_are_refused_with_the_dense_layers():
    with pytest.raises(ValueError, match="`input_shape` must be fixed with include_top=True"):
        applications.AlexNet(input_shape=(None, None, 3))


def test_without_top_any_size_fits():
    model = applications.AlexNet(include_top=False, input_shape=(None, None, 3), pooling="avg")
    assert tuple(model.output.shape) == (None, 256)
