"""What a layer or operation was called with beside its tensors, and what that does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wrpn_tf.model_graph import LayerCall

# Of an axis whose size is not known, where a call is tried on values.
_UNKNOWN_SIZE = 2
_FULL_SLICES = ((None, None, None), (0, None, None), (None, None, 1), (0, None, 1))


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Stands for a tensor of the graph among the arguments."""

    key: int


@dataclasses.dataclass(frozen=True)
class OnFirstArgument:
    """Applies a layer in the place of an operation that takes further arguments.

    Attributes:
        layer: Called with the operation's tensor only.
    """

    layer: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer with the first positional argument, or else the first keyword's."""
        return self.layer(args[0] if args else next(iter(kwargs.values())))


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


def sliced_axis(call: LayerCall, axis: int) -> int | None:
    """Where a slice puts the axis `axis` of its input; None if it cuts it or cannot be read."""
    args, _ = arguments(call)
    entries = args[1] if len(args) > 1 else None
    entries = entries if isinstance(entries, tuple) else (entries,)
    rank = len(call.input_shapes[0])
    consumed = sum(entry is not None and entry is not Ellipsis for entry in entries)
    full = [slice(None)] * (rank - consumed)
    if Ellipsis in [e for e in entries if e is Ellipsis]:
        at = next(i for i, entry in enumerate(entries) if entry is Ellipsis)
        entries = (*entries[:at], *full, *entries[at + 1 :])
    else:
        entries = (*entries, *full)
    return _position_after(entries, axis)


def _position_after(entries: Sequence[Any], axis: int) -> int | None:
    read = written = 0
    found = None
    for entry in entries:
        if entry is None:
            written += 1
        elif isinstance(entry, int):
            if read == axis:
                return None
            read += 1
        elif (bounds := _bounds(entry)) is not None:
            if read == axis:
                if bounds not in _FULL_SLICES:
                    return None
                found = written
            read, written = read + 1, written + 1
        else:
            return None
    return found


def _bounds(entry: Any) -> tuple[Any, Any, Any] | None:
    """Start, stop and step of a slice (a dictionary in tf_keras); None for anything else."""
    if isinstance(entry, slice):
        return entry.start, entry.stop, entry.step
    if isinstance(entry, Mapping) and set(entry) == {"start", "stop", "step"}:
        return entry["start"], entry["stop"], entry["step"]
    return None
