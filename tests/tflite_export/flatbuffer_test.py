from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.tflite_export.flatbuffer_networks import (
    kernel,
    one_operation,
    small_network,
    tensor,
    with_kernel,
)
from tests.tflite_export.flatbuffer_reference import (
    COMBINATIONS,
    assert_runtimes_agree,
    compute,
    examples,
    interpreter,
    random_levels,
    run,
    to_int8,
)
from tflite_export import integer_model as im
from tflite_export.flatbuffer import write
from tflite_export.flatbuffer_schema import from_bytes, text
from tflite_export.packing import unpack
from tflite_export.storage import max_multiplier

STORAGES = ["int8", "int4", "int2"]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_network_with_two_inputs_and_outputs_agrees(storage):
    model = small_network(storage)
    assert_runtimes_agree(model, write(model, storage=storage))


@pytest.mark.parametrize("storage", STORAGES)
def test_writing_is_deterministic(storage):
    model = small_network(storage)
    assert write(model, storage=storage) == write(model, storage=storage)


def _dense(grid, storage="int8"):
    return with_kernel(
        im.FullyConnected,
        (4, 6),
        (7, 9, 4),
        source=tensor("x", (7, 9, 6), low=grid[0], high=grid[1], scale=0.5),
        storage=storage,
        grid=grid,
    )


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("grid", [(0, 255), (0, 3), (-128, 127), (-8, 7), (-5, 10)])
def test_uint8_is_int8_and_128(grid, combination):
    model = _dense(grid)
    running = interpreter(write(model, input_type="uint8", output_type="uint8"), *combination)
    running.allocate_tensors()
    for (stored,), (expected,) in examples(model):
        (found,) = run(running, [(stored.astype(int) + 128).astype(np.uint8)])
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found.astype(int), expected.astype(int) + 128)


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("grid", [(0, 255), (0, 3), (-128, 127), (-8, 7), (-5, 10)])
def test_floats_are_rounded_and_clamped_to_levels(grid, combination):
    model = _dense(grid)
    running = interpreter(write(model, input_type="float32", output_type="float32"), *combination)
    running.allocate_tensors()
    rng = np.random.default_rng(3)
    # Reals up to 0.4 levels away from one, some beyond the grid; the scale is 0.5.
    levels = rng.integers(grid[0] - 9, grid[1] + 10, (7, 9, 6))
    reals = 0.5 * (levels + rng.uniform(-0.4, 0.4, levels.shape))
    (found,) = run(running, [reals.astype(np.float32)])
    expected = compute(model, {"x": np.clip(levels, *grid)})["y"]
    np.testing.assert_array_equal(found, expected.astype(np.float32))  # The scale of y is 1.


def test_floats_half_way_between_two_levels_become_either():
    """Kernels differ here, and one of them differs in what its vectors leave over."""
    grid = {"shape": (37,), "scale": 0.5}
    model = one_operation(im.Reshape("y", ("x",), "y"), tensor("x", **grid), tensor("y", **grid))
    for combination in COMBINATIONS:
        running = interpreter(write(model, input_type="float32"), *combination)
        running.allocate_tensors()
        (found,) = run(running, [np.full(37, 0.25, np.float32)])
        assert set(found.astype(int) - model.tensors["y"].zero_point) <= {0, 1}


@pytest.mark.parametrize("kind", [im.Softmax, im.Sigmoid])
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_probabilities_of_levels(combination, kind):
    model = one_operation(
        kind("y", ("x",), "y"),
        tensor("x", (10,), low=-128, high=127, scale=0.1),
        tensor("y", (10,), scale=1 / 256),
    )
    running = interpreter(write(model, output_type="float32"), *combination)
    running.allocate_tensors()
    (levels,) = random_levels(model, np.random.default_rng(5))
    (found,) = run(running, [to_int8(model, "x", levels)])
    exponentials = np.exp(levels * np.float64(np.float32(0.1)))
    total = exponentials.sum() if kind is im.Softmax else 1 + exponentials
    # Half a level from rounding, and another one: the kernels' exponential is a table's.
    assert np.abs(found - exponentials / total).max() <= 1.5 / 256
    assert found[levels.argmax()] == found.max()


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("storage", STORAGES)
def test_the_batch_can_be_resized(storage, combination):
    model = small_network(storage)
    running = interpreter(write(model, storage=storage), *combination)
    details = running.get_input_details()
    for one in details:
        assert one["shape"][0] == 1
        running.resize_tensor_input(one["index"], [3, *one["shape"][1:]])
    running.allocate_tensors()
    batch = examples(model, 3)
    for number, one in enumerate(details):
        running.set_tensor(one["index"], np.stack([inputs[number] for inputs, _ in batch]))
    running.invoke()
    for number, one in enumerate(running.get_output_details()):
        expected = np.stack([outputs[number] for _, outputs in batch])
        np.testing.assert_array_equal(running.get_tensor(one["index"]), expected)


