"""What integer networks compute by NumPy, and what the interpreters make of their files."""

from __future__ import annotations

import functools
import itertools

import numpy as np
from ai_edge_litert import interpreter as litert

from tflite_export import integer_model as im

KERNELS = ("BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "AUTO")
COMBINATIONS = tuple(itertools.product(("tf.lite", "LiteRT"), KERNELS))


def interpreter(blob: bytes, runtime: str, kernels: str, **options):
    """Returns an interpreter with its tensors not yet allocated."""
    if runtime == "LiteRT":
        resolver = getattr(litert.OpResolverType, kernels)
        make = litert.Interpreter
    else:
        import tensorflow as tf

        resolver = getattr(tf.lite.experimental.OpResolverType, kernels)
        make = tf.lite.Interpreter
    return make(model_content=blob, experimental_op_resolver_type=resolver, **options)


def run(running, values: list[np.ndarray]) -> list[np.ndarray]:
    """Returns an allocated interpreter's outputs for one example, without the batch dimension."""
    for details, value in zip(running.get_input_details(), values, strict=True):
        running.set_tensor(details["index"], value[None])
    running.invoke()
    return [running.get_tensor(d["index"])[0] for d in running.get_output_details()]


def to_int8(model: im.IntegerModel, name: str, levels: np.ndarray) -> np.ndarray:
    return (levels + model.tensors[name].zero_point).astype(np.int8)


def random_levels(model: im.IntegerModel, rng: np.random.Generator) -> list[np.ndarray]:
    """Returns levels for each input, both ends of the grid among them."""
    result = []
    for name in model.inputs:
        tensor = model.tensors[name]
        levels = rng.integers(tensor.low, tensor.high + 1, tensor.shape)
        levels.flat[:2] = tensor.low, tensor.high
        result.append(levels)
    return result


def examples(model: im.IntegerModel, count: int = 2):
    """Returns examples: int8 inputs, and the levels of all outputs by the exact rule."""
    rng = np.random.default_rng(7)
    result = []
    for _ in range(count):
        inputs = dict(zip(model.inputs, random_levels(model, rng), strict=True))
        levels = compute(model, inputs)
        stored = [to_int8(model, name, inputs[name]) for name in model.inputs]
        result.append((stored, [to_int8(model, name, levels[name]) for name in model.outputs]))
    return result


def assert_runtimes_agree(model: im.IntegerModel, blob: bytes, combinations=COMBINATIONS) -> None:
    """Compares the outputs of every combination with those computed here."""
    expected = examples(model)
    for runtime, kernels in combinations:
        running = interpreter(blob, runtime, kernels)
        running.allocate_tensors()
        for inputs, outputs in expected:
            found = run(running, inputs)
            for name, *pair in zip(model.outputs, found, outputs, strict=True):
                message = f"{name} on {runtime} {kernels}"
                np.testing.assert_array_equal(*pair, err_msg=message)


def compute(model: im.IntegerModel, levels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the levels of all tensors, by the exact rule."""
    levels = dict(levels)
    for operation in model.operations:
        sources = [levels[name] for name in operation.inputs]
        output = model.tensors[operation.output]
        result = _compute(operation, sources, model)
        if getattr(operation, "relu", False):
            result = np.maximum(result, 0)
        levels[operation.output] = np.clip(result, output.low, output.high)
        assert levels[operation.output].shape == output.shape, operation.name
    return levels


@functools.singledispatch
def _compute(operation, sources, model):
    raise NotImplementedError(type(operation))


def _round(operation, accumulator, model):
    """The exact rule: half up. All scales here are powers of two times one, so nothing rounds."""
    units = np.float64(model.tensors[operation.inputs[0]].scale) * operation.kernel.scale
    ratio = units / np.float64(model.tensors[operation.output].scale)
    return np.floor((accumulator + operation.kernel.bias) * ratio + 0.5).astype(np.int64)


def _stored(operation, axis):
    shape = [1] * operation.kernel.integers.ndim
    shape[axis] = -1
    return operation.kernel.integers.astype(np.int64) * operation.kernel.multiplier.reshape(shape)


def _padded(q, size, operation):
    """Pads as TensorFlow's "same" does; returns rows and columns of the output, too."""
    if operation.padding == "valid":
        return q, [-(-(q.shape[i] - size[i] + 1) // operation.strides[i]) for i in range(2)]
    outputs = [-(-q.shape[i] // operation.strides[i]) for i in range(2)]
    amounts = []
    for i in range(2):
        total = max(0, (outputs[i] - 1) * operation.strides[i] + size[i] - q.shape[i])
        amounts.append((total // 2, total - total // 2))
    return np.pad(q, [*amounts, (0, 0)]), outputs


def _taps(q, kernel_size, operation, dilation=(1, 1)):
    """Yields each position of the kernel and the inputs that it meets."""
    size = [(kernel_size[i] - 1) * dilation[i] + 1 for i in range(2)]
    padded, (rows, columns) = _padded(q, size, operation)
    step_r, step_c = operation.strides
    for r, c in itertools.product(*map(range, kernel_size)):
        top, left = r * dilation[0], c * dilation[1]
        yield r, c, padded[top:, left:][: rows * step_r : step_r, : columns * step_c : step_c]


@_compute.register
def _(operation: im.Multiply, sources, model):
    first, second, output = (
        np.float64(model.tensors[name].scale) for name in (*operation.inputs, operation.output)
    )
    return np.floor(sources[0] * sources[1] * (first * second / output) + 0.5).astype(np.int64)


@_compute.register
def _(operation: im.Lookup, sources, model):
    return operation.table[sources[0] - model.tensors[operation.inputs[0]].low]


@_compute.register
def _(operation: im.Conv2D, sources, model):
    stored = _stored(operation, 0)
    out, height, width, depth = stored.shape
    groups = sources[0].shape[-1] // depth
    total = 0
    for r, c, window in _taps(sources[0], (height, width), operation, operation.dilation):
        parts = [
            window[..., g * depth : (g + 1) * depth]
            @ stored[g * out // groups : (g + 1) * out // groups, r, c].T
            for g in range(groups)
        ]
        total = total + np.concatenate(parts, -1)
    return _round(operation, total, model)


@_compute.register
def _(operation: im.DepthwiseConv2D, sources, model):
    stored = _stored(operation, 3)
    _, height, width, out = stored.shape
    repeated = np.repeat(sources[0], out // sources[0].shape[-1], -1)
    taps = _taps(repeated, (height, width), operation, operation.dilation)
    return _round(operation, sum(window * stored[0, r, c] for r, c, window in taps), model)


@_compute.register
def _(operation: im.TransposeConv, sources, model):
    stored = _stored(operation, 0)
    out, height, width, _ = stored.shape
    rows, columns, _ = model.tensors[operation.output].shape
    (q,) = sources
    full = np.zeros(
        (
            (q.shape[0] - 1) * operation.strides[0] + height,
            (q.shape[1] - 1) * operation.strides[1] + width,
            out,
        ),
        np.int64,
    )
    for r, c in itertools.product(range(q.shape[0]), range(q.shape[1])):
        top, left = r * operation.strides[0], c * operation.strides[1]
        full[top : top + height, left : left + width] += np.einsum("i,ohwi->hwo", q[r, c], stored)
    top, left = (full.shape[0] - rows) // 2, (full.shape[1] - columns) // 2
    return _round(operation, full[top : top + rows, left : left + columns], model)


@_compute.register
def _(operation: im.FullyConnected, sources, model):
    return _round(operation, sources[0] @ _stored(operation, 0).T, model)


@_compute.register
def _(operation: im.Add, sources, model):
    real = sum(
        sign * q * np.float64(model.tensors[name].scale)
        for sign, q, name in zip((1, operation.sign), sources, operation.inputs, strict=True)
    )
    return np.floor(real / np.float64(model.tensors[operation.output].scale) + 0.5).astype(int)


@_compute.register
def _(operation: im.Shift, sources, model):
    return sources[0] + operation.amount


@_compute.register
def _(operation: im.Maximum, sources, model):
    return np.where(sources[0] > sources[1], *sources)


@_compute.register
def _(operation: im.Minimum, sources, model):
    return np.where(sources[0] < sources[1], *sources)


@_compute.register
def _(operation: im.Concatenation, sources, model):
    return np.concatenate(sources, operation.axis - (operation.axis > 0))


@_compute.register
def _(operation: im.MaxPool2D, sources, model):
    lowest = model.tensors[operation.inputs[0]].low
    taps = _taps(sources[0] - lowest, operation.pool, operation)
    return functools.reduce(np.maximum, (window for _, _, window in taps)) + lowest


@_compute.register
def _(operation: im.Pad, sources, model):
    return np.pad(sources[0], operation.amounts)


@_compute.register
def _(operation: im.EdgePad, sources, model):
    result = sources[0]
    for axis, (before, after) in enumerate(operation.amounts):
        size = result.shape[axis]
        result = np.take(result, [0] * before + [*range(size)] + [size - 1] * after, axis)
    return result


@_compute.register
def _(operation: im.Crop, sources, model):
    result = sources[0]
    for axis, (before, after) in enumerate(operation.amounts):
        result = np.take(result, range(before, result.shape[axis] - after), axis)
    return result


@_compute.register
def _(operation: im.Permute, sources, model):
    return np.einsum(sources[0], range(sources[0].ndim), operation.order)


@_compute.register
def _(operation: im.UpSample2D, sources, model):
    return np.kron(sources[0], np.ones((*operation.size, 1), int))


@_compute.register
def _(operation: im.Reshape, sources, model):
    return sources[0].reshape(model.tensors[operation.output].shape)
