"""Lets a quantized network adopt scales and biases that every kernel rounds alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tflite_export.batch_norm_folding import FoldedKernel, Origin, adopt
from tflite_export.graph_reader import FoldedModel, fold_model
from tflite_export.integer_model import Add, Lookup, Multiply, Operation, lowest_level
from tflite_export.lowering import channels_of
from tflite_export.new_biases import copy_model, layers_without_offset
from tflite_export.progress import Progress
from tflite_export.snap_report import LayerMoves, SnapReport
from tflite_export.snapping import (
    Channels,
    Rounding,
    SnappedChannels,
    snap_channels,
    snap_output_scale,
)
from tflite_export.snapping_families import SAME
from tflite_export.snapping_function import check_product, check_values
from tflite_export.snapping_search import LARGEST_MOVE, NARROWEST
from tflite_export.snapping_solution import constant
from tflite_export.snapping_sum import check_sum
from tflite_export.snapping_values import LevelCheck
from tflite_export.storage import check_storage
from tflite_export.tensor_scales import choose_scales
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import inner_layer
from wrpn_tf.quantization.quantize_registry import probability_function

# What a layer adopts is float32, and the step of its weights a mean of such numbers: where it lands
# beside what was solved, it is solved again from there.
_ROUNDS = 4
# Of a product of a few float32 numbers.
_FLOAT32_ERROR = 3e-7
# Of a sum of many terms, by the sum of their magnitudes: a quarter of a rounding, as they average.
_FLOAT32_SUM = 2.0**-26


def snap(
    model: Any,
    storage: str = "int8",
    examples: tuple[Any, Any] | None = None,
    *,
    verbose: bool = True,
) -> tuple[Any, SnapReport]:
    """Returns a copy of a quantized model on which all TFLite kernels agree, and what moved.

    Each kernel layer's folded scale and bias go to the nearest good values at which no kernel's
    rounding can differ from the exact rule, with a margin that a float32 forward pass keeps; the
    copy adopts them in its batch norms, biases, weights' steps and ranges. Snapping the copy again
    changes nothing. Layers of 8-bit weights with signed results and no offset of their own get a
    bias.

    Args:
        model: A model of `wrpn_tf.quantize_model` or `widen_and_quantize`, of either Keras; it
            stays as it is.
        storage: What the weights will be stored in; values for `"int4"` fit all storages.
        examples: Inputs and integer labels, to report the top-1 accuracy before and after.
        verbose: Whether to show a line of progress on stderr once it takes long.

    Raises:
        TypeError, ValueError: As `lower`; if `examples` are no inputs and labels of the model; or
            if a layer with weights is called more than once.
    """
    check_storage(storage)
    before = fold_model(model, always_rounds=True)
    _check_called_once(before)
    if examples is not None:
        _check_examples(examples, model)
    biased = layers_without_offset(model, before)
    snapped = copy_model(model, biased)
    if biased:
        before = fold_model(snapped, always_rounds=True)
    scales, solved = choose_scales(before, _Solver(before, storage))
    _adopt_scales(fold_model(snapped), scales)
    layers, after = _snap_operations(snapped, storage, solved, verbose)
    report = SnapReport(
        layers=layers,
        others=_check_others(after),
        biased=biased,
        tensors={
            name: float(after.tensors[name].scale) / float(tensor.scale) - 1
            for name, tensor in before.tensors.items()
            if name in before.quantizers
        },
        accuracies=None
        if examples is None
        else tuple(top_1(each, examples) for each in (model, snapped)),
    )
    return snapped, report


def top_1(model: Any, examples: tuple[Any, Any]) -> float:
    """Returns the share of examples whose largest output, or whose yes or no, is the label's."""
    images, labels = examples
    outputs = model.predict(images, verbose=0)
    if outputs.shape[-1] == 1:
        graph = model_graph(model)
        end = probability_function(inner_layer(graph.producers[graph.outputs[0]].layer))
        predicted = outputs[..., 0] > (0 if end is None else 0.5)
    else:
        predicted = np.argmax(outputs, axis=-1)
    return float(np.mean(predicted == np.asarray(labels).reshape(predicted.shape)))