def test_tensors_and_the_signature_have_the_models_names():
    model = small_network("int8")
    running = interpreter(write(model), *COMBINATIONS[0])
    running.allocate_tensors()
    assert [d["name"] for d in running.get_input_details()] == ["image", "mask"]
    assert [d["name"] for d in running.get_output_details()] == ["logits", "features"]
    assert running.get_signature_list() == {
        "serving_default": {"inputs": ["image", "mask"], "outputs": ["features", "logits"]}
    }
    assert set(model.tensors) <= {d["name"] for d in running.get_tensor_details()}


@pytest.mark.parametrize(
    ("storage", "num_bits", "type_bits", "multiplier"),
    [("int8", 3, 8, 42), ("int4", 3, 4, 2), ("int2", 2, 2, 1), ("int2", 4, 4, 1)],
)
def test_the_files_integers_scales_and_biases_are_the_models(
    storage, num_bits, type_bits, multiplier
):
    rng = np.random.default_rng(0)
    source, output = tensor("x", (7, 9, 6), scale=0.7), tensor("y", (5, 7, 3))
    values = kernel(
        rng,
        (3, 3, 3, 6),
        source,
        output,
        num_bits=num_bits,
        multiplier=max_multiplier(storage, im.Conv2D, num_bits),
    )
    model = one_operation(im.Conv2D("y", ("x",), "y", kernel=values), source, output)
    file = from_bytes(write(model, storage=storage))
    tensors = {text(t.name): t for t in file.subgraphs[0].tensors}
    stored = tensors.get("y/kernel/packed", tensors["y/kernel"])
    integers = unpack(file.buffers[stored.buffer].data, type_bits, (3, 3, 3, 6))
    np.testing.assert_array_equal(integers, values.integers * multiplier)
    read = tensors["y/kernel"].quantization
    np.testing.assert_array_equal(read.scale, values.scale)
    assert read.quantizedDimension == 0
    assert not read.zeroPoint.any()
    bias = tensors["y/bias"]
    np.testing.assert_array_equal(file.buffers[bias.buffer].data.view("<i4"), values.bias)
    np.testing.assert_allclose(
        bias.quantization.scale,
        np.float64(np.float32(0.7)) * values.scale,
        rtol=2**-23,  # One rounding to float32.
    )


def test_contents_are_aligned_to_sixteen_bytes():
    blob = write(small_network("int2"), storage="int2")
    start = np.frombuffer(blob, np.uint8).__array_interface__["data"][0]
    for buffer in from_bytes(blob).buffers:
        if buffer.data is not None:
            assert (buffer.data.__array_interface__["data"][0] - start) % 16 == 0


@pytest.mark.parametrize("storage", [*STORAGES, "tflm"])
def test_the_description_names_the_storage(storage):
    blob = write(small_network(storage), storage=storage)
    assert from_bytes(blob).description.decode().endswith(f"storage {storage}")


def test_int2_is_at_most_a_quarter_above_the_floor():
    """The floor: each weight's bits, and a bias and a scale per channel."""
    rng = np.random.default_rng(0)
    tensors, operations, floor = [tensor("t0", (8, 8, 16))], [], 0.0
    for number, channels in enumerate([16, 16, 32, 32, 64, 64]):
        output = tensor(f"t{number + 1}", (8, 8, channels), high=15)
        weights = (channels, 3, 3, tensors[-1].shape[-1])
        floor += np.prod(weights) * 2 / 8 + 8 * channels
        values = kernel(rng, weights, tensors[-1], output, multiplier=64)
        source = tensors[-1].name
        operations.append(
            im.Conv2D(output.name, (source,), output.name, kernel=values, padding="same", relu=True)
        )
        tensors.append(output)
    model = im.IntegerModel(
        {t.name: t for t in tensors}, tuple(operations), ("t0",), (tensors[-1].name,)
    )
    assert len(write(model, storage="int2")) <= 1.25 * floor


