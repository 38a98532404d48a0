"""A model's graph: its layer calls, nested models flattened, and a new model along it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from wrpn_tf.caller_depth import depth_of_caller
from wrpn_tf.keras_flavor import KERAS, TF_KERAS, KerasFlavor, flavor_of, is_own

Shape = tuple[int | None, ...]


def check_model(model: Any, argument: str = "model") -> KerasFlavor:
    """Checks that a model's graph can be read, and returns its flavour.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it is subclassed, not built, or has no weights.
    """
    flavor = flavor_of(model, argument)
    if not isinstance(model, flavor.keras.Model):
        raise TypeError(f"`{argument}` must be a model, got the layer {type(model).__name__}.")
    is_sequential = isinstance(model, flavor.keras.Sequential)
    if is_sequential and not model.built:
        raise ValueError(
            f"`{argument}` must be built, got the Sequential model {model.name!r} without an input "
            "shape. Add an Input layer first, or call `model.build(input_shape)`."
        )
    if not _has_graph(model):
        advice = "Express it as `keras.Model(inputs, outputs)`: call its layers on a `keras.Input`."
        if _has_graph(getattr(model, "student", None)):  # A Distiller's is what is meant.
            advice = "Pass the model that it trains, `distiller.student`."
        raise ValueError(
            f"`{argument}` must be a Functional or Sequential model, got the subclassed model "
            f"{type(model).__name__}, whose layers' connections cannot be read. {advice}"
        )
    if not model.weights:
        raise ValueError(f"`{argument}` must have weights, got {model.name!r} without any.")
    return flavor


@dataclasses.dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of one layer, or of one Keras 3 operation, in a model's graph.

    Attributes:
        layer: The layer or operation.
        path: The layer's name; `outer/inner` for a layer of a nested model.
        name: The layer's name in a flattened model: unique and legal in both flavours.
        inputs: Keys of the input tensors, in call order.
        outputs: Keys of the output tensors.
        input_shapes: Shapes with batch dimension, `None` where unknown.
        output_shapes: Likewise.
        invoke: `invoke(layer, tensors)` calls `layer` with this call's arguments, taking each
            tensor from `tensors[key]`. Values, in contrast to symbolic tensors, are computed in
            inference, whatever the layer does by default: image augmentation trains.
    """

    layer: Any
    path: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    invoke: Callable[[Any, Mapping[int, Any]], Any] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class ModelGraph:
    """The calls of a model in topological order, nested models flattened, input layers left out.

    Attributes:
        flavor: The model's Keras.
        model: The model.
        inputs: Tensor keys of the model's flattened inputs.
        outputs: Tensor keys of the model's flattened outputs.
        calls: The layer calls.
        shapes: Tensor key -> shape with batch dimension.
        dtypes: Tensor key -> name of the type of its values, as `"float32"`.
    """

    flavor: KerasFlavor
    model: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    calls: tuple[LayerCall, ...]
    shapes: dict[int, Shape]
    dtypes: dict[int, str]

    @functools.cached_property
    def consumers(self) -> dict[int, tuple[LayerCall, ...]]:
        """Tensor key -> the calls that read it."""
        readers: dict[int, list[LayerCall]] = {key: [] for key in self.shapes}
        for call in self.calls:
            for key in dict.fromkeys(call.inputs):
                readers[key].append(call)
        return {key: tuple(calls) for key, calls in readers.items()}

    @functools.cached_property
    def producers(self) -> dict[int, LayerCall]:
        """Tensor key -> the call that makes it; the model's inputs are not in it."""
        return {key: call for call in self.calls for key in call.outputs}

    @functools.cached_property
    def input_names(self) -> tuple[str, ...]:
        """Names of the model's flattened inputs, those of its `Input` layers."""
        return tuple(tensor._keras_history[0].name for tensor in self.model.inputs)

    def flatten(self, structure: Any) -> list[Any]:
        """Returns the tensors of nested tuples, lists and dictionaries, in the flavour's order."""
        return list(_nest(self.flavor).flatten(structure))

    def flatten_inputs(self, structure: Any) -> list[Any]:
        """Returns the values for the model's inputs, in the model's order.

        Args:
            structure: Structured as the model's inputs are, or a dictionary by `input_names`, as
                `fit` takes them; more keys than these count for nothing. What is neither is
                flattened.

        Raises:
            ValueError: If a dictionary lacks an input.
        """
        if not isinstance(structure, Mapping):
            return self.flatten(structure)
        own, _ = structures(self.model)
        names = list(own) if isinstance(own, Mapping) else self.input_names
        missing = [name for name in names if name not in structure]
        if missing:
            raise ValueError(
                f"A dictionary of data must hold the model's inputs by name, {_list(names)}, got "
                f"{_list(structure) or 'none'}, without {_list(missing)}."
            )
        values = {name: structure[name] for name in names}
        return self.flatten(values) if isinstance(own, Mapping) else list(values.values())

    def walk(
        self,
        inputs: Sequence[Any],
        apply: Callable[[LayerCall, Mapping[int, Any]], Any] | None = None,
    ) -> Iterator[tuple[LayerCall, list[Any]]]:
        """Runs the model call by call; yields each call and its flattened results.

        Each tensor is forgotten after its last use.

        Args:
            inputs: Values of the model's flattened inputs.
            apply: `apply(call, tensors)` runs one call; `call.invoke(call.layer, tensors)` if None.
        """
        apply = apply or (lambda call, tensors: call.invoke(call.layer, tensors))
        tensors = dict(zip(self.inputs, inputs, strict=True))
        last_use = {key: call for call in self.calls for key in call.inputs}
        for call in self.calls:
            results = self.flatten(apply(call, tensors))
            tensors.update(zip(call.outputs, results, strict=True))
            yield call, results
            for key in set(call.inputs):
                if last_use[key] is call:
                    del tensors[key]

    def layers(self) -> dict[str, Any]:
        """Path -> layer, each layer once, in the order of first call."""
        return {call.path: call.layer for call in self.calls}


