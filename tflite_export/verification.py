"""`verify`: a file against the model that it was made from, the accelerator, and all kernels."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tflite_export import interpreters
from tflite_export.description import Description, describe
from tflite_export.execution import execute
from tflite_export.flatbuffer import TYPES, write
from tflite_export.flatbuffer_checks import Difference, compare
from tflite_export.flatbuffer_schema import check_blob
from tflite_export.graph_reader import FoldedModel, fold_model
from tflite_export.integer_model import IntegerModel
from tflite_export.keras_levels import keras_levels, tensor_names
from tflite_export.lowering import lower_folded
from tflite_export.progress import Progress
from tflite_export.proof import RealFunction, prove
from tflite_export.report import VerificationReport
from tflite_export.requantization import KERNELS
from tflite_export.snap_model import snap
from tflite_export.storage import RUNTIMES, STORAGES, check_storage
from tflite_export.verification_findings import ACCELERATOR, KERAS, Findings, Levels, summarize
from wrpn_tf.model_graph import model_graph
from wrpn_tf.simulation import simulate
from wrpn_tf.simulation.checks import check_images

_BATCH_LEVELS = 2**23  # that each source may hold at a time
_FAR_OUTSIDE = 8.0
# Runtimes end the process over damaged files.
_NOT_THE_MODELS = "the file differs from the model's in more than weights and scales"

Source = Callable[[Any, Sequence[npt.NDArray[np.float32]]], Levels]


def verify(
    model: Any,
    blob: bytes,
    images: Any,
    *,
    storage: str | None = None,
    runtimes: Sequence[interpreters.Runtime] | None = None,
    verbose: bool = True,
) -> VerificationReport:
    """Compares a file with its model: statically, by proof, and layer by layer on images.

    1. The file must hold exactly the integers that `lower(model)` gives.
    2. Without data: every kernel's formula gives the level of the model's own exact rule at every
       accumulator that can occur.
    3. On the images: Keras, our formulas of the kernels, the accelerator and real runtimes, at
       every tensor. All but Keras start from the accelerator's input levels.

    Args:
        model: The quantized model, of either Keras, that the file was converted from: as it was, or
            snapped. If the file is that of the snapped model, it is this that is compared.
        blob: The `.tflite` file.
        images: The model's input, or inputs, batch first.
        storage: The file's storage; found out by default.
        runtimes: Which of `interpreters.available()` to run; all by default.
        verbose: Whether to show a line of progress on stderr once it takes long.

    Returns:
        The report; `report.exact` is the verdict.

    Raises:
        TypeError: If `model` is no Keras model, `blob` no bytes, or `images` hold no numbers.
        ValueError: If the model is not quantized, `images` do not fit it or are far outside of its
            input's range, `blob` is no TFLite file, `storage` is unknown, or there is no runtime.
    """
    if storage is not None:
        check_storage(storage)
    folded = fold_model(model)  # refuses what has no integer form, before images are read
    inputs = check_images(model_graph(model), images)
    check_blob(blob)
    blob = bytes(blob)
    counterpart = _snapped_or_not(model, folded, blob, storage, verbose)
    expected, storage = counterpart.expected, counterpart.storage
    if not counterpart.folded.preprocessing:
        check_range(inputs, expected)
    names = tensor_names(model_graph(counterpart.model))
    runtimes = interpreters.available() if runtimes is None else tuple(runtimes)
    if not runtimes:
        raise ValueError("`runtimes` must hold at least one; install tensorflow or ai-edge-litert.")
    size = max(1, _BATCH_LEVELS // _num_levels(expected))
    networks: Mapping[str, interpreters.Network] = {}
    not_run = {runtime.name: _NOT_THE_MODELS for runtime in runtimes}
    if all(difference.is_value for difference in counterpart.differences):
        networks, not_run = _open(runtimes, blob, storage, min(size, len(inputs[0])))
    sources = _sources(counterpart.model, expected, networks)
    missing = [
        f"{runtime.name}: everything"
        for runtime in runtimes
        if runtime.name in not_run and _must_run(runtime, storage)
    ]
    with Progress("verify", len(inputs[0]), "images", verbose) as progress:
        findings = [
            summarize(_run(sources, expected, batch, progress), expected, names.values())
            for batch in _batches(inputs, size)
        ]
    found: Findings = functools.reduce(operator.add, findings)
    return VerificationReport(
        num_images=len(inputs[0]),
        sources=(KERAS, *(name for name in sources if name not in (KERAS, ACCELERATOR))),
        file_differences=tuple(map(str, counterpart.differences)),
        proofs=prove(expected, _functions(counterpart.folded)),
        layers=found.layers,
        missing=(*missing, *found.missing),
        top1=found.top1,
        probabilities=found.probabilities,
        not_run=not_run,
    )


def check_range(
    inputs: Sequence[npt.NDArray[np.float32]], network: IntegerModel | FoldedModel
) -> None:
    """Checks that images do not lie far outside of what a network rounds.

    Images of 0..255 for a network that saw 0..1 would all be its largest level.

    Raises:
        ValueError: If they do.
    """
    for name, array in zip(network.inputs, inputs, strict=True):
        tensor = network.tensors[name]
        low, high = float(tensor.scale) * tensor.low, float(tensor.scale) * tensor.high
        if np.abs(array).max() > _FAR_OUTSIDE * max(-low, high):
            raise ValueError(
                f"`images` must be in the range that the model's input rounds, {low:.4g}.."
                f"{high:.4g}, got values in {array.min():.4g}..{array.max():.4g}."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class _Counterpart:
    """A model that a file may be of.

    Attributes:
        model: The quantized model.
        folded: What is read from it.
        expected: The network that a file of it holds.
        storage: How that file stores weights.
        differences: Where the file at hand holds something else.
    """

    model: Any
    folded: FoldedModel
    expected: IntegerModel
    storage: str
    differences: tuple[Difference, ...]


def _snapped_or_not(
    model: Any, folded: FoldedModel, blob: bytes, storage: str | None, verbose: bool
) -> _Counterpart:
    """The model as it is, or snapped, whichever the file is nearer to."""
    counterpart = _nearest_storage(model, folded, blob, storage)
    if counterpart.differences:
        snapped, _ = snap(model, counterpart.storage, verbose=verbose)
        of_snapped = _nearest_storage(snapped, fold_model(snapped), blob, storage)
        if len(of_snapped.differences) < len(counterpart.differences):
            return of_snapped
    return counterpart


def _nearest_storage(
    model: Any, folded: FoldedModel, blob: bytes, storage: str | None
) -> _Counterpart:
    """A model in the given storage, or in that which the file is nearest to."""
    description = describe(blob)
    types = {
        "input_type": _type_name(description, description.inputs),
        "output_type": _type_name(description, description.outputs),
    }
    storages = (storage,) if storage else dict.fromkeys((description.storage, *STORAGES))
    found = []
    for candidate in filter(None, storages):
        expected = lower_folded(folded, candidate)
        differences = compare(blob, write(expected, storage=candidate, **types))
        found.append(_Counterpart(model, folded, expected, candidate, differences))
        if not differences:
            break
    return min(found, key=lambda counterpart: len(counterpart.differences))


def _type_name(description: Description, indices: Sequence[int]) -> str:
    """The type of a file's inputs or outputs, if files may have it."""
    name = description.tensors[indices[0]].type_name.lower() if indices else ""
    return name if name in TYPES else TYPES[0]


