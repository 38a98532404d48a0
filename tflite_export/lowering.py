"""From a quantized Keras model to the integers that a file of it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export.batch_norm_folding import FoldedKernel
from tflite_export.function_table import FoldedTable
from tflite_export.graph_reader import FoldedModel, fold_model
from tflite_export.integer_model import (
    FullyConnected,
    IntegerModel,
    Kernel,
    Operation,
    Tensor,
    TransposeConv,
    largest_weights,
    lowest_level,
    reachable_sums,
    rooms,
    spread_scale,
)
from tflite_export.requantization import KERNELS
from tflite_export.snapping import Channels, Rounding, snap_channels
from tflite_export.storage import channel_multipliers, check_storage, multiplier


def lower(model: Any, storage: str = "int8") -> IntegerModel:
    """Returns the integers that a file of a quantized model holds.

    Each channel's scale becomes a float32, and its bias a whole number of accumulator units. On a
    snapped model (`tflite_export.snap`) all kernels then round as the model's own values say.

    Args:
        model: A model of `wrpn_tf.quantize_model` or `widen_and_quantize`, of either Keras.
        storage: `"int8"`, `"int4"`, `"int2"` or `"tflm"`: how weights are stored.

    Raises:
        TypeError, ValueError: As `fold_model`; or if `storage` is unknown.
        OverflowError: If an accumulator can exceed 32 bits; names the layer.
    """
    check_storage(storage)
    return lower_folded(fold_model(model), storage)


def lower_folded(folded: FoldedModel, storage: str) -> IntegerModel:
    """Returns the integers that a file of a model holds that was read already; as `lower`."""
    return IntegerModel(
        tensors=folded.tensors,
        operations=tuple(_stored(op, folded.tensors, storage) for op in folded.operations),
        inputs=folded.inputs,
        outputs=folded.outputs,
    )


def channels_of(
    operation: Operation, tensors: Mapping[str, Tensor], storage: str
) -> tuple[Channels, Rounding]:
    """Returns a folded operation's channels as the solver takes them: in levels of the output."""
    source, output = tensors[operation.inputs[0]], tensors[operation.output]
    kernel, low = operation.kernel, lowest_level(operation, output)
    smallest, largest = reachable_sums(operation, source)
    unit = np.float64(output.scale)
    channels = Channels(
        smallest=smallest,
        largest=largest,
        scale=kernel.scale * (np.float64(source.scale) / unit),
        offset=kernel.bias / unit + kernel.shift,
    )
    own_rooms = rooms(smallest, largest, output)
    room = float(np.median(own_rooms))
    of_layer = multiplier(storage, type(operation), kernel.num_bits, room, signed=low < 0)
    multipliers = np.full(smallest.shape, of_layer, np.int64)
    if kernel.origin.scale_freedom == "channel":
        multipliers = channel_multipliers(
            storage,
            type(operation),
            kernel.num_bits,
            of_layer,
            largest_weights(operation),
            own_rooms,
        )
    rounding = Rounding(
        input_scale=spread_scale(source.scale, kernel.spread),
        output_scale=output.scale,
        low=low,
        high=output.high,
        multiplier=multipliers * kernel.spread,
        kind=_kind(operation),
        kernels=(*KERNELS, "tflm") if storage == "tflm" else KERNELS,
        zero=kernel.shift,
        spread=kernel.spread,
    )
    return channels, rounding


def _kind(operation: Operation) -> str:
    if isinstance(operation, FullyConnected):
        return "fully_connected"
    return "transpose_conv" if isinstance(operation, TransposeConv) else "conv"


def _stored(operation: Operation, tensors: Mapping[str, Tensor], storage: str) -> Operation:
    """The operation with the kernel or the table that a file holds."""
    table = getattr(operation, "table", None)
    if isinstance(table, FoldedTable):
        source, output = tensors[operation.inputs[0]], tensors[operation.output]
        levels = table.levels(source, output, lowest_level(operation, output))
        return dataclasses.replace(operation, table=levels)
    folded = getattr(operation, "kernel", None)
    if not isinstance(folded, FoldedKernel):
        return operation
    channels, rounding = channels_of(operation, tensors, storage)
    solved = snap_channels(channels, rounding, scale_is_free=False, offset_is_free=False)
    factors = np.where(solved.multiplier > 0, solved.multiplier, rounding.multiplier)
    ends = np.stack([channels.smallest, channels.largest]) * factors + solved.bias
    if np.abs(ends).max() > np.iinfo(np.int32).max:
        raise OverflowError(
            f"{operation.name!r}: accumulators must fit 32 bits, got up to {np.abs(ends).max()}."
        )
    kernel = Kernel(
        integers=np.where(_per_channel(solved.multiplier > 0, folded), folded.integers, np.int8(0)),
        num_bits=folded.num_bits,
        multiplier=(factors // rounding.spread).astype(np.int32),
        scale=solved.weight_scale.astype(np.float32),
        bias=solved.bias.astype(np.int32),
        spread=rounding.spread,
    )
    return dataclasses.replace(operation, kernel=kernel)


def _per_channel(values: np.ndarray, kernel: FoldedKernel) -> np.ndarray:
    """Values of channels, shaped to stand beside the kernel's integers."""
    shape = [1] * kernel.integers.ndim
    shape[kernel.channel_axis] = -1
    return values.reshape(shape)