def model_graph(model: Any) -> ModelGraph:
    """Reads the graph of a Functional or Sequential model of either flavour.

    Raises:
        TypeError, ValueError: As `check_model`.
    """
    flavor = check_model(model)
    return _GraphReader(flavor).read(model)


def warn_of_own_class(model: Any) -> None:
    """Warns that a copy of a model leaves behind what its class does besides its layers."""
    if is_own(type(model)):
        warnings.warn(
            f"The copy of {model.name!r} is a plain Functional model: what the class "
            f"{type(model).__name__} does besides its layers, such as a `train_step` of its own, "
            "stays behind.",
            stacklevel=depth_of_caller(),
        )


class _GraphReader:
    """Walks a model's nodes, descending into nested models."""

    def __init__(self, flavor: KerasFlavor):
        self._flavor = flavor
        self._shapes: dict[int, Shape] = {}
        self._dtypes: dict[int, str] = {}
        self._calls: list[LayerCall] = []
        self._names: dict[str, str] = {}  # path -> name
        self._path_of: dict[int, str] = {}  # id(layer) -> path of its first call

    def read(self, model: Any) -> ModelGraph:
        functional = _functional(model)
        self._names = {layer.name: layer.name for layer in _operations(functional, self._flavor)}
        inputs = [self._new_key(tensor) for tensor in functional.inputs]
        outputs = self._read_nodes(functional, inputs, prefix="")
        return ModelGraph(
            flavor=self._flavor,
            model=model,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            calls=tuple(self._calls),
            shapes=self._shapes,
            dtypes=self._dtypes,
        )

    def _new_key(self, tensor: Any) -> int:
        key = len(self._shapes)
        self._shapes[key] = tuple(tensor.shape)
        self._dtypes[key] = getattr(tensor.dtype, "name", tensor.dtype)
        return key

    def _read_nodes(
        self, functional: Any, inputs: list[int], prefix: str, training: bool | None = None
    ) -> list[int]:
        keys = {id(tensor): key for tensor, key in zip(functional.inputs, inputs, strict=True)}
        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for node in functional._nodes_by_depth[depth]:
                sources = _node_inputs(node, self._flavor)
                if node.is_input or any(id(source) not in keys for source in sources):
                    continue
                keys_of_inputs = [keys[id(source)] for source in sources]
                self._read_node(node, keys_of_inputs, keys, prefix, training)
        return [keys[id(tensor)] for tensor in functional.outputs]

    def _read_node(
        self,
        node: Any,
        inputs: list[int],
        keys: dict[int, int],
        prefix: str,
        training: bool | None,
    ) -> None:
        layer = node.operation if self._flavor is KERAS else node.layer
        path = self._path_of.setdefault(id(layer), prefix + layer.name)
        results = self._flatten(node.outputs)
        if isinstance(layer, self._flavor.keras.Model) and _has_graph(layer):
            if self._flavor is TF_KERAS:  # In Keras 3 the outermost model's `training` overrides.
                training = node.call_kwargs.get("training", training)
            outputs = self._read_nodes(_functional(layer), inputs, path + "/", training)
        else:
            outputs = [self._new_key(tensor) for tensor in results]
            self._calls.append(
                LayerCall(
                    layer=layer,
                    path=path,
                    name=self._name(path),
                    inputs=tuple(inputs),
                    outputs=tuple(outputs),
                    input_shapes=tuple(self._shapes[key] for key in inputs),
                    output_shapes=tuple(self._shapes[key] for key in outputs),
                    invoke=_invoker(node, dict(keys), self._flavor, training),
                )
            )
        keys.update({id(t): key for t, key in zip(results, outputs, strict=True)})

    def _name(self, path: str) -> str:
        if path not in self._names:
            name = stem = path.replace("/", "_")
            count = 0
            while name in self._names.values():
                count += 1
                name = f"{stem}_{count}"
            self._names[path] = name
        return self._names[path]

    def _flatten(self, structure: Any) -> list[Any]:
        return list(_nest(self._flavor).flatten(structure))


