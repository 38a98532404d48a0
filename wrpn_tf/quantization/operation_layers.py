"""The layers that compute what an operation of a graph does.

`keras.ops.mean(x, axis=(1, 2))` and `tf.reduce_mean(x, [1, 2])` are a GlobalAveragePooling2D, and
what holds for that layer holds for them. An operation's name says which layers might stand for it,
its arguments and shapes how they are made; whether they do is tried on numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wrpn_tf.call_arguments import argument, axis_order, slice_entries, zero_padding
from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import LayerCall, ModelGraph
from wrpn_tf.quantization.quantize_registry import Kind, function_name, kind_of

# Of an axis whose size is not known, where layers are tried: no smaller than usual windows.
_UNKNOWN_SIZE = 32
# Of numbers up to 8, which both may add up in orders of their own; half precision rounds them.
_ERROR, _ERROR_IN_HALF_PRECISION = 1e-5, 0.05


def layers_for(call: LayerCall, graph: ModelGraph) -> tuple[Any, ...]:
    """Returns the unbuilt layers that compute what a call of an operation does, one after another.

    Empty for a call of a layer, for an operation on whole numbers or with a rule of its own (a
    slice, a function of each value by itself, ...), and for one that no layers known here compute.

    Args:
        call: The call.
        graph: The graph that it is a call of.
    """
    propose = _PROPOSALS.get(function_name(call.layer).lower().replace("_", ""))
    if propose is None or not _is_operation(call.layer, graph) or len(call.outputs) > 1:
        return ()
    dtype = graph.dtypes[call.inputs[0]]
    if "float" not in dtype:
        return ()
    layers = propose(call, _Maker(call, graph))
    is_half = dtype in ("bfloat16", "float16")
    error = _ERROR_IN_HALF_PRECISION if is_half else _ERROR
    return layers if layers and _compute(layers, call, error) else ()


def _is_operation(layer: Any, graph: ModelGraph) -> bool:
    if keras_class(layer) in ("GetItem", "SlicingOpLambda"):
        return True
    is_layer = isinstance(layer, graph.flavor.layers.Layer) and keras_class(layer) != "TFOpLambda"
    return not is_layer and kind_of(layer) is Kind.ROUNDING


def _compute(layers: Sequence[Any], call: LayerCall, error: float) -> bool:
    """Whether layers compute what an operation does, of whole numbers up to 8."""
    generator = np.random.default_rng(0)
    values = {}
    for key, (_, *sizes) in zip(call.inputs, call.input_shapes, strict=True):
        shape = (2, *(size or _UNKNOWN_SIZE for size in sizes))
        values[key] = generator.integers(-8, 9, shape).astype(np.float32)
    expected = np.asarray(call.invoke(call.layer, values))
    tensors = [values[key] for key in call.inputs]
    result: Any = tensors[0] if len(tensors) == 1 else tensors
    for layer in layers:
        result = layer(result)
    result = np.asarray(result)
    return expected.shape == result.shape and bool(np.abs(result - expected).max() <= error)


@dataclasses.dataclass(frozen=True)
class _Maker:
    """Makes layers with the names and the type that a call has."""

    call: LayerCall
    graph: ModelGraph

    @property
    def rank(self) -> int:
        """Of space: 2 for images."""
        return len(self.call.input_shapes[0]) - 2

    def __call__(self, kind: str, *args: Any, part: str = "", **kwargs: Any) -> Any:
        name = self.call.name.replace(".", "_")  # A SavedModel's names have no dots.
        name = f"{name}_{part}" if part else name
        dtype = self.graph.dtypes[self.call.inputs[0]]
        return getattr(self.graph.flavor.layers, kind)(*args, **kwargs, name=name, dtype=dtype)


_Layers = tuple[Any, ...]


def _global_pool(kind: str) -> Callable[[LayerCall, _Maker], _Layers]:
    def propose(call: LayerCall, make: _Maker) -> _Layers:
        keeps = len(call.output_shapes[0]) == len(call.input_shapes[0])
        if make.rank not in (1, 2, 3):
            return ()
        return (make(f"Global{kind}Pooling{make.rank}D", keepdims=keeps),)

    return propose


def _pool(kind: str) -> Callable[[LayerCall, _Maker], _Layers]:
    def propose(call: LayerCall, make: _Maker) -> _Layers:
        window = argument(call, "pool_size", 1, None) or argument(call, "ksize", 1, None)
        strides = argument(call, "strides", 2, None) or window
        padding = str(argument(call, "padding", 3, "valid")).lower()
        if make.rank not in (1, 2, 3) or padding not in ("same", "valid"):
            return ()
        sizes = [_spatial(value, make.rank) for value in (window, strides)]
        return (make(f"{kind}Pooling{make.rank}D", *sizes, padding),)

    return propose


def _spatial(sizes: Any, rank: int) -> tuple[int, ...]:
    """A size of each axis of space, from a number, or numbers that may name all axes."""
    values = np.atleast_1d(np.asarray(sizes)).tolist()
    if len(values) == rank + 2:
        values = values[1:-1]
    return tuple(values * rank if len(values) == 1 else values)


def _pad(call: LayerCall, make: _Maker) -> _Layers:
    amounts = zero_padding(call)
    if amounts is None or make.rank not in (1, 2, 3):
        return ()
    _, *space, channels = amounts
    pad = f"ZeroPadding{make.rank}D"
    if channels == (0, 0):
        return (make(pad, space[0] if make.rank == 1 else tuple(space)),)
    if make.rank != 2:
        return ()
    # As if the width were the height of an image with channels first.
    behind = make(pad, ((0, 0), channels), data_format="channels_first")
    if not np.any(space):
        return (behind,)
    return (make(pad, tuple(space), part="space"), behind)


def _permute(call: LayerCall, make: _Maker) -> _Layers:
    order = axis_order(call)
    return (make("Permute", order[1:]),) if order[0] == 0 else ()


def _reshape(call: LayerCall, make: _Maker) -> _Layers:
    _, *target = call.output_shapes[0]
    if len(call.inputs) > 1 or None in (*call.input_shapes[0][1:], *target):
        return ()
    return (make("Reshape", tuple(target)),)


def _concatenate(call: LayerCall, make: _Maker) -> _Layers:
    shapes = zip(call.input_shapes[0], call.output_shapes[0], strict=True)
    axes = [axis for axis, (part, whole) in enumerate(shapes) if part != whole]
    return (make("Concatenate", axis=axes[0]),) if len(axes) == 1 and axes[0] > 0 else ()


def _resize(call: LayerCall, make: _Maker) -> _Layers:
    before, after = call.input_shapes[0][1:-1], call.output_shapes[0][1:-1]
    if make.rank != 2 or None in (*before, *after):
        return ()
    factors = tuple(large // small for small, large in zip(before, after, strict=True))
    way = argument(call, "interpolation", 2, None) or argument(call, "method", 2, "bilinear")
    if min(factors) < 1 or way not in ("nearest", "bilinear"):
        return ()
    return (make("UpSampling2D", factors, interpolation=way),)


def _strided_slice(call: LayerCall, make: _Maker) -> _Layers:
    """`x[:, 1::2, ::2]`: pooling over windows of one pixel, perhaps of a cropped image."""
    _, *sizes, _ = call.input_shapes[0]
    entries = slice_entries(call) if len(call.inputs) == 1 else None
    is_plain = entries is not None and all(isinstance(entry, slice) for entry in entries)
    if make.rank not in (1, 2, 3) or None in sizes or not is_plain:
        return ()
    taken = [range(size)[entry] for entry, size in zip(entries[1:-1], sizes, strict=True)]
    steps = tuple(positions.step for positions in taken)
    if min(map(len, taken)) == 0 or min(steps) < 1 or set(steps) == {1}:
        return ()
    pool = make(f"MaxPooling{make.rank}D", 1, steps)
    cut = []
    for positions, size in zip(taken, sizes, strict=True):
        behind = size - 1 - positions[-1]  # Less than a step is left out by pooling.
        cut.append((positions[0], behind if behind >= positions.step else 0))
    if not np.any(cut):
        return (pool,)
    crop = make(f"Cropping{make.rank}D", cut[0] if make.rank == 1 else tuple(cut), part="crop")
    return (crop, pool)


def _depth_to_space(call: LayerCall, make: _Maker) -> _Layers:
    size = argument(call, "block_size", 1, None)
    _, height, width, depth = call.input_shapes[0]
    if None in (height, width, depth):
        return ()
    parts = (height, width, size, size, depth // size**2)
    whole = (height * size, width * size, depth // size**2)
    return _through(make, parts, whole)


def _space_to_depth(call: LayerCall, make: _Maker) -> _Layers:
    size = argument(call, "block_size", 1, None)
    _, height, width, depth = call.input_shapes[0]
    if None in (height, width, depth):
        return ()
    parts = (height // size, size, width // size, size, depth)
    whole = (height // size, width // size, depth * size**2)
    return _through(make, parts, whole)


def _through(make: _Maker, parts: tuple[int, ...], whole: tuple[int, ...]) -> _Layers:
    """What takes axes apart, exchanges those in the middle, and joins them."""
    return (
        make("Reshape", parts, part="parts"),
        make("Permute", (1, 3, 2, 4, 5), part="turned"),
        make("Reshape", whole),
    )


_PROPOSALS: dict[str, Callable[[LayerCall, _Maker], _Layers]] = {
    **dict.fromkeys(("averagepool", "avgpool", "avgpool1d", "avgpool2d"), _pool("Average")),
    "concat": _concatenate,
    "depthtospace": _depth_to_space,
    **dict.fromkeys(("expanddims", "reshape", "squeeze"), _reshape),
    **dict.fromkeys(("getitem", "slicingoplambda"), _strided_slice),
    **dict.fromkeys(("max", "reducemax"), _global_pool("Max")),
    **dict.fromkeys(("maxpool", "maxpool1d", "maxpool2d"), _pool("Max")),
    **dict.fromkeys(("mean", "reducemean"), _global_pool("Average")),
    **dict.fromkeys(("moveaxis", "swapaxes", "transpose"), _permute),
    **dict.fromkeys(("pad", "padv2"), _pad),
    "resize": _resize,
    "spacetodepth": _space_to_depth,
}
