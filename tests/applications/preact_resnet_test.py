"""The pre-activation ResNet-34: counts, order of its layers, both flavors."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wrpn_tf import applications

_STAGES = ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3))


def expected_macs():
    total = 112 * 112 * 7 * 7 * 3 * 64 + 512 * 1000
    entering = 64
    for side, filters, blocks in _STAGES:
        total += side**2 * 3 * 3 * (entering * filters + (2 * blocks - 1) * filters * filters)
        if entering != filters:
            total += side**2 * entering * filters
        entering = filters
    return total


def expected_parameters():
    kernels = 7 * 7 * 3 * 64
    norms = 64 + 512  # the stem's and the last
    entering = 64
    for _, filters, blocks in _STAGES:
        kernels += 3 * 3 * (entering * filters + (2 * blocks - 1) * filters * filters)
        norms += (2 * blocks - 1) * filters
        if entering != filters:
            kernels += entering * filters
            norms += entering
        entering = filters
    # The first block has no BatchNormalization before its first convolution, the stem's serves.
    return kernels + 4 * norms + 512 * 1000 + 1000


def test_macs_and_parameters_at_224():
    model = applications.PreActResNet34()
    total = 0
    for layer in model.layers:
        if type(layer).__name__ == "Conv2D":
            total += int(np.prod(layer.output.shape[1:3])) * int(np.prod(layer.kernel.shape))
    total += 512 * 1000
    assert total == expected_macs()
    assert round(total / 1e9, 3) == 3.664  # the figure behind the paper's Table 4
    assert model.count_params() == expected_parameters()
    weighted = [x.name for x in model.layers if type(x).__name__ in ("Conv2D", "Dense")]
    assert len([x for x in weighted if not x.endswith("_shortcut")]) == 34
    assert len([x for x in weighted if x.endswith("_shortcut")]) == 3


def test_projections_take_the_activated_input_and_identities_the_sum():
    model = applications.PreActResNet34(input_shape=(32, 32, 3), classes=2)

    def inputs_of(name):
        layer = model.get_layer(name)
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        return [tensor._keras_history[0].name for tensor in inputs]

    assert inputs_of("stage1_block0_conv1") == ["stem_pool"]
    assert inputs_of("stage1_block0_add") == ["stem_pool", "stage1_block0_conv2"]
    assert inputs_of("stage1_block1_add") == ["stage1_block0_add", "stage1_block1_conv2"]
    assert inputs_of("stage2_block0_bn1") == ["stage1_block2_add"]
    assert inputs_of("stage2_block0_shortcut") == ["stage2_block0_relu1"]
    assert inputs_of("stage2_block0_add") == ["stage2_block0_shortcut", "stage2_block0_conv2"]
    assert inputs_of("final_bn") == ["stage4_block2_add"]


def test_too_small_an_input_is_refused():
    with pytest.raises(ValueError, match=re.escape("height >= 32, got (31, 32, 3)")):
        applications.PreActResNet34(input_shape=(31, 32, 3))


def test_without_top_the_features_come_out():
    model = applications.PreActResNet34(include_top=False, input_shape=(64, 64, 1))
    assert tuple(model.output.shape) == (None, 2, 2, 512)
