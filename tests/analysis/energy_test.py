"""Energy on the accelerator: operations and bits counted by hand, and the paper's gains checked."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import wrpn_tf
from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.analysis import ModelProfile
from wrpn_tf.analysis.energy import energy_report
from wrpn_tf.analysis.energy_table import HOROWITZ_45NM, EnergyTable
from wrpn_tf.analysis.energy_text import joules
from wrpn_tf.analysis.hardware_engine import (
    ALADDIN_1NS,
    ALADDIN_6NS,
    Unit,
    UnitTable,
    check_paper_gains,
    paper_gains_table,
)

# Powers of two, so that every product and sum is exact.
ROUND = EnergyTable(
    name="round",
    source="none",
    int8_add=0.25,
    int32_add=1.0,
    float32_add=2.0,
    float32_mult=8.0,
    sram=((1024, 0.5), (4096, 4.0)),
    dram=16.0,
)


@pytest.fixture
def dense(flavor):
    """10 inputs, 12 hidden units, 3 outputs: 2-bit weights, and 8-bit ones in the last layer."""
    L = flavor.layers
    inputs = L.Input((10,))
    x = L.Dense(12, activation="relu", name="wide")(inputs)
    model = flavor.keras.Model(inputs, L.Dense(3, name="last")(x))
    return wrpn_tf.quantize_model(model, first_layer=2, last_layer=8)


def test_operations_and_bits_by_hand(dense):
    report = energy_report(ModelProfile(dense), table=ROUND, sram_bytes=1024)
    wide, last = report.layers
    assert (wide.path, wide.num_bits_activation, wide.num_bits_weight) == ("wide", 8, 2)
    assert (last.path, last.num_bits_activation, last.num_bits_weight) == ("last", 8, 8)
    # 1 x 10 times 10 x 12 on 8 x 8 engines: the 12 columns take 2 folds, and A is read for each.
    assert wide.macs == 10 * 12
    assert wide.quantized.arithmetic == 1.25 * 10 * 12
    assert wide.quantized.sram == 0.5 * (2 * 10 * 8 + 10 * 12 * 2 + 12 * 32)
    assert wide.quantized.dram == 16 * (10 * 8 + 10 * 12 * 2 + 12 * 32)
    assert wide.in_float32.arithmetic == 10 * 10 * 12
    assert wide.in_float32.sram == 0.5 * 32 * (2 * 10 + 10 * 12 + 12)
    assert wide.in_float32.dram == 16 * 32 * (10 + 10 * 12 + 12)
    # 8-bit weights have 7 planes; accumulators are read again for each but the first.
    assert last.quantized.arithmetic == 7 * 1.25 * 12 * 3
    assert last.quantized.sram == 0.5 * (7 * 12 * 8 + 7 * 12 * 3 * 2 + (6 + 7) * 3 * 32)
    assert last.quantized.dram == 16 * (12 * 8 + 7 * 12 * 3 * 2 + 3 * 32)
    assert last.in_float32.arithmetic == 10 * 12 * 3
    assert report.quantized == wide.quantized + last.quantized
    assert report.in_float32.total == wide.in_float32.total + last.in_float32.total


def test_a_float_model_costs_what_it_costs_in_float32(flavor):
    keras = flavor.keras
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.DepthwiseConv2D(3, padding="same")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, 2)(x))
    report = energy_report(ModelProfile(model))
    assert [layer.num_bits_weight for layer in report.layers] == [32, 32]
    assert report.quantized == report.in_float32
    assert report.layers[1].in_float32.arithmetic == pytest.approx(
        4.6 * 2 * 2 * 4 * 9 * 2, rel=1e-12
    )  # 3.7 + 0.9 in float64


def test_traffic_is_that_of_the_simulation(dense):
    images = np.random.default_rng(0).random((4, 10)).astype(np.float32)
    wrpn_tf.calibrate(dense, images, verbose=False)
    array = SystolicArray(4, 2, dataflow="ws")
    total = wrpn_tf.simulate(dense, images, array=array).total
    report = energy_report(ModelProfile(dense), table=ROUND, array=array, sram_bytes=4096)
    assert report.quantized.arithmetic == 1.25 * total.macs
    assert report.quantized.sram == 4 * (total.sram.reads + total.sram.writes)
    assert report.quantized.dram == 16 * (total.dram.reads + total.dram.writes)


def test_the_table_adds_up_and_fits(dense):
    report = energy_report(ModelProfile(dense))
    lines = str(report).splitlines()
    assert max(len(line) for line in lines) <= 100
    total = next(line for line in lines if line.startswith("total "))
    assert f"{10 * 12 + 12 * 3}" in total
    assert joules(report.quantized.total) in total
    assert joules(report.in_float32.total) in total
    assert total.endswith(f"{report.in_float32.total / report.quantized.total:.2f}x")
    assert "Horowitz" in str(report)


@pytest.mark.parametrize(
    ("energy", "text"),
    [
        (0.0, "0.00 pJ"),
        (999.4, "999 pJ"),
        (999.5, "1.00 nJ"),
        (2359296.0, "2.36 uJ"),
        (1.5e13, "15.0 J"),
    ],
)
def test_joules_have_three_digits(energy, text):
    assert joules(energy) == text


def test_published_energies():
    table = HOROWITZ_45NM
    assert (table.int8_add, table.int32_add) == (0.03, 0.1)
    assert (table.float32_add, table.float32_mult) == (0.9, 3.7)
    assert [64 * energy for _, energy in table.sram] == [10, 20, 100]
    assert 64 * table.dram == 1300
    assert [table.sram_per_bit(size) for size in (1, 8192, 8193, 2**20)] == [
        10 / 64,
        10 / 64,
        20 / 64,
        100 / 64,
    ]


def test_bad_tables_and_sizes_are_refused(dense):
    with pytest.raises(ValueError, match="`dram` must be a positive number of pJ, got 0"):
        dataclasses.replace(ROUND, dram=0)
    with pytest.raises(ValueError, match=r"`sram\[0\]` must be a positive number of pJ, got inf"):
        dataclasses.replace(ROUND, sram=((8, math.inf),))
    with pytest.raises(ValueError, match="`sram` must hold one size or more, rising"):
        dataclasses.replace(ROUND, sram=((8, 1.0), (8, 2.0)))
    for size in (0, 4097):
        with pytest.raises(ValueError, match=f"`sram_bytes` must be in 1..4096, got {size}"):
            energy_report(ModelProfile(dense), table=ROUND, sram_bytes=size)
    with pytest.raises(TypeError, match="`profile` must be a ModelProfile"):
        energy_report(dense)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sram_bytes": "64 KiB"}, "`sram_bytes` must be an integer, got '64 KiB'"),
        ({"sram_bytes": 1024.5}, "`sram_bytes` must be an integer, got 1024.5"),
        ({"sram_bytes": True}, "`sram_bytes` must be an integer, got True"),
        ({"table": {"dram": 1.0}}, "`table` must be an EnergyTable, got dict"),
    ],
)
def test_arguments_of_another_type_are_refused(dense, options, message):
    with pytest.raises(TypeError, match=message):
        energy_report(ModelProfile(dense), **options)


def test_what_is_no_product_is_named():
    import keras

    inputs = keras.Input((4, 6))
    einsum = keras.layers.EinsumDense("abc,cd->abd", (4, 5), name="odd")
    with pytest.raises(ValueError, match=r"matrix products, got .*'odd': EinsumDense"):
        energy_report(ModelProfile(keras.Model(inputs, einsum(inputs))))


def test_gates_of_the_engines():
    unit = {name: Unit(0.0, 0.0) for name in ("int32_add", "float32_add", "float32_mult")}
    bits = UnitTable("", "", logic32=Unit(32.0, 0.0), register_bit=Unit(0.0, 1.0), **unit)
    assert bits.ternary_engine == Unit(8 + 32, 8 + 2 + 32)
    assert bits.float32_engine == Unit(0, 3 * 32)


def test_the_papers_gains_are_plausible_by_the_gates():
    at_6ns, at_1ns = check_paper_gains(ALADDIN_6NS), check_paper_gains(ALADDIN_1NS)
    assert [(x.quantity, x.claimed) for x in at_6ns] == [("area", 15), ("power", 12)]
    assert [f"{x.counted:.1f}" for x in (*at_6ns, *at_1ns)] == ["15.2", "22.8", "23.5", "29.8"]
    assert [f"{x.alike:.1f}" for x in (*at_6ns, *at_1ns)] == ["0.0", "1.0", "0.6", "1.6"]
    assert all(x.is_plausible for x in (*at_6ns, *at_1ns))
    # What both designs have alike, put into both, gives the claim.
    for check, part in zip(at_6ns, ("area", "power"), strict=True):
        small, wide = (
            getattr(engine, part)
            for engine in (ALADDIN_6NS.ternary_engine, ALADDIN_6NS.float32_engine)
        )
        common = check.alike * small
        # Rounding of a few float64 operations.
        assert (wide + common) / (small + common) == pytest.approx(check.claimed, rel=1e-12)
    assert paper_gains_table().count("yes") == 4


def test_a_claim_above_the_gates_is_not_plausible():
    small = dataclasses.replace(ALADDIN_6NS, float32_mult=Unit(0.0, 0.0))
    area, power = check_paper_gains(small)
    for check in (area, power):
        assert not check.is_plausible
        assert check.alike < 0
