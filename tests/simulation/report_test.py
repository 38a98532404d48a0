"""What a simulation reports, against arithmetic on the network's sizes."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from wrpn_tf import accelerator, calibrate, quantize_model
from wrpn_tf.simulation import LayerRecord, Simulation, network, simulate


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    """Two 9 x 9 images through a ternary, a depthwise, a grouped and an 8-bit dense layer."""
    L = keras.layers
    inputs = keras.Input((9, 9, 3), name="image")
    x = L.Conv2D(12, 3, padding="same", activation="relu", name="stem")(inputs)
    x = L.DepthwiseConv2D(3, strides=2, padding="same", activation="relu", name="depthwise")(x)
    x = L.Conv2D(4, 1, groups=2, activation="relu", name="a_layer_with_a_long_name")(x)
    model = keras.Model(inputs, L.Dense(10, name="head")(L.Flatten()(x)), name="net")
    quantized = quantize_model(model, num_bits_weight=2, first_layer=2)
    images = np.random.default_rng(0).uniform(0, 1, (2, 9, 9, 3)).astype(np.float32)
    calibrate(quantized, images)
    return simulate(quantized, images)


def test_a_layer_is_so_many_products_of_its_size(simulation):
    gemms = {layer.name: layer.trace.gemms for layer in simulation.layers}
    assert gemms == {
        "quant_stem": (accelerator.Gemm(M=9 * 9, K=3 * 3 * 3, N=12, passes=1),),
        "quant_depthwise": (accelerator.Gemm(M=5 * 5, K=3 * 3, N=1, passes=12),),
        "quant_a_layer_with_a_long_name": (accelerator.Gemm(M=5 * 5, K=6, N=2, passes=2),),
        "quant_head": (accelerator.Gemm(M=1, K=5 * 5 * 4, N=10, passes=8 - 1),),
    }
    assert [layer.num_bits_weight for layer in simulation.layers] == [2, 2, 2, 8]


def test_costs_are_of_one_image(simulation):
    array = accelerator.SystolicArray()
    stem, _, _, head = (layer.trace for layer in simulation.layers)
    assert stem.cycles == array.cycles(9 * 9, 3 * 3 * 3, 12)
    assert stem.macs == 9 * 9 * 3 * 3 * 3 * 12
    assert stem.dram.activation_reads == 9 * 9 * 3 * 8
    assert stem.dram.weight_reads == 3 * 3 * 3 * 12 * 2
    assert stem.dram.accumulator_writes == 9 * 9 * 12 * 32
    assert head.cycles == 7 * array.cycles(1, 5 * 5 * 4, 10)
    assert simulation.cycles == sum(layer.trace.cycles for layer in simulation.layers)
    assert simulation.total.macs == sum(layer.trace.macs for layer in simulation.layers)
    assert simulation.num_images == 2


def test_accumulators_are_of_all_images(simulation):
    head = simulation.layers[-1].trace
    assert head.smallest < 0 < head.largest
    # 100 products of at most 255 * 127 each.
    assert max(head.largest, -head.smallest) <= 100 * 255 * 127


@pytest.mark.parametrize(
    ("smallest", "largest", "bits"), [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-129, 127, 9), (0, 255, 9)]
)
def test_accumulator_bits_are_the_shortest_twos_complement(simulation, smallest, largest, bits):
    trace = dataclasses.replace(simulation.total, smallest=smallest, largest=largest)
    assert LayerRecord("x", 2, trace).accumulator_bits == bits


def test_the_table_lists_every_layer_in_100_columns(simulation):
    table = simulation.to_table()
    lines = table.splitlines()
    assert str(simulation) == table
    assert max(len(line) for line in lines) <= 100
    assert lines[0] == "net: 8 x 8 engines, output stationary; 2 images"
    stem, depthwise, long, head = lines[4:8]
    assert stem.split()[:4] == ["stem", "2", "81x27x12", f"{simulation.layers[0].trace.cycles:,}"]
    assert depthwise.startswith("depthwise ")
    assert long.startswith("a_layer_..long_name 2 ")
    assert head.split()[1:3] == ["8", "1x100x10"]
    assert f"cycles {simulation.cycles:,}" in table


@pytest.mark.parametrize("power", range(15))
def test_large_figures_keep_the_columns(simulation, power):
    """Traffic and cycles of any size have at most five characters a figure."""
    count = 10**power - 1
    traffic = accelerator.Traffic(count, count, 0, count)
    gemm = accelerator.Gemm(M=12544, K=4608, N=2048)
    trace = dataclasses.replace(
        simulation.total, gemms=(gemm,), cycles=count, sram=traffic, dram=traffic
    )
    layer = LayerRecord("quant_" + 60 * "x", 8, trace)
    table = dataclasses.replace(simulation, name=99 * "n", layers=(layer,)).to_table()
    assert max(len(line) for line in table.splitlines()) <= 100


def test_products_are_listed_as_scale_sim_reads_them(simulation):
    text = simulation.to_scale_sim_csv()
    rows = accelerator.from_gemm_csv(text)
    assert text.startswith("Layer, M, N, K,\n")
    assert len(rows) == 1 + 12 + 2 + 7
    assert rows[0] == ("quant_stem", accelerator.Gemm(M=81, N=12, K=27))
    assert sum(gemm.M * gemm.N * gemm.K for _, gemm in rows) == simulation.total.macs


def test_a_long_run_shows_one_line_of_progress_on_a_terminal(monkeypatch, capsys):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")], name="net")
    quantized = quantize_model(model)
    calibrate(quantized, np.ones((1, 4), np.float32))
    capsys.readouterr()
    simulate(quantized, np.ones((1, 4)))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(network, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    simulate(quantized, np.ones((1, 4)))
    shown = capsys.readouterr().err
    assert shown.startswith("\rsimulate: layer 1 of 2, ")
    assert "\rsimulate: layer 2 of 2, quant_head" in shown
    assert shown.count("\n") == 1
