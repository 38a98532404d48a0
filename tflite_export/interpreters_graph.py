"""The tensors of a `.tflite` file, and its copy whose outputs are all of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tflite_export.flatbuffer_schema import from_bytes, schema, text, to_bytes


class FileGraph:
    """The tensors of a file's first subgraph, by index.

    Attributes:
        tensors: The schema's objects.
        inputs: Indices of the inputs.
        outputs: Indices of the outputs.
        computed: Indices of what is computed from the inputs, in order. What is computed from
            constants alone, as unpacked weights are, is no part of it.

    Raises:
        ValueError: If the bytes are no file of TFLite.
    """

    def __init__(self, blob: bytes):
        self._model = from_bytes(blob)
        subgraph = self._model.subgraphs[0]
        self.tensors = subgraph.tensors
        self.inputs = [int(index) for index in subgraph.inputs]
        self.outputs = [int(index) for index in subgraph.outputs]
        self.computed: list[int] = []
        for operator in subgraph.operators:
            if {*self.inputs, *self.computed} & set(operator.inputs):
                self.computed.extend(int(index) for index in operator.outputs)

    @property
    def num_bytes(self) -> int:
        """Upper bound of the bytes of all activations, for the file's own batch."""
        sizes = (int(np.prod(self.tensors[i].shape)) for i in self.inputs + self.computed)
        return 4 * sum(sizes)

    @property
    def batch_size(self) -> int:
        """Images in the file's own batch."""
        return int(self.tensors[self.inputs[0]].shape[0])

    def name(self, index: int) -> str:
        """Returns the name of a tensor."""
        return text(self.tensors[index].name)

    def levels(self, index: int, stored: npt.NDArray[Any]) -> npt.NDArray[np.int32] | None:
        """Returns the levels that stored values stand for; None for a tensor of floats."""
        if not np.issubdtype(stored.dtype, np.integer):
            return None
        levels: npt.NDArray[np.int32] = stored.astype(np.int32) - self._zero_point(index)
        return levels

    def all_outputs(self) -> bytes:
        """Returns the file with all that it computes among its outputs, in order."""
        model, subgraph = copy.copy(self._model), copy.copy(self._model.subgraphs[0])
        subgraph.outputs = np.array(self.computed, np.int32)
        model.subgraphs = [subgraph, *model.subgraphs[1:]]
        model.signatureDefs = None
        return to_bytes(model)

    def store(self, inputs: Sequence[npt.ArrayLike]) -> list[npt.NDArray[Any]]:
        """Rounds real inputs to what the input tensors hold, half up.

        Raises:
            ValueError: If their number or shapes are not the file's.
        """
        if len(inputs) != len(self.inputs):
            raise ValueError(
                f"`inputs` must hold {len(self.inputs)} arrays, as the file has inputs, "
                f"got {len(inputs)}."
            )
        pairs = zip(self.inputs, inputs, strict=True)
        return [self._store(index, np.asarray(values)) for index, values in pairs]

    def _store(self, index: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        tensor = self.tensors[index]
        wanted = tuple(int(size) for size in tensor.shape[1:])
        if values.shape[1:] != wanted or not len(values):
            raise ValueError(
                f"`inputs` must have the shape (images, {', '.join(map(str, wanted))}), "
                f"got {values.shape}."
            )
        types = schema().TensorType
        if tensor.type == types.FLOAT32:
            return values.astype(np.float32)
        dtype = np.dtype({types.INT8: np.int8, types.UINT8: np.uint8}[tensor.type])
        scale = np.float64(tensor.quantization.scale[0])
        stored = np.floor(values.astype(np.float64) / scale + 0.5) + self._zero_point(index)
        limits = np.iinfo(dtype)
        integers: npt.NDArray[Any] = np.clip(stored, limits.min, limits.max).astype(dtype)
        return integers

    def _zero_point(self, index: int) -> int:
        points = getattr(self.tensors[index].quantization, "zeroPoint", None)
        return 0 if points is None or len(points) == 0 else int(points[0])
