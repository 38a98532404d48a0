"""Files of one operation, from TensorFlow's schema objects, and interpreters to run them."""

from __future__ import annotations

import importlib.util

import flatbuffers
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

_TYPES = {np.dtype(np.int8): 9, np.dtype(np.int32): 2}


def _tensor(model, name, shape, dtype, scale, zero_point=0, data=None, axis=0):
    buffer = schema.BufferT()
    if data is not None:
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name, list(shape), _TYPES[np.dtype(dtype)]
    tensor.buffer = len(model.buffers) - 1
    if scale is not None:
        quantization = schema.QuantizationParametersT()
        quantization.scale = np.atleast_1d(np.asarray(scale, np.float32))
        quantization.zeroPoint = np.full(quantization.scale.shape, zero_point, np.int64)
        quantization.quantizedDimension = axis
        tensor.quantization = quantization
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def build(operator, options, tensors, inputs, outputs, version=3):
    """Returns the file of one operator.

    Args:
        operator: Its name in the schema, such as `"CONV_2D"`.
        options: The schema's options object.
        tensors: Arguments of `_tensor`, as dicts, in the operator's order, outputs last.
        inputs: Indices of the tensors that are the graph's inputs.
        outputs: Indices of the tensors that are its outputs.
        version: Of the operator.
    """
    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors = []
    model.subgraphs = [graph]
    for tensor in tensors:
        _tensor(model, **tensor)
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode, code.version = code.builtinCode, version
    model.operatorCodes = [code]
    step = schema.OperatorT()
    step.inputs = [i for i in range(len(tensors)) if i not in outputs]
    step.outputs = list(outputs)
    step.builtinOptions = options
    name = type(options).__name__[:-1]
    step.builtinOptionsType = getattr(schema.BuiltinOptions, name)
    graph.operators, graph.inputs, graph.outputs = [step], list(inputs), list(outputs)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def interpreters():
    """Returns {(runtime, kernel): a function from a file to an interpreter}."""
    from ai_edge_litert import interpreter as litert

    runtimes = {
        "tf.lite": (tf.lite.Interpreter, tf.lite.experimental.OpResolverType),
        "litert": (litert.Interpreter, litert.OpResolverType),
    }
    made = {}
    for runtime, (make, resolver) in runtimes.items():
        modes = {
            "ref": resolver.BUILTIN_REF,
            "opt": resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            "xnn": resolver.AUTO,
        }
        for kernel, mode in modes.items():
            made[runtime, kernel] = lambda blob, make=make, mode=mode: make(
                model_content=blob, experimental_op_resolver_type=mode
            )
    return made


def run(blob, inputs, interpreter):
    """Returns the graph's only output for inputs in the graph's order."""
    machine = interpreter(blob)
    machine.allocate_tensors()
    for detail, value in zip(machine.get_input_details(), inputs, strict=True):
        machine.set_tensor(detail["index"], value)
    machine.invoke()
    return machine.get_tensor(machine.get_output_details()[0]["index"])


def run_all(blob, inputs):
    """Returns {(runtime, kernel): output}; tflite-micro is there where it is installed."""
    results = {name: run(blob, inputs, make) for name, make in interpreters().items()}
    if importlib.util.find_spec("tflite_micro") is not None:
        results["tflite-micro", "tflm"] = _run_micro(blob, inputs)
    return results


def _run_micro(blob, inputs):
    from tflite_micro.python.tflite_micro import runtime

    machine = runtime.Interpreter.from_bytes(blob, arena_size=2**24)
    for index, value in enumerate(inputs):
        machine.set_input(value, index)
    machine.invoke()
    return machine.get_output(0)
