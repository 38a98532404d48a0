"""Models of hardware, against arithmetic on uniform maps and on VGG-16."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wrpn_tf.accelerator import (
    ENERGY_MODELS,
    ConvolutionShape,
    SystolicArray,
    activation_costs,
)

VGG16 = [
    # Height and width, input and output channels of each convolution.
    (224, 3, 64),
    (224, 64, 64),
    (112, 64, 128),
    (112, 128, 128),
    (56, 128, 256),
    (56, 256, 256),
    (56, 256, 256),
    (28, 256, 512),
    (28, 512, 512),
    (28, 512, 512),
    (14, 512, 512),
    (14, 512, 512),
    (14, 512, 512),
]
VGG16_MACS = 15_346_630_656  # 15.3 G, as everywhere in print, without the dense layers


def test_a_map_of_zeros_costs_nothing():
    shape = ConvolutionShape(3, padding="same", input_channels=4, output_channels=20)
    costs = activation_costs(np.zeros((3, 5, 5), int), shape, array=SystolicArray())
    for name in ("bit_serial", "bit_serial_group"):
        assert costs[name].energy.tolist() == costs[name].relative_cycles.tolist() == [0, 0, 0]
    assert costs["fixed"].energy.tolist() == [0, 0, 0]
    assert costs["fixed"].relative_cycles.tolist() == [1, 1, 1]


def test_vgg16():
    array = SystolicArray()
    layers = [
        (size, ConvolutionShape(3, padding="same", input_channels=read, output_channels=made))
        for size, read, made in VGG16
    ]
    assert sum(shape.macs(size, size) for size, shape in layers) == VGG16_MACS
    totals = {}
    for size, shape in layers:
        bits = np.full((2, size, size), 8)
        bits[0, : size // 2] = 4
        for name, cost in activation_costs(bits, shape, array=array).items():
            totals[name] = totals[name] + cost if name in totals else cost
    for cost in totals.values():
        assert cost.full_bit_operations == 8 * VGG16_MACS
        assert cost.bit_operations[1] == 8 * VGG16_MACS
        assert cost.energy[1] == cost.relative_cycles[1] == 1
    # A convolution reads the upper and the lower half alike.
    assert totals["bit_serial"].energy[0] == 0.75
    assert totals["fixed"].cycles[0] == totals["fixed"].full_cycles
    assert 0.75 < totals["bit_serial_group"].energy[0] < 0.76
    assert 0.75 < totals["bit_serial_group"].relative_cycles[0] < 0.76


def test_costs_relative_to_fewer_full_bits():
    shape = ConvolutionShape(3, padding="same", input_channels=2, output_channels=9)
    bits = np.stack([np.full((6, 6), 4), np.full((6, 6), 2)])
    costs = activation_costs(bits, shape, array=SystolicArray(), full_bits=4, planes=3)
    for name in ENERGY_MODELS:
        assert costs[name].energy.tolist() == [1, 0.5]
    assert costs["bit_serial"].relative_cycles.tolist() == [1, 0.5]
    folds = 3 * math.ceil(36 / 8) * math.ceil(9 / 8)
    assert costs["bit_serial_group"].full_cycles == folds * (2 * 8 + 8 + 4 * 18 - 2)
    assert costs["bit_serial_group"].cycles.tolist() == [
        folds * (2 * 8 + 8 + 4 * 18 - 2),
        folds * (2 * 8 + 8 + 2 * 18 - 2),
    ]
    assert costs["fixed"].full_cycles == folds * (2 * 8 + 8 + 18 - 2)


def test_bits_beyond_the_full_ones_are_refused():
    with pytest.raises(ValueError, match="`bits` must be in 0..4, got 8..8"):
        activation_costs([[[8]]], ConvolutionShape(), array=SystolicArray(), full_bits=4)
