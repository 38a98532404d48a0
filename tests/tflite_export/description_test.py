from __future__ import annotations

import pytest

from tests.tflite_export.flatbuffer_networks import small_network
from tflite_export.description import describe
from tflite_export.flatbuffer import write
from tflite_export.flatbuffer_schema import from_bytes, text, to_bytes


def test_lists_operators_tensors_and_storage():
    blob = write(small_network("int2"), storage="int2")
    description = describe(blob)
    assert description.storage == "int2"
    assert description.num_bytes == len(blob)
    assert [operator.name for operator in description.operators] == [
        *("DEQUANTIZE", "CAST", "CONV_2D"),
        *("DEQUANTIZE", "CAST", "DEPTHWISE_CONV_2D", "QUANTIZE"),
        *("ADD", "CONCATENATION", "MAX_POOL_2D", "PAD", "RESHAPE"),
        *("DEQUANTIZE", "CAST", "FULLY_CONNECTED"),
    ]
    tensors = {tensor.name: tensor for tensor in description.tensors}
    first = tensors["first/kernel/packed"]
    assert (first.type_name, first.shape) == ("INT4", (8, 3, 3, 3))
    assert first.num_bytes == 8 * 3 * 3 * 3 * 4 // 8
    assert first.scales == (16,)  # The multiplier.
    assert tensors["logits/kernel/packed"].num_bytes == 10 * 288 * 2 // 8
    assert tensors["image"].zero_points == (-128,)
    assert [description.tensors[i].name for i in description.inputs] == ["image", "mask"]
    assert [description.tensors[i].name for i in description.outputs] == ["logits", "features"]
    assert description.weight_bytes == sum(
        [
            *(8 * 27 * 4 // 8, 16 * 9 * 2 // 8, 2880 * 2 // 8),
            *(4 * 8, 4 * 16, 4 * 10),
            *(4 * 2 * 4, 4 * 2),  # Amounts of padding, shape.
        ]
    )


@pytest.mark.parametrize("storage", ["int8", "int4", "int2", "tflm"])
def test_the_table_has_a_line_per_operation_and_fits_the_width(storage):
    model = small_network(storage)
    lines = str(describe(write(model, storage=storage))).splitlines()
    assert max(map(len, lines)) <= 100
    assert f"storage {storage}" in lines[0]
    outputs = [line.split()[1] for line in lines[2:]]
    assert [o for o in outputs if o != "depthwise/unclamped"] == [
        operation.output for operation in model.operations
    ]


@pytest.mark.parametrize(
    ("storage", "constants", "num_bytes"),
    [
        ("int8", "int8*2880 int32*10", 2880 + 4 * 10),
        ("int4", "int4*2880 int32*10", 2880 // 2 + 4 * 10),
        ("int2", "int2*2880 int32*10", 2880 // 4 + 4 * 10),
        ("tflm", "lut2*2880 int32*10", 2880 // 4 + 16 + 3 * 10 + 4 * 10),
    ],
)
def test_the_table_tells_the_bits_and_bytes_of_weights(storage, constants, num_bytes):
    line = str(describe(write(small_network(storage), storage=storage))).splitlines()[-1]
    assert line.split()[:4] == ["FULLY_CONNECTED", "logits", "1x10", "int8"]
    assert line.split("int8", 1)[1].split() == [*constants.split(), f"{num_bytes:,}"]


def test_the_table_shortens_long_names():
    file = from_bytes(write(small_network("int8")))
    for tensor in file.subgraphs[0].tensors:
        tensor.name = "a_long_scope/" * 12 + text(tensor.name)
    lines = str(describe(to_bytes(file))).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(".." in line and "/first " in line for line in lines)


def test_knows_files_of_other_writers():
    file = from_bytes(write(small_network("int8")))
    file.description = None
    for code in file.operatorCodes:
        code.builtinCode = 0  # As old writers leave it.
    description = describe(to_bytes(file))
    assert description.storage is None
    assert "of another writer" in str(description)
    assert description.operators[0].name == "CONV_2D"


@pytest.mark.parametrize("blob", [b"", b"TFL3", b"\0" * 100, b"\x08\0\0\0TFL2" + b"\0" * 100])
def test_refuses_what_is_not_tflite(blob):
    with pytest.raises(ValueError, match="`blob` must be a TFLite file"):
        describe(blob)


def test_refuses_every_truncated_file():
    blob = write(small_network("int2"), storage="int2")
    for length in range(8, len(blob)):
        with pytest.raises(ValueError, match="truncated or damaged"):
            describe(blob[:length])


def test_refuses_tensors_that_do_not_exist():
    file = from_bytes(write(small_network("int8")))
    file.subgraphs[0].operators[3].inputs = file.subgraphs[0].operators[3].inputs + 1000
    with pytest.raises(ValueError, match="truncated or damaged .* tensors .* do not exist"):
        describe(to_bytes(file))


def test_refuses_several_graphs():
    file = from_bytes(write(small_network("int8")))
    file.subgraphs = file.subgraphs * 2
    with pytest.raises(ValueError, match="one graph, got 2"):
        describe(to_bytes(file))
