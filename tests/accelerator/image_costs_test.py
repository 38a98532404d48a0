"""Costs of images added up over layers and spread over images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wrpn_tf.accelerator import (
    ENERGY_MODELS,
    ConvolutionShape,
    ImageCosts,
    LayerCosts,
    SystolicArray,
    activation_costs,
    distribution,
    uniform_costs,
)

ARRAY = SystolicArray()
SHAPE = ConvolutionShape(3, padding="same", input_channels=2, output_channels=9)


@pytest.fixture
def costs() -> ImageCosts:
    """Two layers: one reads maps of 8, 4 and 0 bits, the other 4 bits everywhere."""
    maps = np.stack([np.full((6, 6), bits) for bits in (8, 0, 4)])
    read = activation_costs(maps, SHAPE, array=ARRAY)
    fixed = uniform_costs(3, (36, 1), ConvolutionShape(input_channels=9), array=ARRAY, full_bits=4)
    layers = (
        LayerCosts("quant_read", SHAPE.macs(6, 6), 8, (0, 4, 8), read),
        LayerCosts("fixed", 36 * 9, 4, None, fixed),
    )
    return ImageCosts("net", "a metric, kept 0.5", ARRAY, layers)


def test_totals_are_of_all_layers(costs):
    read, fixed = 36 * 9 * 2 * 9, 36 * 9
    assert [layer.macs for layer in costs.layers] == [read, fixed]
    assert costs.num_images == 3
    assert costs.bits.tolist() == [(bits * read + 4 * fixed) / (read + fixed) for bits in (8, 0, 4)]
    saved = [(8 - bits) * read / (8 * read + 4 * fixed) for bits in (8, 0, 4)]
    for model in ENERGY_MODELS:
        np.testing.assert_allclose(costs.saving(model), saved, rtol=1e-14)  # one division each
    assert costs.cycle_saving("fixed").tolist() == [0, 0, 0]
    # 5 folds of at most 8 windows and 2 of at most 8 filters; the first layer has nothing to do.
    alone = 5 * (2 * 8 + 8 + 4 * 9 - 2)
    assert costs.cycles("bit_serial_group").tolist() == [
        5 * 2 * (2 * 8 + 8 + 8 * 18 - 2) + alone,
        alone,
        5 * 2 * (2 * 8 + 8 + 4 * 18 - 2) + alone,
    ]


def test_a_layer_of_one_precision_costs_as_a_map_of_it():
    array = SystolicArray(3, 5)
    for full_bits in (1, 4, 8):
        maps = np.full((2, 7, 5), full_bits)
        settings = {"array": array, "full_bits": full_bits, "planes": 3}
        uniform = uniform_costs(2, (7, 5), SHAPE, **settings)
        for name, cost in activation_costs(maps, SHAPE, **settings).items():
            for field in dataclasses.fields(cost):
                expected = getattr(cost, field.name)
                np.testing.assert_array_equal(getattr(uniform[name], field.name), expected)


def test_a_distribution_names_its_best_and_worst_image():
    values = np.array([3.0, 9.0, 1.0, 5.0, 7.0])
    found = distribution(values)
    assert (found.mean, found.std) == (5.0, 8.0**0.5)
    assert (found.best, found.worst) == (1, 2)
    assert list(found.quantiles) == [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
    assert [found.quantiles[share] for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1, 3, 5, 7, 9]


def test_the_table_fits_100_columns(costs):
    lines = str(costs).splitlines()
    assert max(map(len, lines)) == 100
    assert lines[:2] == ["net: 3 images, 8 x 8 engines", "Regions: a metric, kept 0.5"]
    cycles = f"{(166 + 0 + 94) / (3 * 166):.1%}"  # of a fold: 2 * 8 + 8 + bits * 18 - 2
    assert lines[5].split() == ["read", "5,832", "8/4/0", "4.00", "50.0%", "50.0%", cycles]
    assert lines[6].split() == ["fixed", "324", "4", "4.00", "100.0%", "100.0%", "100.0%"]
    assert costs.distribution().mean == pytest.approx(costs.saving().mean())
    assert "Most energy saved: image 1; least: image 0 (counted from 0)." in lines
    large = dataclasses.replace(
        costs.layers[0], name=60 * "x", macs=10**10, full_bits=8, bits_by_rank=(0, 1, 2, 4, 8)
    )
    wide = dataclasses.replace(costs, name=120 * "n", regions=120 * "r", layers=(large,) * 12)
    assert max(map(len, wide.to_table().splitlines())) == 100
