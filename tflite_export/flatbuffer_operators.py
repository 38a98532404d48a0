"""The TFLite operators of each integer operation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export import integer_model as im
from tflite_export.flatbuffer_graph import GraphBuilder, levels
from tflite_export.flatbuffer_kernels import add_bias, add_weights
from tflite_export.flatbuffer_schema import make, schema, tensor_type
from tflite_export.multiplication import PRODUCT_SHIFT, product_scale


class OperatorWriter:
    """Adds the operators of a model's operations to a graph.

    Attributes:
        graph: Where they are added.
        indices: Index of each of the model's tensors that is in the graph.
    """

    def __init__(self, graph: GraphBuilder, model: im.IntegerModel, storage: str) -> None:
        self.graph = graph
        self.indices: dict[str, int] = {}
        self._tensors = model.tensors
        self._storage = storage

    @functools.singledispatchmethod
    def write(self, operation: im.Operation) -> None:
        """Adds one operation, whose inputs are in the graph, and its output."""
        raise TypeError(f"no TFLite operator for {type(operation).__name__} ({operation.name!r}).")

    @write.register
    def _(self, operation: im.Conv2D) -> None:
        grouped = operation.kernel.integers.shape[3] != self._input(operation).shape[-1]
        options = self._window_options(operation, "Conv2DOptionsT", operation.dilation)
        inputs = [self._spread(operation), *self._kernel(operation)]
        version = 6 if grouped else 3
        self._write_rounding(operation, "CONV_2D", version, inputs, options)

    @write.register
    def _(self, operation: im.DepthwiseConv2D) -> None:
        options = self._window_options(operation, "DepthwiseConv2DOptionsT", operation.dilation)
        channels = self._input(operation).shape[-1]
        options.depthMultiplier = operation.kernel.integers.shape[3] // channels
        inputs = [self._spread(operation), *self._kernel(operation)]
        self._write_rounding(operation, "DEPTHWISE_CONV_2D", 3, inputs, options)

    @write.register
    def _(self, operation: im.TransposeConv) -> None:
        options = self._window_options(operation, "TransposeConvOptionsT")
        output_shape = self._shape((1, *self._tensors[operation.output].shape))
        kernel, biases = self._kernel(operation)
        inputs = [output_shape, kernel, self._spread(operation), biases]
        self._write_rounding(operation, "TRANSPOSE_CONV", 4, inputs, options)

    @write.register
    def _(self, operation: im.FullyConnected) -> None:
        options = make("FullyConnectedOptionsT", keepNumDims=len(self._input(operation).shape) > 1)
        inputs = [self._spread(operation), *self._kernel(operation)]
        self._write_rounding(operation, "FULLY_CONNECTED", 12, inputs, options)

    @write.register
    def _(self, operation: im.Add) -> None:
        name = "ADD" if operation.sign > 0 else "SUB"
        options = make(f"{name.capitalize()}OptionsT")
        self._write_rounding(operation, name, 2, self._inputs(operation), options)

    @write.register
    def _(self, operation: im.Multiply) -> None:
        # In int32: kernels round a MUL of int8 in different ways.
        tensors = [self._tensors[name] for name in operation.inputs]
        factors = [self._whole_numbers(tensor, -tensor.zero_point) for tensor in tensors]
        smaller = int(np.argmin([np.prod(tensor.shape) for tensor in tensors]))
        factors[smaller] = self._with_number(
            "MUL", factors[smaller], 2**PRODUCT_SHIFT, tensors[smaller].shape
        )
        output = self._tensors[operation.output]
        unit = dataclasses.replace(output, scale=product_scale(*(x.scale for x in tensors)))
        product = self.graph.add(None, "INT32", (1, *output.shape), quantization=levels(unit, 0))
        options = make("MulOptionsT")
        self._fuse_relu(operation, options)
        self.graph.operator("MUL", 1, factors, product, options)
        self._write_saturated(output, "QUANTIZE", 2, [product], make("QuantizeOptionsT"))

    @write.register
    def _(self, operation: im.Lookup) -> None:
        source, output = self._input(operation), self._tensors[operation.output]
        stored = (operation.table + output.zero_point).astype(np.int8)
        quantization = levels(output, output.zero_point)
        table = self.graph.constant(stored, "INT8", stored.shape, quantization)
        index = self._whole_numbers(source, -(source.low + source.zero_point))
        self._write_exact(operation, "GATHER", 2, [table, index], make("GatherOptionsT"))

    @write.register
    def _(self, operation: im.Shift) -> None:
        # The sum with a constant of the same scale, which every kernel computes exactly.
        zero_point = 127 if operation.amount < 0 else -128
        constant = self.graph.constant(
            np.array([operation.amount + zero_point], np.int8),
            "INT8",
            (1,),
            levels(self._tensors[operation.output], zero_point),
        )
        inputs = [*self._inputs(operation), constant]
        self._write_exact(operation, "ADD", 2, inputs, make("AddOptionsT"))

    @write.register
    def _(self, operation: im.Concatenation) -> None:
        options = make("ConcatenationOptionsT", axis=operation.axis)
        self._write_exact(operation, "CONCATENATION", 2, self._inputs(operation), options)

    @write.register
    def _(self, operation: im.Maximum | im.Minimum) -> None:
        name, options = type(operation).__name__.upper(), make("MaximumMinimumOptionsT")
        self._write_exact(operation, name, 2, self._inputs(operation), options)

    @write.register
    def _(self, operation: im.MaxPool2D) -> None:
        options = self._window_options(operation, "Pool2DOptionsT")
        options.filterHeight, options.filterWidth = operation.pool
        self._write_exact(operation, "MAX_POOL_2D", 2, self._inputs(operation), options)

    @write.register
    def _(self, operation: im.Pad) -> None:
        amounts = np.array([(0, 0), *operation.amounts], np.int32)
        inputs = [*self._inputs(operation), self.graph.constant(amounts, "INT32", amounts.shape)]
        self._write_exact(operation, "PAD", 2, inputs, make("PadOptionsT"))

    @write.register
    def _(self, operation: im.EdgePad) -> None:
        amounts = np.array([(0, 0), *operation.amounts], np.int32)
        inputs = [*self._inputs(operation), self.graph.constant(amounts, "INT32", amounts.shape)]
        # What is nearest to the edge comes first beyond it.
        options = make("MirrorPadOptionsT", mode=schema().MirrorPadMode.SYMMETRIC)
        self._write_exact(operation, "MIRROR_PAD", 2, inputs, options)

    @write.register
    def _(self, operation: im.Crop) -> None:
        start = self._shape((0, *(before for before, _ in operation.amounts)))
        # -1: the batch, which an interpreter may resize.
        size = self._shape((-1, *self._tensors[operation.output].shape))
        inputs = [*self._inputs(operation), start, size]
        self._write_exact(operation, "SLICE", 2, inputs, make("SliceOptionsT"))

    @write.register
    def _(self, operation: im.Permute) -> None:
        order = self._shape((0, *(axis + 1 for axis in operation.order)))
        inputs = [*self._inputs(operation), order]
        self._write_exact(operation, "TRANSPOSE", 2, inputs, make("TransposeOptionsT"))

    @write.register
    def _(self, operation: im.UpSample2D) -> None:
        size = self._shape(self._tensors[operation.output].shape[:2])
        # Between pixels' centres, where no kernel's arithmetic is near a whole number.
        options = make("ResizeNearestNeighborOptionsT", halfPixelCenters=True)
        inputs = [*self._inputs(operation), size]
        self._write_exact(operation, "RESIZE_NEAREST_NEIGHBOR", 3, inputs, options)

    @write.register
    def _(self, operation: im.Reshape) -> None:
        # -1: the batch, which an interpreter may resize.
        shape = self._shape((-1, *self._tensors[operation.output].shape))
        inputs = [*self._inputs(operation), shape]
        self._write_exact(operation, "RESHAPE", 1, inputs, make("ReshapeOptionsT"))

    @write.register
    def _(self, operation: im.Softmax) -> None:
        options = make("SoftmaxOptionsT", beta=1.0)
        self._write_exact(operation, "SOFTMAX", 2, self._inputs(operation), options)

    @write.register
    def _(self, operation: im.Sigmoid) -> None:
        self._write_exact(operation, "LOGISTIC", 2, self._inputs(operation))

    def write_saturating(self, source: int, tensor: im.Tensor) -> None:
        """Adds a tensor whose end of int8 is an end of its levels, and moves `source` into it.

        `source` must be `write_unclamped`'s: both ends have then been clamped, by
        QUANTIZE, which is exact for one scale and which all kernels have, XNNPACK too (it has no
        MINIMUM of int8).
        """
        self.indices[tensor.name] = self.graph.activation(tensor)
        options = make("QuantizeOptionsT")
        self.graph.operator("QUANTIZE", 2, [source], self.indices[tensor.name], options)

    def write_unclamped(self, tensor: im.Tensor) -> int:
        """Adds a tensor for `write_saturating` to read; returns its index."""
        # The zero point at which int8 ends with the levels at the other end.
        at_high, at_low = 127 - tensor.high, -128 - tensor.low
        zero_point = at_high if tensor.zero_point == at_low else at_low
        return self.graph.activation(tensor, f"{tensor.name}/unclamped", zero_point)

    def _write_rounding(
        self,
        operation: im.Operation,
        builtin: str,
        version: int,
        inputs: Sequence[int],
        options: Any,
    ) -> None:
        """Adds an operator that rounds, and what clamps its result to low..high."""
        self._fuse_relu(operation, options)
        self._write_saturated(self._tensors[operation.output], builtin, version, inputs, options)

    def _fuse_relu(self, operation: im.Operation, options: Any) -> None:
        """Lets an operator clamp at level 0, if that is the lowest that the operation writes."""
        if operation.relu or self._tensors[operation.output].low == 0:
            options.fusedActivationFunction = schema().ActivationFunctionType.RELU

    def _write_saturated(
        self, tensor: im.Tensor, builtin: str, version: int, inputs: Sequence[int], options: Any
    ) -> None:
        """Adds an operator whose int8 result ends with its levels, at one end or by two steps."""
        if tensor.high + tensor.zero_point == 127:
            self.indices[tensor.name] = output = self.graph.activation(tensor)
            self.graph.operator(builtin, version, inputs, output, options)
        else:
            output = self.write_unclamped(tensor)
            self.graph.operator(builtin, version, inputs, output, options)
            self.write_saturating(output, tensor)

    def _whole_numbers(self, tensor: im.Tensor, offset: int) -> int:
        """Adds the int32 tensor of what a tensor stores plus a number; returns its index."""
        types = {"inDataType": tensor_type("INT8"), "outDataType": tensor_type("INT32")}
        numbers = self.graph.add(None, "INT32", (1, *tensor.shape))
        source = self.indices[tensor.name]
        self.graph.operator("CAST", 1, [source], numbers, make("CastOptionsT", **types))
        return self._with_number("ADD", numbers, offset, tensor.shape) if offset else numbers

    def _with_number(self, builtin: str, source: int, number: int, shape: Sequence[int]) -> int:
        """Adds an int32 tensor plus or times a number; returns its index."""
        result = self.graph.add(None, "INT32", (1, *shape))
        options = make("AddOptionsT" if builtin == "ADD" else "MulOptionsT")
        self.graph.operator(builtin, 1, [source, self._shape((number,))], result, options)
        return result

    def _write_exact(
        self,
        operation: im.Operation,
        builtin: str,
        version: int,
        inputs: Sequence[int],
        options: Any = None,
    ) -> None:
        """Adds an operator whose results are levels by themselves."""
        output = self.graph.activation(self._tensors[operation.output])
        self.graph.operator(builtin, version, inputs, output, options)
        self.indices[operation.output] = output

    def _input(self, operation: im.Operation) -> im.Tensor:
        return self._tensors[operation.inputs[0]]

    def _inputs(self, operation: im.Operation) -> list[int]:
        return [self.indices[name] for name in operation.inputs]

    def _spread(self, operation: im.Conv2D | im.FullyConnected) -> int:
        """Returns the index of an operation's input, its levels multiplied where that is asked.

        QUANTIZE does it, which is exact for a power of two. Operations share its result.
        """
        tensor, spread = self._input(operation), operation.kernel.spread
        if spread == 1:
            return self.indices[tensor.name]
        many = dataclasses.replace(
            tensor,
            name=f"{tensor.name}/times{spread}",
            scale=im.spread_scale(tensor.scale, spread),
            low=tensor.low * spread,
            high=tensor.high * spread,
        )
        if many.name not in self.indices:
            source = self.indices[tensor.name]
            self.indices[many.name] = self.graph.activation(many)
            options = make("QuantizeOptionsT")
            self.graph.operator("QUANTIZE", 2, [source], self.indices[many.name], options)
        return self.indices[many.name]

    def _kernel(self, operation: im.Conv2D | im.FullyConnected) -> tuple[int, int]:
        """Adds weights and biases; returns their indices."""
        return (
            add_weights(self.graph, operation, self._storage),
            add_bias(self.graph, operation, self._input(operation)),
        )

    def _shape(self, shape: Sequence[int]) -> int:
        return self.graph.constant(np.array(shape, np.int32), "INT32", (len(shape),))

    def _window_options(
        self,
        operation: im.Conv2D | im.MaxPool2D,
        class_name: str,
        dilation: tuple[int, int] | None = None,
    ) -> Any:
        """Returns options with strides, padding and dilation."""
        padding = getattr(schema().Padding, operation.padding.upper())
        options = make(class_name, padding=padding)
        options.strideH, options.strideW = operation.strides
        if dilation is not None:
            options.dilationHFactor, options.dilationWFactor = dilation
        return options
