from __future__ import annotations

import sys
import types

import pytest

from tests.tflite_export.flatbuffer_networks import small_network
from tflite_export import flatbuffer_schema
from tflite_export.flatbuffer import write

LITERT = "ai_edge_litert.schema_py_generated"
TENSORFLOW = "tensorflow.lite.python.schema_py_generated"


@pytest.fixture
def schema():
    """The function, which forgets what other tests found and is made to forget what this does."""
    flatbuffer_schema.schema.cache_clear()
    yield flatbuffer_schema.schema
    flatbuffer_schema.schema.cache_clear()


def _hide(monkeypatch, *names):
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)  # Its import raises ModuleNotFoundError.


def test_litert_and_tensorflow_write_the_same_file(schema, monkeypatch):
    model = small_network("int2")
    blob = write(model, storage="int2")
    assert schema().__name__ == LITERT
    schema.cache_clear()
    _hide(monkeypatch, LITERT)
    assert write(model, storage="int2") == blob
    assert schema().__name__ == TENSORFLOW


def test_needs_litert_or_tensorflow(schema, monkeypatch):
    _hide(monkeypatch, LITERT, TENSORFLOW)
    with pytest.raises(ImportError, match="needs the package `ai-edge-litert` or `tensorflow`"):
        write(small_network("int8"))


def test_an_older_schema_names_the_type_that_it_lacks(schema, monkeypatch):
    real = schema()
    older = types.ModuleType("older")
    vars(older).update(vars(real), __name__="older")
    older.TensorType = type(
        "TensorType", (), {k: v for k, v in vars(real.TensorType).items() if k != "INT2"}
    )
    monkeypatch.setitem(sys.modules, LITERT, older)
    schema.cache_clear()
    write(small_network("int4"), storage="int4")
    with pytest.raises(ValueError, match="type INT2 need a newer schema than 'older' has"):
        write(small_network("int2"), storage="int2")


def test_a_field_that_the_schema_lacks_is_an_error():
    with pytest.raises(AttributeError, match="`TensorT` has no field 'shapes'"):
        flatbuffer_schema.make("TensorT", shapes=None)