def _functions(folded: FoldedModel) -> dict[str, RealFunction]:
    """The model's own real function of each operation that has weights."""
    result = {}
    for operation in folded.operations:
        if hasattr(operation, "kernel"):
            kernel, output = operation.kernel, folded.tensors[operation.output]
            bias = kernel.bias + kernel.shift * np.float64(output.scale)
            result[operation.name] = RealFunction(kernel.scale, bias)
    return result


def _open(
    runtimes: Sequence[interpreters.Runtime],
    blob: bytes,
    storage: str,
    size: int,
) -> tuple[dict[str, interpreters.Network], dict[str, str]]:
    """The runtimes with the file, and why others do not run it."""
    networks, refused = {}, {}
    for runtime in runtimes:
        if not _reads(runtime, storage):
            refused[runtime.name] = f"does not read storage {storage!r}"
            continue
        try:
            networks[runtime.name] = interpreters.Network(runtime, blob, size)
        except RuntimeError as error:
            refused[runtime.name] = " ".join(str(error).split())
    return networks, refused


def _reads(runtime: interpreters.Runtime, storage: str) -> bool:
    """Whether a runtime reads a storage's weights at all."""
    name = "tflite-micro" if runtime.library == "TFLM" else runtime.library
    return name in RUNTIMES[storage]


def _must_run(runtime: interpreters.Runtime, storage: str) -> bool:
    """Whether a runtime has every operation that a file may hold; tflite-micro lacks some."""
    return _reads(runtime, storage) and (runtime.library != "TFLM" or storage == "tflm")


def _sources(
    model: Any, expected: IntegerModel, networks: Mapping[str, interpreters.Network]
) -> dict[str, Source]:
    """Functions of images, and of the same rounded to the input's levels, by name."""
    sources: dict[str, Source] = {
        ACCELERATOR: lambda images, _: dict(simulate(model, images).levels),
        KERAS: lambda images, _: keras_levels(model, images),
    }
    for kernel in KERNELS:
        sources[f"formula {kernel}"] = functools.partial(_run_formula, expected, kernel)
    for name, network in networks.items():
        sources[name] = functools.partial(_run_network, network)
    return sources


def _run_formula(
    expected: IntegerModel, kernel: str, _: Any, rounded: Sequence[npt.NDArray[np.float32]]
) -> Levels:
    levels = {
        name: np.rint(real / expected.tensors[name].scale).astype(np.int32)
        for name, real in zip(expected.inputs, rounded, strict=True)
    }
    return execute(expected, levels, kernel)


def _run_network(
    network: interpreters.Network, _: Any, rounded: Sequence[npt.NDArray[np.float32]]
) -> Levels:
    return network.run(rounded)


def _run(
    sources: Mapping[str, Source],
    expected: IntegerModel,
    batch: list[npt.NDArray[np.float32]],
    progress: Progress,
) -> dict[str, Levels]:
    """The levels of all sources; the accelerator, the first, says what the others read."""
    levels: dict[str, Levels] = {}
    rounded: list[npt.NDArray[np.float32]] = []
    for name, source in sources.items():
        progress.show(name)
        levels[name] = source(batch, rounded)
        if name == ACCELERATOR:
            rounded = [
                levels[name][i].astype(np.float32) * expected.tensors[i].scale
                for i in expected.inputs
            ]
    progress.add(len(batch[0]))
    return levels


def _batches(
    inputs: list[npt.NDArray[np.float32]], size: int
) -> Iterator[list[npt.NDArray[np.float32]]]:
    for start in range(0, len(inputs[0]), size):
        yield [array[start : start + size] for array in inputs]


def _num_levels(model: IntegerModel) -> int:
    """Levels of one image's activations."""
    return sum(int(np.prod(tensor.shape)) for tensor in model.tensors.values())