def _check_called_once(folded: FoldedModel) -> None:
    """Refuses layers whose one scale and bias would have to fit several operations."""
    users: dict[int, list[str]] = {}
    for operation in folded.operations:
        kernel = getattr(operation, "kernel", None)
        if isinstance(kernel, FoldedKernel):
            owner = kernel.origin.owner
            if owner is not None:
                users.setdefault(id(owner), []).append(operation.name)
    for names in users.values():
        if len(names) > 1:
            raise ValueError(
                f"`model` must call each layer with weights once, got {len(names)} calls of those "
                f"of {', '.join(names)}. Give each call a layer of its own, or export what the "
                "calls share as a model of its own."
            )


def _check_examples(examples: tuple[Any, Any], model: Any) -> None:
    """Refuses what `top_1` cannot compare."""
    if not isinstance(examples, (tuple, list)) or len(examples) != 2:
        raise TypeError(
            f"`examples` must be a pair (inputs, integer labels), got {type(examples).__name__}."
        )
    if len(model.outputs) != 1:
        raise ValueError(
            f"`examples` must be None for a model of {len(model.outputs)} outputs: there is no one "
            "top-1 accuracy."
        )
    labels, inner = np.asarray(examples[1]), tuple(model.outputs[0].shape)[1:-1]
    first = examples[0][0] if isinstance(examples[0], (list, tuple)) else examples[0]
    is_one_per_example = labels.shape[1:] in (inner, (*inner, 1)) and len(labels) == len(first)
    if not is_one_per_example or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`examples` must have one integer label per example, got labels of shape "
            f"{labels.shape} and type {labels.dtype}."
        )


def _adopt_scales(folded: FoldedModel, scales: Mapping[str, np.float32]) -> None:
    """Sets the ranges of the model's quantizers, where they change."""
    for name, (quantizer, variables) in folded.quantizers.items():
        tensor, scale = folded.tensors[name], float(scales[name])
        if scales[name] != tensor.scale:
            quantizer.set_range(variables, scale * tensor.low, scale * tensor.high)


def _snap_operations(
    model: Any, storage: str, solved: Mapping[str, SnappedChannels], verbose: bool
) -> tuple[tuple[LayerMoves, ...], FoldedModel]:
    """Lets all layers of a model adopt snapped values; returns what moved, and the model then."""
    start = fold_model(model)
    operations = _kernel_operations(start)
    with Progress("snap", len(operations), "layers", verbose) as progress:
        for operation in operations:
            _snap_operation(operation, start, storage, solved.get(operation.name))
            progress.add(1)
    for rounds_left in reversed(range(_ROUNDS)):
        final = fold_model(model)
        pairs = zip(operations, _kernel_operations(final), strict=True)
        layers = tuple(_moves(before, after, final, storage) for before, after in pairs)
        missed = {moves.name for moves in layers if not moves.exact.all()}
        if not (missed and rounds_left):
            break
        for operation in _kernel_operations(final):
            if operation.name in missed:
                _snap_operation(operation, final, storage)
    return layers, final


def _check_others(folded: FoldedModel) -> dict[str, LevelCheck]:
    """What is found of the operations that round and have no kernel."""
    found = {}
    for operation in folded.operations:
        if isinstance(operation, (Add, Multiply, Lookup)):
            sources = [folded.tensors[name] for name in operation.inputs]
            output = folded.tensors[operation.output]
            low = lowest_level(operation, output)
            if isinstance(operation, Add):
                check = check_sum((sources[0], sources[1]), output, sign=operation.sign)
            elif isinstance(operation, Multiply):
                check = check_product(sources[0], sources[1], output, low=low)
            else:
                check = check_values(operation.table.values(sources[0]), output, low=low)
            found[operation.name] = check
    return found


def _kernel_operations(folded: FoldedModel) -> list[Operation]:
    return [op for op in folded.operations if isinstance(getattr(op, "kernel", None), FoldedKernel)]


def _snap_operation(
    operation: Operation,
    folded: FoldedModel,
    storage: str,
    solved: SnappedChannels | None = None,
) -> None:
    """Snaps one operation's channels, if they are not solved, and lets its layers adopt them."""
    kernel, tensors = operation.kernel, folded.tensors
    source, output = tensors[operation.inputs[0]], tensors[operation.output]
    channels, rounding = channels_of(operation, tensors, storage)
    snapped = solved or _solve(kernel.origin, channels, rounding)
    scale = snapped.scale * (np.float64(output.scale) / np.float64(source.scale))
    bias = (snapped.offset - kernel.shift) * np.float64(output.scale)
    now = snap_channels(channels, rounding, scale_is_free=False, offset_is_free=False)
    stays = _is_stored_alike(channels, snapped, now)
    has_scale = np.abs(scale / kernel.scale - 1) < _FLOAT32_ERROR
    scale = np.where(stays | has_scale | (snapped.multiplier == 0), kernel.scale, scale)
    # A filter of zeros is its bias alone, whatever scale it shares with the others.
    alone = constant(channels, rounding, kernel.origin.has_free_bias).offset - kernel.shift
    bias = np.where(channels.smallest == channels.largest, alone * output.scale, bias)
    bias = np.where(stays, kernel.bias, bias)
    adopt(kernel, scale, bias)