def structures(model: Any) -> tuple[Any, Any]:
    """Returns a model's inputs and outputs: tensors, or lists and dictionaries of them.

    Those of a Sequential of Keras 3 too, which has no `input` and `output` of its own.
    """
    functional = _functional(model)
    if flavor_of(model) is KERAS:
        return functional._inputs_struct, functional._outputs_struct
    return functional._nested_inputs, functional._nested_outputs


@dataclasses.dataclass(frozen=True)
class OnTensors:
    """Stands for a layer or operation, and takes its tensors alone, none of its other arguments.

    Attributes:
        function: Called with the tensor, or with the list of several.
    """

    function: Callable[[Any], Any]


def rebuild(
    graph: ModelGraph,
    make_layer: Callable[[LayerCall], Any],
    after: Callable[[int, Any], Any] | None = None,
    apply: Callable[[LayerCall, Any, Mapping[int, Any]], Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Builds a new Functional model along a graph, with other layers.

    Args:
        graph: The graph to follow.
        make_layer: `make_layer(call)` returns the layer that replaces `call.layer`, or `OnTensors`,
            or a tuple of layers to apply one after the other. It is asked once per path; a shared
            layer stays shared.
        after: `after(key, tensor)` returns what stands for the tensor `key` from there on; it is
            called for each model input and each output of each call, and may apply layers.
        apply: `apply(call, layer, tensors)` returns the result of a call's layer on the tensors
            that the call reads; None: `call.invoke(layer, tensors)`.

    Returns:
        The model, named and structured as `graph.model`, and the new layers by path.
    """
    flavor = graph.flavor
    after = after or (lambda key, tensor: tensor)
    apply = apply or (lambda call, layer, tensors: call.invoke(layer, tensors))
    functional = _functional(graph.model)
    sources = [_new_input(tensor, flavor) for tensor in functional.inputs]
    tensors = {key: after(key, source) for key, source in zip(graph.inputs, sources, strict=True)}
    layers: dict[str, Any] = {}
    for call in graph.calls:
        if call.path not in layers:
            layers[call.path] = make_layer(call)
        made = layers[call.path]
        first, *rest = made if isinstance(made, tuple) else (made,)
        if isinstance(first, OnTensors):
            values = [tensors[key] for key in call.inputs]
            result = first.function(values[0] if len(values) == 1 else values)
        else:
            result = apply(call, first, tensors)
        for layer in rest:
            result = layer(result)
        flat = _nest(flavor).flatten(result)
        tensors.update({key: after(key, t) for key, t in zip(call.outputs, flat, strict=True)})
    input_struct, output_struct = structures(graph.model)
    pack = _nest(flavor).pack_sequence_as
    model = flavor.keras.Model(
        pack(input_struct, sources),
        pack(output_struct, [tensors[key] for key in graph.outputs]),
        name=graph.model.name,
    )
    return model, layers


def copy_weights(graph: ModelGraph, layers: Mapping[str, Any]) -> None:
    """Copies the weights of a graph's layers into the layers of the same paths.

    Raises:
        ValueError: If the shapes differ (Keras' own error).
    """
    for path, layer in graph.layers().items():
        if getattr(layer, "weights", None):
            layers[path].set_weights(layer.get_weights())


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _functional(model: Any) -> Any:
    """The Functional model behind a Keras 3 Sequential; everything else as it is."""
    return getattr(model, "_functional", None) or model


def _has_graph(model: Any) -> bool:
    return getattr(_functional(model), "_nodes_by_depth", None) is not None


def _operations(functional: Any, flavor: KerasFlavor) -> list[Any]:
    return functional.operations if flavor is KERAS else functional.layers


def _nest(flavor: KerasFlavor) -> types.ModuleType:
    """The module with `flatten` and `pack_sequence_as` for the flavour's structures."""
    if flavor is KERAS:
        return flavor.keras.tree
    import tensorflow as tf

    return tf.nest


def _node_inputs(node: Any, flavor: KerasFlavor) -> list[Any]:
    return list(node.input_tensors if flavor is KERAS else node.keras_inputs)


def _invoker(
    node: Any, keys: dict[int, int], flavor: KerasFlavor, training: bool | None
) -> Callable[..., Any]:
    """Returns the function that repeats a node's call with another layer and other tensors.

    `training` is what a nested model was called with, and so holds for its layers too.
    """
    wanted = {id(t): keys[id(t)] for t in _node_inputs(node, flavor)}

    def invoke(layer: Any, tensors: Mapping[int, Any]) -> Any:
        values = {tensor_id: tensors[key] for tensor_id, key in wanted.items()}
        if flavor is KERAS:
            args, kwargs = node.arguments.fill_in(values)
        else:
            args, kwargs = _nest(flavor).map_structure(
                lambda value: values.get(id(value), value), (node.call_args, node.call_kwargs)
            )
        is_symbolic = any(hasattr(value, "_keras_history") for value in values.values())
        return layer(*args, **_with_training(kwargs, layer, flavor, training, is_symbolic))

    return invoke


def _with_training(
    kwargs: Mapping[str, Any],
    layer: Any,
    flavor: KerasFlavor,
    training: bool | None,
    is_symbolic: bool,
) -> Mapping[str, Any]:
    """The keyword arguments of a node, for a call that no model makes."""
    if flavor is KERAS:  # A node has the default of its layer; a model's own call overrides both.
        is_told = is_symbolic or not kwargs.get("training")
        return kwargs if is_told else {**kwargs, "training": False}
    parameter = inspect.signature(getattr(layer, "call", layer)).parameters.get("training")
    if parameter is None or kwargs.get("training") is not None:
        return kwargs
    if training is None and not is_symbolic and parameter.default is True:
        training = False
    return kwargs if training is None else {**kwargs, "training": training}


def _new_input(tensor: Any, flavor: KerasFlavor) -> Any:
    layer = tensor._keras_history[0]
    return flavor.keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=layer.name)
