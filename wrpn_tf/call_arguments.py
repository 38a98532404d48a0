"""What a layer or operation was called with beside its tensors, and what that does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wrpn_tf.model_graph import LayerCall

# Of an axis whose size is not known, where a call is tried on values.
_UNKNOWN_SIZE = 2


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Stands for a tensor of the graph among the arguments."""

    key: int


def arguments(call: LayerCall) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the keyword arguments of a call, each tensor as a `Tensor`."""
    stand_ins = {key: Tensor(key) for key in call.inputs}
    recorded: tuple[tuple[Any, ...], dict[str, Any]] = call.invoke(
        lambda *args, **kwargs: (args, kwargs), stand_ins
    )
    return recorded


def argument(call: LayerCall, name: str, position: int, default: Any) -> Any:
    """An argument of an operation: an attribute in Keras 3, else by name, else by position."""
    if hasattr(call.layer, name):
        return getattr(call.layer, name)
    args, kwargs = arguments(call)
    if name in kwargs:
        return kwargs[name]
    return args[position] if len(args) > position else default


def constants(call: LayerCall) -> list[Any]:
    """The arrays and non-empty lists of numbers among a call's arguments, tensors left out."""
    args, kwargs = arguments(call)
    return [value for value in _leaves([args, kwargs]) if np.size(value) > 1]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from _leaves(list(value.values()))
    elif isinstance(value, (list, tuple)):
        if value and all(isinstance(item, (int, float)) for item in value):
            yield np.asarray(value)
        else:
            for item in value:
                yield from _leaves(item)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        yield np.empty(tuple(value.shape))


def zero_padding(call: LayerCall) -> tuple[tuple[int, int], ...] | None:
    """What a call puts around its tensor: (before, after) of each axis; None if it is not all 0."""
    ones = np.ones([size or _UNKNOWN_SIZE for size in call.input_shapes[0]], np.float32)
    padded = np.asarray(call.invoke(call.layer, {call.inputs[0]: ones}))
    if padded.ndim != ones.ndim or np.count_nonzero(padded) != ones.size:
        return None
    starts = [int(index.min()) for index in np.nonzero(padded)]
    sizes = zip(starts, ones.shape, padded.shape, strict=True)
    amounts = tuple((start, whole - start - part) for start, part, whole in sizes)
    is_whole = min(after for _, after in amounts) >= 0
    return amounts if is_whole and np.array_equal(np.pad(ones, amounts), padded) else None


def axis_order(call: LayerCall) -> tuple[int, ...]:
    """The input's axis that each axis of the output is, of a call that puts axes in an order."""
    sizes = tuple(range(2, 2 + len(call.input_shapes[0])))
    moved = call.invoke(call.layer, {call.inputs[0]: np.zeros(sizes, np.float32)})
    return tuple(sizes.index(size) for size in moved.shape)


def slice_entries(call: LayerCall) -> tuple[Any, ...] | None:
    """What a slice such as `x[:, 1:-1, None]` takes of each axis; None if it cannot be read.

    A slice of each axis of the input, or an integer where it takes one position; None between them
    where the output has an axis of its own.
    """
    args, _ = arguments(call)
    given = args[1] if len(args) > 1 else None
    entries = [_entry(entry) for entry in (given if isinstance(given, tuple) else (given,))]
    consumed = sum(entry is not None and entry is not Ellipsis for entry in entries)
    missing = [slice(None)] * (len(call.input_shapes[0]) - consumed)
    ellipses = [index for index, entry in enumerate(entries) if entry is Ellipsis]
    if ellipses:
        entries[ellipses[0] : ellipses[0] + 1] = missing
    else:
        entries += missing
    is_known = all(entry is None or isinstance(entry, (int, slice)) for entry in entries)
    return tuple(entries) if is_known else None


def _entry(given: Any) -> Any:
    """An entry of a slice as Python has it: tf_keras keeps dictionaries."""
    if isinstance(given, Mapping) and set(given) == {"start", "stop", "step"}:
        return slice(given["start"], given["stop"], given["step"])
    return given


def sliced_axis(entries: Sequence[Any], axis: int) -> tuple[int, int] | None:
    """The index of an input axis' entry, and the axis of the output; None if it takes one position.

    Args:
        entries: Of `slice_entries`.
        axis: Of the input.
    """
    read = [index for index, entry in enumerate(entries) if entry is not None]
    index = read[axis]
    if not isinstance(entries[index], slice):
        return None
    return index, sum(not isinstance(entry, int) for entry in entries[:index])
