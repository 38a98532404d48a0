"""What the real runtimes make of a file: the level of every activation tensor.

A runtime hands out only a file's outputs faithfully (XNNPACK computes in memory of its own, the
others reuse theirs), so every activation is made an output of a copy of the file; the file's own
outputs are read from the file as it is.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tflite_export.interpreters_graph import FileGraph

KERNELS = {  # name -> the interpreters' name for it
    "ref": "BUILTIN_REF",
    "opt": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "xnn": "AUTO",  # XNNPACK where it has the operation
}
MODULES = {
    "tf.lite": "tensorflow.lite.python.interpreter",
    "LiteRT": "ai_edge_litert.interpreter",
    "TFLM": "tflite_micro.python.tflite_micro.runtime",
}
_BATCH_BYTES = 2**26
_MAX_BATCH = 128
_ARENA_BYTES = 2**24  # for what tflite-micro keeps besides the activations

Arrays = list[npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Runtime:
    """An interpreter and the kernels that it is told to use.

    Attributes:
        library: `"tf.lite"`, `"LiteRT"` or `"TFLM"` (tflite-micro).
        kernels: `"ref"`, `"opt"` or `"xnn"`; tflite-micro has only `"ref"`.
    """

    library: str
    kernels: str

    @property
    def name(self) -> str:
        """`"tf.lite xnn"`; `"TFLM"` for tflite-micro."""
        return self.library if self.library == "TFLM" else f"{self.library} {self.kernels}"


def available() -> tuple[Runtime, ...]:
    """Returns the runtimes that are installed."""
    found = [
        Runtime(library, kernels)
        for library in ("tf.lite", "LiteRT")
        if _is_installed(library)
        for kernels in KERNELS
    ]
    if _is_installed("TFLM"):
        found.append(Runtime("TFLM", "ref"))
    return tuple(found)


class Network:
    """A file in a runtime, which hands out the level of every tensor.

    Args:
        runtime: One of `available()`.
        blob: A whole `.tflite` file.
        max_batch: Images to run at once, where the file's shapes allow that.

    Raises:
        ValueError: If `blob` is no file of TFLite.
        RuntimeError: If the runtime cannot run the file.
    """

    def __init__(self, runtime: Runtime, blob: bytes, max_batch: int = _MAX_BATCH):
        self._graph = FileGraph(blob)
        self._whole = _open(runtime, blob, self._graph)
        self._probe = _open_probe(runtime, self._graph, max_batch)

    def run(self, inputs: Sequence[npt.ArrayLike]) -> dict[str, npt.NDArray[np.int32]]:
        """Returns the levels that the runtime computes: tensor name -> integers, batch first.

        Every quantized tensor between the inputs and the outputs is there, both included. A float
        tensor has no levels.

        Args:
            inputs: Real values for each input of the file, batch first. They are rounded to the
                input tensor's levels, half up; a float32 input takes them as they are.

        Raises:
            ValueError: If `inputs` does not fit the file.
            RuntimeError: If the runtime fails.
        """
        graph = self._graph
        stored = graph.store(inputs)
        found = dict(zip(graph.inputs, stored, strict=True))
        found.update(_run(self._probe, graph, graph.computed, stored))
        found.update(_run(self._whole, graph, graph.outputs, stored))
        levels = {graph.name(index): graph.levels(index, array) for index, array in found.items()}
        return {name: values for name, values in levels.items() if values is not None}


def run(
    runtime: Runtime, blob: bytes, inputs: Sequence[npt.ArrayLike]
) -> dict[str, npt.NDArray[np.int32]]:
    """Returns the levels that a runtime computes; see `Network`."""
    return Network(runtime, blob, max_batch=len(np.asarray(inputs[0]))).run(inputs)


def _run(
    session: _Session, graph: FileGraph, outputs: list[int], inputs: Arrays
) -> dict[int, npt.NDArray[Any]]:
    """Runs all images; returns what a session hands out, by the index of the tensor."""
    parts: dict[int, Arrays] = {index: [] for index in outputs}
    for batch, count in _batches(inputs, session.batch_size):
        # A file may give a tensor several times.
        for index, values in dict(zip(outputs, session.run(batch), strict=True)).items():
            shape = (session.batch_size, *graph.tensors[index].shape[1:])
            parts[index].append(values.reshape(shape)[:count].copy())
    return {index: np.concatenate(arrays) for index, arrays in parts.items()}


class _Session(Protocol):
    """A runtime with a file, ready to run batches."""

    batch_size: int

    def run(self, inputs: Arrays) -> Arrays:
        """Returns the outputs, in the file's order."""


