"""A file with one corrupted weight, scale, bias, zero point or packed nibble is always caught."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export import integer_networks
from tflite_export import interpreters
from tflite_export.flatbuffer import write
from tflite_export.flatbuffer_checks import compare
from tflite_export.flatbuffer_schema import from_bytes, schema, text, to_bytes

NUM_CORRUPTIONS = 60  # of each kind, for each storage
STORAGES = ("int8", "int4", "int2", "tflm")


def constants(model, types):
    """The tensors of some types that have contents, and these."""
    names = schema().TensorType
    wanted = {getattr(names, name) for name in types}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data) and tensor.type in wanted:
            yield tensor, model.buffers[tensor.buffer]


def flip_bit(generator, buffers):
    """Flips one bit of one buffer."""
    buffer = buffers[generator.integers(len(buffers))]
    data = np.array(buffer.data, np.uint8)
    position = generator.integers(data.size)
    data[position] ^= np.uint8(1 << generator.integers(8))
    buffer.data = data


def corrupt_weight(generator, model):
    """A bit of an int8 weight."""
    flip_bit(generator, [b for _, b in constants(model, ["INT8", "UINT8"])])


def corrupt_packing(generator, model):
    """Exchanges the halves of a byte of packed weights, or two bytes."""
    buffers = [b for _, b in constants(model, ["INT2", "INT4", "UINT8"])]
    buffer = buffers[generator.integers(len(buffers))]
    data = np.array(buffer.data, np.uint8)
    swapped = (data >> 4) | (data << 4)
    (positions,) = np.nonzero(swapped != data)
    position = generator.choice(positions)
    data[position] = swapped[position]
    buffer.data = data


def corrupt_bias(generator, model):
    """A bit of a bias."""
    flip_bit(
        generator,
        [b for t, b in constants(model, ["INT32"]) if text(t.name).endswith("/bias")],
    )


def quantized(model, field):
    tensors = model.subgraphs[0].tensors
    found = [t.quantization for t in tensors if t.quantization is not None]
    return [q for q in found if getattr(q, field) is not None and len(getattr(q, field))]


def corrupt_scale(generator, model):
    """One scale, to the float32 beside it."""
    found = quantized(model, "scale")
    quantization = found[generator.integers(len(found))]
    scale = np.array(quantization.scale, np.float32)
    position = generator.integers(scale.size)
    scale[position] = np.nextafter(scale[position], np.float32(generator.choice([0, 1e9])))
    quantization.scale = scale


def corrupt_zero_point(generator, model):
    """One zero point, by one."""
    found = quantized(model, "zeroPoint")
    quantization = found[generator.integers(len(found))]
    points = np.array(quantization.zeroPoint, np.int64)
    points[generator.integers(points.size)] += generator.choice([-1, 1])
    quantization.zeroPoint = points


KINDS = {
    "weight": (corrupt_weight, ("int8", "tflm")),
    "packing": (corrupt_packing, ("int2", "int4", "tflm")),
    "bias": (corrupt_bias, STORAGES),
    "scale": (corrupt_scale, STORAGES),
    "zero point": (corrupt_zero_point, STORAGES),
}


@pytest.fixture(scope="module")
def files():
    """A file in each storage."""
    result = {}
    for storage in STORAGES:
        result[storage] = write(integer_networks.small(storage=storage), storage=storage)
    return result


@pytest.mark.parametrize("storage", STORAGES)
def test_a_file_that_was_read_and_written_again_has_no_difference(files, storage):
    again = to_bytes(from_bytes(files[storage]))
    assert compare(again, files[storage]) == ()


@pytest.mark.parametrize(
    ("kind", "storage"),
    [(kind, storage) for kind, (_, known) in KINDS.items() for storage in known],
)
def test_every_single_corruption_is_named(files, kind, storage):
    corrupt, _ = KINDS[kind]
    missed = []
    for seed in range(NUM_CORRUPTIONS):
        model = from_bytes(files[storage])
        corrupt(np.random.default_rng(seed), model)
        differences = compare(to_bytes(model), files[storage])
        if len(differences) != 1:
            missed.append((seed, [str(difference) for difference in differences]))
    assert missed == []


def enlarge_weight(generator, model):
    """A stored weight, by half of int8's range."""
    (_, buffer) = generator.permutation(list(constants(model, ["INT8"])))[0]
    data = np.array(buffer.data, np.uint8)
    data[generator.integers(data.size)] ^= 0x80
    buffer.data = data


def enlarge_bias(generator, model):
    """A bias, by some levels."""
    found = [b for t, b in constants(model, ["INT32"]) if text(t.name).endswith("/bias")]
    buffer = found[generator.integers(len(found))]
    biases = np.array(buffer.data, np.uint8).view("<i4").copy()
    biases[generator.integers(biases.size)] += generator.choice([-4000, 4000])
    buffer.data = biases.view(np.uint8)


def enlarge_scale(generator, model):
    """A scale of one channel or tensor, by a quarter; those of biases are not read."""
    tensors = [t for t in model.subgraphs[0].tensors if t.type == schema().TensorType.INT8]
    quantization = tensors[generator.integers(len(tensors))].quantization
    scale = np.array(quantization.scale, np.float32)
    scale[generator.integers(scale.size)] *= np.float32(1.25)
    quantization.scale = scale


def move_zero_point(generator, model):
    """The zero point of an activation, by one; those of weights are 0, and not read."""
    tensors = model.subgraphs[0].tensors
    found = [t for t in tensors if model.buffers[t.buffer].data is None and t.quantization]
    quantization = found[generator.integers(len(found))].quantization
    quantization.zeroPoint = np.array(quantization.zeroPoint) + generator.choice([-1, 1])


@pytest.mark.parametrize(
    ("corrupt", "least"),
    [
        (enlarge_weight, 15),
        (enlarge_bias, 15),
        # A tensor that nothing rounds to has its scale for show; a zero point only clamps.
        (enlarge_scale, 10),
        (move_zero_point, 8),
    ],
)
def test_running_the_file_alone_shows_what_changes_results(files, corrupt, least):
    network = integer_networks.small()
    images = integer_networks.images(network, 40)
    runtime = interpreters.Runtime("LiteRT", "opt")
    wanted = interpreters.run(runtime, files["int8"], [images])
    seen = 0
    for seed in range(15):
        model = from_bytes(files["int8"])
        corrupt(np.random.default_rng(seed), model)
        try:
            found = interpreters.run(runtime, to_bytes(model), [images])
        except RuntimeError:  # The runtime refuses the file.
            seen += 1
            continue
        seen += any((found[name] != wanted[name]).any() for name in wanted)
    assert seen >= least
