"""What fewer bits do to a trained float network's outputs: no training, one pass for each change.

A pass computes only what the change reaches; the float network's other tensors are kept, one batch
at a time.
"""

from __future__ import annotations

import collections
import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from wrpn_tf.analysis.bit_checkpoint import Checkpoint, fingerprint
from wrpn_tf.analysis.bit_data import check_data
from wrpn_tf.analysis.bit_measures import classifier, error_per_example
from wrpn_tf.analysis.bit_space import Assignment, BitSpace, Knob
from wrpn_tf.quantization.quantizers import Quantizer
from wrpn_tf.quantization.range_observer import RangeObserver

_Tensors = dict[int, Any]
# A quantizer and its variables.
_Rounder = tuple[Quantizer, dict[str, Any]]


class Prober:
    """Measures a float network in which some knobs have few bits, everything else being float.

    Ranges of activations are those that round with the least squared error, over all the data, as
    `wrpn_tf.calibrate` finds them.

    Args:
        space: The network's knobs. Its model is changed in a pass, and restored after it.
        data: Inputs, or (inputs, labels).
        measure: See `bit_measures.error_per_example`.
        batch_size: Examples computed at a time.
        checkpoint: File that keeps the results of passes; None: nothing does.
        verbose: Whether to show a progress bar.

    Raises:
        ValueError: If the data does not fit the model or the measure, or the checkpoint is of
            another model, data or setting.
    """

    def __init__(
        self,
        space: BitSpace,
        data: Any,
        *,
        measure: str,
        batch_size: int,
        checkpoint: str | os.PathLike[str] | None,
        verbose: bool,
    ) -> None:
        self._space = space
        self._graph = space.graph
        self._measure = measure
        self._classifier = classifier(self._graph, measure)
        self._inputs, self._labels = check_data(data, self._graph, measure, self._classifier)
        self._batch_size = batch_size
        data_arrays = (self._inputs, *(() if self._labels is None else (self._labels,)))
        self._checkpoint = Checkpoint(
            checkpoint,
            {
                "model": fingerprint(space.model.get_weights()),
                "data": fingerprint(data_arrays),
                "measure": measure,
                "weight_scale": space.weight_scale,
                "batch_size": batch_size,
            },
        )
        self._verbose = verbose
        self._kernels = {
            knob: ops.convert_to_numpy(space.kernel(knob))
            for knob in space.knobs
            if knob.kind == "weight"
        }
        self._rounders: dict[tuple[int, int], _Rounder] = {}

    @property
    def num_examples(self) -> int:
        """How many examples the data has."""
        return len(self._inputs)

    def errors(self, assignments: Sequence[Assignment]) -> list[float]:
        """Returns the mean error over the data of each network."""
        rows = [_row(assignment) for assignment in assignments]
        starts = range(0, len(self._inputs), self._batch_size)
        missing = {
            start: [i for i, row in enumerate(rows) if (start, row) not in self._checkpoint]
            for start in starts
        }
        total = sum(map(len, missing.values()))
        if total and not self._rounders:
            self._observe()
        progress = self._progress(total, "pass")
        for start, indices in missing.items():
            tensors = self._float_tensors(start) if indices else {}
            for index in indices:
                error = self._error(start, tensors, assignments[index])
                self._checkpoint.add(start, rows[index], error)
                progress.add(1)
        return [
            math.fsum(self._checkpoint[start, row] for start in starts) / len(self._inputs)
            for row in rows
        ]

    def _progress(self, total: int, unit: str) -> Any:
        is_shown = self._verbose and total
        return self._graph.flavor.keras.utils.Progbar(total, verbose=int(is_shown), unit_name=unit)

    def _observe(self) -> None:
        """Finds the ranges of all knobs of activations, in one pass."""
        knobs = [knob for knob in self._space.knobs if knob.kind == "activation"]
        if not knobs:
            return
        observers = {knob: RangeObserver() for knob in knobs}
        starts = range(0, len(self._inputs), self._batch_size)
        progress = self._progress(len(starts), "batch")
        for start in starts:
            tensors = self._float_tensors(start)
            for knob, observer in observers.items():
                for key in self._space.tensors(knob):
                    observer.observe(np.asarray(tensors[key], np.float32), knob.path)
            progress.add(1)
        for knob, observer in observers.items():
            for num_bits in knob.bits:
                for key in self._space.tensors(knob):
                    quantizer = self._space.tensor_quantizer(key, num_bits)
                    holder = self._graph.flavor.layers.Layer()
                    variables = quantizer.build((), "probe", holder)
                    observer.set_range(quantizer, variables)
                    self._rounders[key, num_bits] = (quantizer, variables)

    def _float_tensors(self, start: int) -> _Tensors:
        """All tensors of the float network, for one batch."""
        batch = self._inputs[start : start + self._batch_size]
        dtype = self._graph.dtypes[self._graph.inputs[0]]
        tensors = {self._graph.inputs[0]: _tensor(batch, dtype)}
        for call in self._graph.calls:
            results = self._graph.flatten(call.invoke(call.layer, tensors))
            tensors.update(zip(call.outputs, results, strict=True))
        if not np.isfinite(np.asarray(tensors[self._graph.outputs[0]])).all():
            raise ValueError(
                f"`model` must have finite outputs, got NaN or infinity for inputs {start}.."
                f"{start + len(batch) - 1}."
            )
        return tensors

    def _error(self, start: int, tensors: _Tensors, assignment: Assignment) -> float:
        """The sum of the errors over one batch."""
        key = self._graph.outputs[0]
        stop = start + self._batch_size
        labels = None if self._labels is None else self._labels[start:stop]
        outputs = self._outputs(self._changed(tensors, assignment)[key])
        errors = error_per_example(self._measure, outputs, self._outputs(tensors[key]), labels)
        return math.fsum(errors)

    def _outputs(self, tensor: Any) -> npt.NDArray[np.float64]:
        if self._classifier is None:
            return np.asarray(tensor, np.float64)
        return self._classifier.log_probabilities(tensor)

    def _changed(self, tensors: _Tensors, assignment: Assignment) -> collections.ChainMap[int, Any]:
        """All tensors with some knobs set: those of the float network where nothing changes."""
        kernels = {knob.path: bits for knob, bits in assignment.items() if knob.kind == "weight"}
        rounded = {
            key: self._rounders[key, bits]
            for knob, bits in assignment.items()
            if knob.kind == "activation"
            for key in self._space.tensors(knob)
        }
        fresh: _Tensors = {}
        current = collections.ChainMap(fresh, tensors)
        with self._rounded_kernels(assignment):
            for call in self._graph.calls:
                if call.path in kernels or any(key in fresh for key in call.inputs):
                    results = self._graph.flatten(call.invoke(call.layer, current))
                    fresh.update(zip(call.outputs, results, strict=True))
                for key in rounded.keys() & set(call.outputs):
                    quantizer, variables = rounded[key]
                    fresh[key] = quantizer(current[key], False, variables)
        return current

    @contextlib.contextmanager
    def _rounded_kernels(self, assignment: Assignment) -> Iterator[None]:
        knobs = [knob for knob in assignment if knob.kind == "weight"]
        try:
            for knob in knobs:
                quantizer = self._space.kernel_quantizer(knob, assignment[knob])
                rounded = quantizer(self._kernels[knob], False, {})
                self._space.kernel(knob).assign(np.asarray(rounded))
            yield
        finally:
            for knob in knobs:
                self._space.kernel(knob).assign(self._kernels[knob])


def _row(assignment: Assignment) -> str:
    """An assignment as a row of a checkpoint names it."""
    return ", ".join(
        f"{kind} {path}: {bits}"
        for kind, path, bits in sorted((k.kind, k.path, b) for k, b in assignment.items())
    )


def _tensor(values: npt.NDArray[Any], dtype: str) -> Any:
    import tensorflow as tf

    return tf.convert_to_tensor(values.astype(dtype))


def single_changes(knobs: Sequence[Knob]) -> list[Assignment]:
    """Returns the networks with one knob set, for each option of knobs that have a choice."""
    return [{knob: bits} for knob in knobs if len(knob.bits) > 1 for bits in knob.bits]
