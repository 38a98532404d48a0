"""How much memory a runtime sets aside for a file's activations: its arena, measured."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Iterable
from typing import Any

from tflite_export.interpreters import KERNELS, MODULES, available
from tflite_export.interpreters_graph import FileGraph


@dataclasses.dataclass(frozen=True)
class Arena:
    """The memory of a file's activations in a runtime, for the file's own batch.

    Attributes:
        num_bytes: All bytes that hold some tensor at some time: the peak.
        scratch_bytes: The largest piece that a kernel takes for itself (unrolled windows, as a
            rule); 0 without one.
    """

    num_bytes: int
    scratch_bytes: int


def measure_arena(blob: bytes, *, library: str = "tf.lite", kernels: str = "ref") -> Arena:
    """Returns the size of the arena in which a runtime has placed a file's tensors.

    The interpreters tell no size, but each tensor's address. Tensors whose lives do not overlap
    share addresses, so the union of their ranges is the peak of the memory.

    Args:
        blob: A whole `.tflite` file.
        library: "tf.lite" or "LiteRT", which must be installed.
        kernels: "ref" (plain loops, no scratch memory; as on a microcontroller) or "opt". XNNPACK
            keeps activations in memory of its own.

    Raises:
        TypeError: If `blob` is no bytes.
        ValueError: If `library` or `kernels` is none of these, `library` is not installed, or
            `blob` is no file of TFLite.
        RuntimeError: If the runtime cannot run the file.
    """
    if kernels not in ("ref", "opt"):
        raise ValueError(f'`kernels` must be "ref" or "opt", got {kernels!r}.')
    libraries = [x.library for x in available() if x.kernels == kernels and x.library != "TFLM"]
    if library not in libraries:
        raise ValueError(
            f"`library` must be one that is installed ({', '.join(libraries)}), got {library!r}."
        )
    graph = FileGraph(blob)
    module = importlib.import_module(MODULES[library])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite's is to be replaced by LiteRT's
        interpreter = module.Interpreter(
            model_content=blob,
            experimental_op_resolver_type=getattr(module.OpResolverType, KERNELS[kernels]),
            num_threads=1,
        )
    interpreter.allocate_tensors()
    # What the file does not know is scratch memory; its constants are read where they are.
    indices = [detail["index"] for detail in interpreter.get_tensor_details()]
    scratch = [index for index in indices if index >= len(graph.tensors)]
    spans = {index: _span(interpreter, index) for index in graph.inputs + graph.computed + scratch}
    sizes = [spans[index][1] - spans[index][0] for index in scratch]
    return Arena(_union_length(spans.values()), max(sizes, default=0))


def _union_length(spans: Iterable[tuple[int, int]]) -> int:
    """The number of addresses that are in a range or several."""
    total = reached = 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _span(interpreter: Any, index: int) -> tuple[int, int]:
    """The first address of a tensor and the one after its last."""
    array = interpreter.tensor(index)()
    start = array.__array_interface__["data"][0]
    return start, start + array.nbytes
