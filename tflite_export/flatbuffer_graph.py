"""Tensors, buffers and operators of one TFLite graph, collected into a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tflite_export.flatbuffer_schema import make, schema, tensor_type
from tflite_export.integer_model import Tensor

SCHEMA_VERSION = 3
SIGNATURE_KEY = "serving_default"


class GraphBuilder:
    """Collects a graph; tensors are known by their index.

    Equal contents share one buffer. Buffer 0 is empty, as the schema demands.
    """

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._contents: dict[bytes, int] = {}
        self._operator_codes: dict[tuple[str, int], int] = {}

    def activation(
        self, tensor: Tensor, name: str | None = None, zero_point: int | None = None
    ) -> int:
        """Adds the int8 tensor of some levels, with the tensor's name and zero point or others."""
        quantization = levels(tensor, tensor.zero_point if zero_point is None else zero_point)
        shape = (1, *tensor.shape)
        return self.add(name or tensor.name, "INT8", shape, quantization=quantization)

    def constant(
        self,
        values: npt.NDArray[Any],
        type_name: str,
        shape: Sequence[int],
        quantization: Any = None,
        name: str | None = None,
    ) -> int:
        """Adds a tensor with contents: `values` in little-endian memory order, packed or not."""
        contents = np.ascontiguousarray(values).tobytes()
        buffer = self._contents.setdefault(contents, len(self._contents) + 1)
        return self.add(name, type_name, shape, buffer, quantization)

    def add(
        self,
        name: str | None,
        type_name: str,
        shape: Sequence[int],
        buffer: int = 0,
        quantization: Any = None,
    ) -> int:
        """Adds any tensor."""
        self._tensors.append(
            make(
                "TensorT",
                name=name,
                type=tensor_type(type_name),
                shape=np.array(shape, np.int32),
                buffer=buffer,
                quantization=quantization,
            )
        )
        return len(self._tensors) - 1

    def operator(
        self,
        builtin: str,
        version: int,
        inputs: Sequence[int],
        output: int,
        options: Any = None,
    ) -> None:
        """Adds an operator; the class of its options names their type."""
        fields: dict[str, Any] = {}
        if options is not None:
            options_type = type(options).__name__.removesuffix("T")
            fields["builtinOptions"] = options
            fields["builtinOptionsType"] = getattr(schema().BuiltinOptions, options_type)
        self._add_operator((builtin, version), inputs, output, **fields)

    def custom_operator(self, name: str, inputs: Sequence[int], output: int) -> None:
        """Adds an operator that is not in the schema."""
        self._add_operator((name, 1), inputs, output)

    def _add_operator(
        self, code: tuple[str, int], inputs: Sequence[int], output: int, **fields: Any
    ) -> None:
        self._operators.append(
            make(
                "OperatorT",
                opcodeIndex=self._operator_codes.setdefault(code, len(self._operator_codes)),
                inputs=np.array(inputs, np.int32),
                outputs=np.array([output], np.int32),
                **fields,
            )
        )

    def model(
        self,
        inputs: Iterable[tuple[str, int]],
        outputs: Iterable[tuple[str, int]],
        description: str,
    ) -> Any:
        """Returns the `ModelT` of all that was added, with one signature.

        Args:
            inputs: Name in the signature and index of each input tensor.
            outputs: The same of the outputs.
            description: Free text.
        """
        inputs, outputs = tuple(inputs), tuple(outputs)
        subgraph = make(
            "SubGraphT",
            tensors=self._tensors,
            operators=self._operators,
            inputs=np.array([index for _, index in inputs], np.int32),
            outputs=np.array([index for _, index in outputs], np.int32),
        )
        signature = make(
            "SignatureDefT",
            signatureKey=SIGNATURE_KEY,
            inputs=[make("TensorMapT", name=name, tensorIndex=index) for name, index in inputs],
            outputs=[make("TensorMapT", name=name, tensorIndex=index) for name, index in outputs],
        )
        buffers = [make("BufferT")]
        for contents in self._contents:
            buffers.append(make("BufferT", data=np.frombuffer(contents, np.uint8)))
        return make(
            "ModelT",
            version=SCHEMA_VERSION,
            description=description,
            operatorCodes=[_operator_code(*code) for code in self._operator_codes],
            subgraphs=[subgraph],
            buffers=buffers,
            signatureDefs=[signature],
        )


def levels(tensor: Tensor, zero_point: int) -> Any:
    """Returns the quantization parameters of a tensor that stores level + zero point."""
    return make(
        "QuantizationParametersT",
        scale=np.array([tensor.scale], np.float32),
        zeroPoint=np.array([zero_point], np.int64),
    )


def _operator_code(name: str, version: int) -> Any:
    """Returns the code of a builtin operator or, of other names, a custom one."""
    custom = not hasattr(schema().BuiltinOperator, name)
    builtin = getattr(schema().BuiltinOperator, "CUSTOM" if custom else name)
    return make(
        "OperatorCodeT",
        builtinCode=builtin,
        # Readers that are older than the 32-bit field read this one of 8 bits.
        deprecatedBuiltinCode=min(builtin, 127),
        customCode=name if custom else None,
        version=version,
    )