def _solve(origin: Origin, channels: Channels, rounding: Rounding) -> SnappedChannels:
    """The values that an operation's layers shall adopt, as far as these can."""
    if origin.scale_freedom == "layer":
        # As if the output's scale were free: it is good already, or the weights take the move.
        output, solved = snap_output_scale(
            channels,
            rounding,
            offset_is_free=origin.has_free_bias,
            smallest=(1 - LARGEST_MOVE) * rounding.output_scale,
            largest=(1 + LARGEST_MOVE) * rounding.output_scale,
        )
        move = rounding.output_scale / output
        return dataclasses.replace(solved, weight_scale=solved.weight_scale * move)
    return snap_channels(
        channels,
        rounding,
        scale_is_free=origin.scale_freedom == "channel",
        offset_is_free=origin.has_free_bias,
    )


def _moves(before: Operation, after: Operation, folded: FoldedModel, storage: str) -> LayerMoves:
    """What an operation's layers adopted, and how the kernels round it now."""
    channels, rounding = channels_of(after, folded.tensors, storage)
    now = snap_channels(channels, rounding, scale_is_free=False, offset_is_free=False)
    unit = np.float64(folded.tensors[after.output].scale)
    return LayerMoves(
        name=after.name,
        scale_moves=after.kernel.scale / before.kernel.scale - 1,
        bias_moves=(after.kernel.bias - before.kernel.bias) / unit,
        margins=now.margin,
        relative_margins=now.relative_margin,
        exact=now.exact,
    )


def _is_stored_alike(
    channels: Channels, snapped: SnappedChannels, now: SnappedChannels
) -> np.ndarray:
    """Whether a file holds for what a channel has what it would for its aim, and is exact with it.

    Only then does snapping once more change nothing. The solver gives the values of the candidate
    on which a channel stands, which are within `SAME` of the channel's. What is too close to a
    threshold for a float32 forward pass does not stay, if its aim is farther away.
    """
    same = (now.bias == snapped.bias) & (now.multiplier == snapped.multiplier)
    near = np.abs(now.weight_scale - snapped.weight_scale) <= SAME * now.weight_scale
    # A float32 sum errs by the size of its terms, which may be more than the sum's.
    error = _FLOAT32_SUM * now.multiplier * (channels.largest - channels.smallest)
    is_wide = (now.relative_margin >= NARROWEST) & (now.margin >= error)
    return same & near & now.exact & (is_wide | (now.margin >= snapped.margin / 2))


@dataclasses.dataclass(frozen=True, eq=False)
class _Solver:
    """Scales for the kernels of a storage; see `tensor_scales.Solver`."""

    folded: FoldedModel
    storage: str

    def output_scale(
        self,
        operation: Operation,
        scales: Mapping[str, np.float32],
        largest: float,
        accepts: Callable[[np.float32], bool],
    ) -> tuple[np.float32, SnappedChannels]:
        return snap_output_scale(
            *self._channels(operation, scales),
            offset_is_free=operation.kernel.origin.has_free_bias,
            largest=largest,
            accepts=accepts,
        )

    def is_exact(self, operation: Operation, scales: Mapping[str, np.float32]) -> bool:
        channels, rounding = self._channels(operation, scales)
        free = operation.kernel.origin.has_free_bias
        found = snap_channels(channels, rounding, scale_is_free=False, offset_is_free=free)
        return bool(found.exact.all())

    def _channels(
        self, operation: Operation, scales: Mapping[str, np.float32]
    ) -> tuple[Channels, Rounding]:
        tensors = {
            name: dataclasses.replace(self.folded.tensors[name], scale=scales[name])
            for name in (*operation.inputs, operation.output)
        }
        return channels_of(operation, tensors, self.storage)
