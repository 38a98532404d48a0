"""Files on tflite-micro."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.flatbuffer_networks import (
    one_operation,
    small_network,
    tensor,
    with_kernel,
)
from tests.tflite_export.flatbuffer_operators_test import (
    GRIDS,
    SHAPES,
    WITH_KERNELS,
    lookup,
    product,
)
from tests.tflite_export.flatbuffer_reference import (
    COMBINATIONS,
    examples,
    interpreter,
)
from tflite_export import integer_model as im
from tflite_export.description import describe
from tflite_export.flatbuffer import write
from tflite_export.flatbuffer_schema import from_bytes

tflite_micro = pytest.importorskip("tflite_micro")
compression, runtime = tflite_micro.compression, tflite_micro.runtime


def assert_agrees(model: im.IntegerModel, blob: bytes) -> None:
    running = runtime.Interpreter.from_bytes(blob, arena_size=1 << 20)
    for inputs, outputs in examples(model):
        for number, value in enumerate(inputs):
            running.set_input(value[None], number)
        running.invoke()
        for number, expected in enumerate(outputs):
            np.testing.assert_array_equal(running.get_output(number)[0], expected)


@pytest.mark.parametrize("storage", ["int8", "tflm"])
@pytest.mark.parametrize("num_bits", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("case", WITH_KERNELS)
def test_kernels_agree(case, num_bits, storage):
    operation, weights, output, settings = WITH_KERNELS[case]
    model = with_kernel(operation, weights, output, storage=storage, num_bits=num_bits, **settings)
    assert_agrees(model, write(model, storage=storage))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("case", ["same", "depthwise", "transpose valid", "dense, rank 3"])
def test_levels_are_clamped_to_any_grid(case, grid):
    operation, weights, output, settings = WITH_KERNELS[case]
    model = with_kernel(operation, weights, output, grid=GRIDS[grid], **settings)
    assert_agrees(model, write(model))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("grid", [*GRIDS.values(), (0, 255)])
@pytest.mark.parametrize("shapes", SHAPES)
def test_products_agree(shapes, grid, relu):
    model = product(shapes, grid, relu)
    assert_agrees(model, write(model))


@pytest.mark.parametrize("target", [*GRIDS.values(), (0, 255)])
@pytest.mark.parametrize("source", [*GRIDS.values(), (0, 255)])
def test_functions_of_each_value_agree(source, target):
    model = lookup(source, target)
    assert_agrees(model, write(model))


@pytest.mark.parametrize("storage", ["int8", "tflm"])
def test_a_network_agrees(storage):
    model = small_network(storage)
    assert_agrees(model, write(model, storage=storage))


@pytest.mark.parametrize(("kind", "level"), [(im.Softmax, 26), (im.Sigmoid, 147)])
def test_probabilities_of_equal_logits(kind, level):
    """256 / 10, and 256 / (1 + exp(-0.3)) = 147.06."""
    model = one_operation(
        kind("y", ("x",), "y"),
        tensor("x", (10,), low=-128, high=127, scale=0.1),
        tensor("y", (10,), scale=1 / 256),
    )
    running = runtime.Interpreter.from_bytes(write(model))
    running.set_input(np.full((1, 10), 3, np.int8), 0)
    running.invoke()
    np.testing.assert_array_equal(running.get_output(0)[0], np.full(10, level - 128))


def _wide(num_bits: int) -> im.IntegerModel:
    """A layer that is large enough for tables of all widths."""
    source = tensor("x", (4, 4, 128))
    return with_kernel(
        im.Conv2D, (8, 3, 3, 128), (2, 2, 8), storage="tflm", num_bits=num_bits, source=source
    )


@pytest.mark.parametrize("num_bits", [1, 2, 3, 4, 5, 6, 7])
def test_tables_agree_and_are_smaller(num_bits):
    model = _wide(num_bits)
    model.operations[0].kernel.multiplier[::2] = 1
    blob = write(model, storage="tflm")
    description = describe(blob)
    assert [o.name for o in description.operators] == ["TFLM_DECODE", "CONV_2D"]
    packed = {t.name: t for t in description.tensors}["y/kernel/packed"]
    assert packed.num_bytes == 8 * 3 * 3 * 128 * num_bits // 8
    running = runtime.Interpreter.from_bytes(blob, arena_size=1 << 20)
    plain = runtime.Interpreter.from_bytes(write(model, storage="int8"), arena_size=1 << 20)
    for (stored,), _ in examples(model):
        for one in (running, plain):
            one.set_input(stored[None], 0)
            one.invoke()
        np.testing.assert_array_equal(running.get_output(0), plain.get_output(0))


@pytest.mark.parametrize("num_bits", [2, 3, 4])
@pytest.mark.parametrize(
    ("operation", "weights", "axis"),
    [(im.Conv2D, (8, 3, 3, 32), 0), (im.DepthwiseConv2D, (1, 4, 4, 32), 3)],
)
def test_tables_are_those_that_tflite_micro_writes(operation, weights, axis, num_bits):
    model = with_kernel(
        operation,
        weights,
        (1, 1, 8 if axis == 0 else 32),
        storage="tflm",
        num_bits=num_bits,
        source=tensor("x", weights[1:3] + (32,)),
    )
    values = model.operations[0].kernel.integers
    largest = 2 ** (num_bits - 1) - 1
    # Theirs holds only the levels that occur: let all occur in each channel.
    for channel in np.moveaxis(values, axis, 0):
        channel[...] = np.resize(np.arange(-largest, largest + 1), channel.shape)
    plain = write(model, storage="int8")
    names = [t.name for t in describe(plain).tensors]
    spec = compression.SpecBuilder()
    spec = spec.add_tensor(subgraph=0, tensor=names.index("y/kernel")).with_lut(
        index_bitwidth=num_bits, mode=compression.spec.PerChannel(axis=axis)
    )
    theirs = from_bytes(bytes(compression.compress(plain, spec.build())))
    ours = from_bytes(write(model, storage="tflm"))
    contents = {b.data.tobytes() for b in theirs.buffers if b.data is not None}
    for number, one in enumerate(describe(write(model, storage="tflm")).tensors):
        if one.name in ("y/kernel/packed", "y/kernel/tables"):
            buffer = ours.subgraphs[0].tensors[number].buffer
            assert ours.buffers[buffer].data.tobytes() in contents


def test_small_layers_keep_int8_where_tables_take_more():
    operation, weights, output, settings = WITH_KERNELS["depthwise"]
    model = with_kernel(operation, weights, output, storage="tflm", num_bits=4, **settings)
    assert [o.name for o in describe(write(model, storage="tflm")).operators] == [
        "DEPTHWISE_CONV_2D"
    ]


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_other_runtimes_refuse_tables_by_name(combination):
    blob = write(_wide(2), storage="tflm")
    with pytest.raises((RuntimeError, ValueError), match="TFLM_DECODE"):
        interpreter(blob, *combination).allocate_tensors()
