from __future__ import annotations

import numpy as np
import pytest

from tests.tflite_export.flatbuffer_networks import small_network
from tflite_export.flatbuffer import write
from tflite_export.flatbuffer_checks import check_integer_only, compare
from tflite_export.flatbuffer_schema import from_bytes, make, schema, tensor_type, to_bytes

STORAGES = ["int8", "int4", "int2", "tflm"]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("types", [("int8", "int8"), ("uint8", "uint8"), ("float32", "float32")])
def test_written_files_compute_no_activation_in_floats(storage, types):
    blob = write(small_network(storage), storage=storage, input_type=types[0], output_type=types[1])
    check_integer_only(blob)


def _float_in_the_middle(file):
    """Puts DEQUANTIZE and QUANTIZE between the pool and the padding."""
    (subgraph,) = file.subgraphs
    names = [t.name for t in subgraph.tensors]
    pooled = names.index(b"pooled")
    source = subgraph.tensors[pooled]
    for name, type_name, quantization in (
        ("real", "FLOAT32", None),
        ("back", "INT8", source.quantization),
    ):
        subgraph.tensors.append(
            make(
                "TensorT",
                name=name,
                type=tensor_type(type_name),
                shape=source.shape,
                buffer=0,
                quantization=quantization,
            )
        )
    real, back = len(names), len(names) + 1
    position = next(i for i, o in enumerate(subgraph.operators) if pooled in o.outputs) + 1
    subgraph.operators[position].inputs = np.array([back, *subgraph.operators[position].inputs[1:]])
    for name, inputs, outputs in (("QUANTIZE", real, back), ("DEQUANTIZE", pooled, real)):
        code = getattr(schema().BuiltinOperator, name)
        file.operatorCodes.append(
            make("OperatorCodeT", builtinCode=code, deprecatedBuiltinCode=code)
        )
        operator = make(
            "OperatorT",
            opcodeIndex=len(file.operatorCodes) - 1,
            inputs=np.array([inputs], np.int32),
            outputs=np.array([outputs], np.int32),
        )
        subgraph.operators.insert(position, operator)


def test_finds_floats_in_the_middle():
    file = from_bytes(write(small_network("int8")))
    _float_in_the_middle(file)
    message = r"in floating point: DEQUANTIZE \(real\), QUANTIZE \(back\)\."
    with pytest.raises(ValueError, match=message):
        check_integer_only(to_bytes(file))


@pytest.mark.parametrize("name", ["first", "sum", "joined", "logits"])
def test_finds_a_float_activation(name):
    file = from_bytes(write(small_network("int8")))
    tensor = next(t for t in file.subgraphs[0].tensors if t.name == name.encode())
    tensor.type = tensor_type("FLOAT32")
    with pytest.raises(ValueError, match=rf"floating point: .*\({name}\)"):
        check_integer_only(to_bytes(file))


def test_finds_a_network_output_that_is_read_as_float():
    file = from_bytes(write(small_network("int8"), output_type="float32"))
    (subgraph,) = file.subgraphs
    names = [t.name for t in subgraph.tensors]
    features, real = names.index(b"features"), names.index(b"features/float32")
    dense = next(o for o in subgraph.operators if o.inputs[0] == features and len(o.inputs) == 3)
    dense.inputs = np.array([real, *dense.inputs[1:]])
    with pytest.raises(ValueError, match=r"DEQUANTIZE \(features/float32\)"):
        check_integer_only(to_bytes(file))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_file_equals_itself_and_its_repacking(storage):
    blob = write(small_network(storage), storage=storage)
    assert compare(blob, blob) == ()
    assert compare(to_bytes(from_bytes(blob)), blob) == ()


def _leaves(value, path=()):
    """Yields the paths of all numbers and strings in a schema object."""
    if hasattr(value, "__dict__"):
        for field, item in vars(value).items():
            yield from _leaves(item, (*path, field))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    elif isinstance(value, np.ndarray):
        for index in range(value.size):
            yield (*path, index)
    elif value is not None:
        yield path