class _Interpreter:
    """`tf.lite` or LiteRT."""

    def __init__(self, runtime: Runtime, blob: bytes, batch_size: int | None):
        module = importlib.import_module(MODULES[runtime.library])
        resolver = getattr(module.OpResolverType, KERNELS[runtime.kernels])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tf.lite's is to be replaced by LiteRT's
            self._interpreter = module.Interpreter(
                model_content=blob, experimental_op_resolver_type=resolver, num_threads=1
            )
        details = self._interpreter.get_input_details()
        self._inputs = [detail["index"] for detail in details]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self.batch_size = batch_size or int(details[0]["shape"][0])
        if batch_size:
            for detail in details:
                shape = [batch_size, *detail["shape"][1:]]
                self._interpreter.resize_tensor_input(detail["index"], shape)
        self._interpreter.allocate_tensors()

    @property
    def is_batched(self) -> bool:
        """Whether every output has the batch of the inputs; fixed shapes keep theirs."""
        details = self._interpreter.get_output_details()
        return all(detail["shape"][0] == self.batch_size for detail in details)

    def run(self, inputs: Arrays) -> Arrays:
        for index, values in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, values)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


class _MicroInterpreter:
    """tflite-micro."""

    def __init__(self, blob: bytes, graph: FileGraph, num_outputs: int):
        module = importlib.import_module(MODULES["TFLM"])
        arena = _ARENA_BYTES + len(blob) + 2 * graph.num_bytes
        self._interpreter = module.Interpreter.from_bytes(blob, arena_size=arena)
        self._num_outputs = num_outputs
        self.batch_size = graph.batch_size

    def run(self, inputs: Arrays) -> Arrays:
        for index, values in enumerate(inputs):
            self._interpreter.set_input(values, index)
        self._interpreter.invoke()
        return [self._interpreter.get_output(index) for index in range(self._num_outputs)]


def _open(runtime: Runtime, blob: bytes, graph: FileGraph) -> _Session:
    """The file as it is, with the batch that it was written for."""
    if runtime.library == "TFLM":
        return _MicroInterpreter(blob, graph, len(graph.outputs))
    return _Interpreter(runtime, blob, None)


def _open_probe(runtime: Runtime, graph: FileGraph, max_batch: int) -> _Session:
    """The copy that hands out every activation; in large batches where its shapes allow that."""
    blob = graph.all_outputs()
    if runtime.library == "TFLM":
        return _MicroInterpreter(blob, graph, len(graph.computed))
    size = max(1, min(max_batch, _BATCH_BYTES // graph.num_bytes))
    try:
        session = _Interpreter(runtime, blob, size)
    except RuntimeError:  # an operation that takes the file's own batch only
        return _Interpreter(runtime, blob, None)
    return session if session.is_batched else _Interpreter(runtime, blob, None)


def _batches(arrays: Arrays, size: int) -> Iterator[tuple[Arrays, int]]:
    """Yields batches of exactly `size` images, and how many of them are not padding."""
    for start in range(0, len(arrays[0]), size):
        parts = [values[start : start + size] for values in arrays]
        count = len(parts[0])
        yield [np.concatenate([part, part[:1].repeat(size - count, 0)]) for part in parts], count


def _is_installed(library: str) -> bool:
    return importlib.util.find_spec(MODULES[library].partition(".")[0]) is not None