@pytest.mark.parametrize("argument", ["input_type", "output_type"])
def test_refuses_unknown_types(argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be one of int8, .*, got 'int16'"):
        write(_dense((0, 255)), **{argument: "int16"})


def test_refuses_an_unknown_storage():
    with pytest.raises(ValueError, match="`storage` must be one of int8, .*, got 'int1'"):
        write(_dense((0, 255)), storage="int1")


def test_refuses_multipliers_that_the_storage_has_no_room_for():
    model = _dense((0, 255))
    model.operations[0].kernel.multiplier[2] = 128
    with pytest.raises(ValueError, match=r"'y': storage 'int8' .* got .* 64\.\.128 and .* to 128"):
        write(model)


def test_refuses_to_unpack_weights_with_several_multipliers():
    model = _dense((0, 255), storage="int2")
    model.operations[0].kernel.multiplier[1] = 32
    with pytest.raises(ValueError, match=r"'y': .* one multiplier for all channels, got \[32, 64"):
        write(model, storage="int2")


def test_refuses_weights_beyond_their_bits():
    model = _dense((0, 255))
    model.operations[0].kernel.integers[0, 0] = 2
    with pytest.raises(ValueError, match=r"'y': weights of 2 bits must be in -1\.\.1, got .* 2"):
        write(model)


def _changed(model: im.IntegerModel, **settings) -> im.IntegerModel:
    return dataclasses.replace(
        model, operations=(dataclasses.replace(model.operations[0], **settings),)
    )


def _with_kernel(model: im.IntegerModel, **settings) -> im.IntegerModel:
    return _changed(model, kernel=dataclasses.replace(model.operations[0].kernel, **settings))


def _with_tensor(model: im.IntegerModel, key: str, **settings) -> im.IntegerModel:
    changed = dataclasses.replace(model.tensors[key], **settings)
    return dataclasses.replace(model, tensors={**model.tensors, key: changed})


def _contradictions():
    dense = _dense((0, 255))
    values = dense.operations[0].kernel
    pool = one_operation(
        im.MaxPool2D("y", ("x",), "y", (1, 1)), tensor("x", (7, 9, 6)), tensor("y", (7, 9, 6))
    )
    softmax = one_operation(
        im.Softmax("y", ("x",), "y"), tensor("x", (10,)), tensor("y", (10,), scale=1 / 255)
    )
    tiny = one_operation(
        im.Softmax("y", ("x",), "y"),
        tensor("x", (10,), scale=2.0**-26),
        tensor("y", (10,), scale=1 / 256),
    )
    shift = one_operation(im.Shift("y", ("x",), "y", -5), tensor("x", (7,)), tensor("y", (7,)))
    lookup = one_operation(
        im.Lookup("y", ("x",), "y", np.arange(4)), tensor("x", (7,), high=3), tensor("y", (7,))
    )
    return [
        (_changed(dense, inputs=("w",)), r"'y' reads \['w'\] before they are computed"),
        (_changed(dense, output="x"), "'y': the output 'x' must be"),
        (_changed(dense, output="z"), "'y': the output 'z' must be"),
        (dataclasses.replace(dense, outputs=("z",)), r"must be tensors .* missing: \['z'\]"),
        (dataclasses.replace(dense, outputs=()), "inputs and outputs must be tensors"),
        (_with_tensor(dense, "x", name="w"), "'w' stands under the name 'x'"),
        (_with_tensor(dense, "x", low=1), r"'x' must have low <= 0 <= high .* got 1\.\.255"),
        (_with_tensor(dense, "x", low=-1), r"2\.\.256 levels, got -1\.\.255"),
        (_with_tensor(dense, "x", scale=np.float32(0)), "'x' must have a positive scale, got 0"),
        (_with_kernel(dense, spread=3), r"`spread` .* a power of two .*'x' .* got 3 for 0\.\.255"),
        (_with_kernel(dense, spread=2), r"at most 256 levels, got 2 for 0\.\.255"),
        (_with_tensor(dense, "x", shape=(7, 9, 5)), r"shape \(4, 6\) does not fit 5 channels"),
        (_with_tensor(pool, "y", high=15), "'y' moves levels, so that 'x' and 'y' must have one"),
        (shift, r"'y' moves levels by -5, .* grid .*-5, 250\).* got .*0, 255\)"),
        (softmax, "'y': 'y' must have the grid"),
        (tiny, "'y': the scale of 'x' must exceed 1.5e-08.* got 1.5e-08. Was the network trained"),
        (_changed(lookup, table=np.arange(3)), r"'y': `table` must have 4 levels in 0\.\.255"),
        (_changed(lookup, table=-np.arange(4)), r"'y': `table` .* got \(4,\) in -3\.\.0"),
        (
            _changed(dense, kernel=dataclasses.replace(values, bias=np.zeros(5, np.int32))),
            r"'y': `bias` must have the shape \(4,\), got \(5,\)",
        ),
        (
            _changed(dense, kernel=dataclasses.replace(values, scale=-values.scale)),
            "'y': `scale` must be positive",
        ),
    ]


@pytest.mark.parametrize(("model", "message"), _contradictions())
def test_refuses_models_that_contradict_themselves(model, message):
    with pytest.raises(ValueError, match=message):
        write(model)