def _follow(value, path):
    for part in path:
        value = getattr(value, part) if isinstance(part, str) else value[part]
    return value


def _corrupt(file, path, rng) -> None:
    """Changes the number or string at a path."""
    *owner, last = path
    parent = _follow(file, owner)
    if isinstance(parent, np.ndarray):
        changed = parent.copy()
        bits = changed[last : last + 1].view(np.uint8)
        bits[rng.integers(bits.size)] ^= np.uint8(1 << rng.integers(8))
        setattr(_follow(file, owner[:-1]), owner[-1], changed)
    else:
        value = getattr(parent, last)
        changes = {bytes: lambda: value + b"x", bool: lambda: not value, float: lambda: 2 * value}
        setattr(parent, last, changes.get(type(value), lambda: value + 1)())


def _is_readable(blob: bytes) -> bool:
    try:
        from_bytes(blob)
    except ValueError:
        return False
    return True


# Numbers whose change makes an object of another class, or that only point elsewhere in the file.
_NOT_DATA = {"builtinOptionsType", "builtinOptions2Type", "detailsType", "offset", "size"}


@pytest.mark.parametrize("storage", STORAGES)
def test_finds_every_changed_number(storage):
    """200 of all numbers and strings, one at a time, with their place."""
    blob = write(small_network(storage), storage=storage)
    paths = [p for p in _leaves(from_bytes(blob)) if not _NOT_DATA & set(p)]
    rng = np.random.default_rng(17)
    # Contents are most of a file: all else is drawn as often as they.
    contents = [p for p in paths if p[0] == "buffers"]
    others = [p for p in paths if p[0] != "buffers"]
    drawn = [*rng.permutation(len(contents))[:100], *(-1 - rng.permutation(len(others))[:100])]
    for number in drawn:
        path = contents[number] if number >= 0 else others[-1 - number]
        file = from_bytes(blob)
        _corrupt(file, path, rng)
        corrupted = to_bytes(file)
        if not _is_readable(corrupted):  # The number was an index.
            continue
        (difference,) = compare(corrupted, blob)
        assert str(path[-1]) in difference.field


def test_names_the_tensor_the_field_and_the_values():
    blob = write(small_network("int8"))
    file = from_bytes(blob)
    names = [t.name for t in file.subgraphs[0].tensors]
    kernel = file.subgraphs[0].tensors[names.index(b"first/kernel")]
    scale = kernel.quantization.scale.copy()
    scale[3] *= 2
    kernel.quantization.scale = scale
    bias = file.buffers[file.subgraphs[0].tensors[names.index(b"first/bias")].buffer]
    bias.data = bias.data ^ np.uint8(1)
    file.subgraphs[0].operators[0].builtinOptions.strideH = 2
    found = compare(to_bytes(file), blob)
    assert [(d.where, d.field) for d in found] == [
        ("first/kernel", "quantization.scale.3"),
        ("operator 0 (first)", "builtinOptions.strideH"),
        ("first/bias", "data.0"),
    ]
    assert str(found[1]) == "operator 0 (first): builtinOptions.strideH is 2, expected 1"
    assert found[2].found.endswith("(and 31 others)")


def test_finds_missing_and_additional_parts():
    blob = write(small_network("int8"))
    file = from_bytes(blob)
    file.signatureDefs = None
    file.subgraphs[0].operators.append(file.subgraphs[0].operators[-1])
    file.subgraphs[0].tensors[0].shape = np.array([1, 8, 8], np.int32)
    assert [(d.where, d.field) for d in compare(to_bytes(file), blob)] == [
        ("image", "shape.length"),
        ("file", "subgraphs.0.operators.length"),
        ("file", "signatureDefs"),
    ]


def test_refuses_what_is_not_tflite():
    blob = write(small_network("int8"))
    with pytest.raises(ValueError, match="must be a TFLite file"):
        compare(b"no", blob)
    with pytest.raises(ValueError, match="truncated or damaged"):
        compare(blob, blob[:-10])
    with pytest.raises(ValueError, match="must be a TFLite file"):
        check_integer_only(b"no")
