"""Reading a model's graph and building it again, in both Keras."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.keras_flavor import KERAS, clone_layer, flavor_of
from wrpn_tf.model_graph import check_model, copy_weights, model_graph, rebuild


def _image_model(flavor):
    """Two convolutions, the second added to the first."""
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3), name="pixels")
    x = layers.Conv2D(5, 3, padding="same", name="first")(x)
    y = layers.Conv2D(5, 3, padding="same", activation="relu", name="second")(x)
    y = layers.Add(name="sum")([x, y])
    return flavor.keras.Model(inputs, layers.Flatten(name="flat")(y), name="net")


def _nested_model(flavor):
    """A model in a model in a model, one of them called twice."""
    layers, keras = flavor.layers, flavor.keras
    innermost_input = keras.Input((3,))
    innermost = keras.Model(
        innermost_input, layers.Dense(3, name="dense")(innermost_input), name="innermost"
    )
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="dense"), innermost], name="inner"
    )
    x = inputs = keras.Input((3,))
    x = innermost(inner(inner(x)))
    return keras.Model(inputs, layers.Dense(2, name="dense")(x))


def _copied(model, **kwargs):
    graph = model_graph(model)
    copy, layers = rebuild(graph, _same_layer, **kwargs)
    copy_weights(graph, layers)
    return copy


def _same_layer(call):
    """What clones layers and takes Keras 3's operations as they are."""
    if not hasattr(call.layer, "get_config") or not hasattr(call.layer, "weights"):
        return call.layer
    return clone_layer(call.layer, name=call.name)


def _random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def _assert_same_function(model, copy, inputs):
    flatten = model_graph(model).flatten
    expected = flatten(model(inputs))
    got = flatten(copy(inputs))
    assert len(expected) == len(got)
    for left, right in zip(expected, got, strict=True):
        # The same operations on the same numbers.
        np.testing.assert_array_equal(left, right)


# Models that can be read, and others.


def test_check_returns_the_flavour(flavor):
    assert check_model(_image_model(flavor)) is flavor


def test_check_refuses_a_layer(flavor):
    with pytest.raises(TypeError, match="`student` must be a model, got the layer Dense"):
        check_model(flavor.layers.Dense(1), "student")


def test_check_refuses_a_sequential_model_without_input_shape(flavor):
    model = flavor.keras.Sequential([flavor.layers.Dense(1)], name="open")
    with pytest.raises(ValueError, match="`model` must be built, got the Sequential model 'open'"):
        check_model(model)


def test_check_accepts_a_sequential_model_built_later(flavor):
    model = flavor.keras.Sequential([flavor.layers.Dense(1)])
    model.build((None, 3))
    assert check_model(model) is flavor
    assert [call.path for call in model_graph(model).calls] == [model.layers[0].name]


def test_check_refuses_a_subclassed_model(flavor):
    class Subclassed(flavor.keras.Model):
        """A model without a graph."""

    with pytest.raises(ValueError, match=r"got the subclassed model Subclassed.*keras.Model\(inp"):
        check_model(Subclassed())


def test_check_refuses_a_model_without_weights(flavor):
    inputs = flavor.keras.Input((3,))
    model = flavor.keras.Model(inputs, flavor.layers.ReLU()(inputs), name="empty")
    with pytest.raises(ValueError, match="`model` must have weights, got 'empty' without any"):
        check_model(model)


# Graphs.


def test_graph_of_a_model(flavor):
    graph = model_graph(_image_model(flavor))
    assert graph.flavor is flavor
    assert [call.path for call in graph.calls] == ["first", "second", "sum", "flat"]
    first, second, total, flat = graph.calls
    assert first.inputs == graph.inputs
    assert total.inputs == first.outputs + second.outputs
    assert flat.outputs == graph.outputs
    assert total.input_shapes == ((None, 4, 4, 5), (None, 4, 4, 5))
    assert flat.output_shapes == ((None, 80),)
    assert graph.shapes[graph.inputs[0]] == (None, 4, 4, 3)
    assert graph.consumers[first.outputs[0]] == (second, total)
    assert graph.consumers[graph.outputs[0]] == ()
    assert graph.producers[second.outputs[0]] is second
    assert graph.inputs[0] not in graph.producers


def test_graph_of_nested_models_is_flat(flavor):
    graph = model_graph(_nested_model(flavor))
    assert [(call.path, call.name) for call in graph.calls] == [
        ("inner/dense", "inner_dense"),
        # `innermost` was called in `inner` first, so that path is kept.
        ("inner/innermost/dense", "inner_innermost_dense"),
        ("inner/dense", "inner_dense"),
        ("inner/innermost/dense", "inner_innermost_dense"),
        ("inner/innermost/dense", "inner_innermost_dense"),
        ("dense", "dense"),
    ]
    assert list(graph.layers()) == ["inner/dense", "inner/innermost/dense", "dense"]


def test_names_of_nested_layers_do_not_clash(flavor):
    layers, keras = flavor.layers, flavor.keras
    inner_input = keras.Input((3,))
    inner = keras.Model(inner_input, layers.Dense(3, name="b")(inner_input), name="a")
    x = inputs = keras.Input((3,))
    model = keras.Model(inputs, inner(layers.Dense(3, name="a_b")(x)))
    assert [call.name for call in model_graph(model).calls] == ["a_b", "a_b_1"]
    assert [layer.name for layer in _copied(model).layers[1:]] == ["a_b", "a_b_1"]


def test_only_the_models_own_part_of_a_larger_graph_is_read(flavor):
    layers, keras = flavor.layers, flavor.keras
    inputs = keras.Input((3,))
    middle = layers.Dense(4, name="before")(inputs)
    outputs = layers.Dense(2, name="after")(middle)
    keras.Model(inputs, outputs)
    for model, own in (
        (keras.Model(inputs, middle), "before"),
        (keras.Model(middle, outputs), "after"),  # begins at an inner tensor
    ):
        assert [call.path for call in model_graph(model).calls] == [own]


def test_flatten_gives_the_order_of_the_graph(flavor):
    graph = model_graph(_image_model(flavor))
    assert graph.flatten({"b": 1, "a": (2, [3])}) == [2, 3, 1]


# Named against the alphabet, so that a dictionary's sorted order is not the model's.
OWN_STRUCTURES = {
    "list": lambda z, a: [z, a],
    "by the inputs' names": lambda z, a: {"z": z, "a": a},
    "by names of its own": lambda z, a: {"left": z, "right": a},
}


def _two_inputs(flavor, structure):
    z, a = (flavor.keras.Input((2,), name=name) for name in "za")
    x = flavor.layers.Dense(1)(flavor.layers.Concatenate()([z, a]))
    return model_graph(flavor.keras.Model(structure(z, a), x))


@pytest.mark.parametrize("structure", OWN_STRUCTURES)
def test_data_by_name_reach_the_inputs_of_these_names(flavor, structure):
    graph = _two_inputs(flavor, OWN_STRUCTURES[structure])
    values = {"z": 1, "a": 2, "left": 1, "right": 2, "label": 3}
    by_name = dict(zip(graph.input_names, graph.flatten_inputs(values), strict=True))
    assert by_name == {"z": 1, "a": 2}


def test_data_by_the_name_of_a_single_input(flavor):
    graph = model_graph(_image_model(flavor))
    assert graph.flatten_inputs({"label": 1, "pixels": 2}) == [2]
    with pytest.raises(ValueError, match="by name, 'pixels', got 'image', without 'pixels'"):
        graph.flatten_inputs({"image": 2})


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ("list", "by name, 'z', 'a', got 'a', 'x', without 'z'"),
        ("by the inputs' names", "got 'a', 'x', without 'z'"),
        ("by names of its own", "by name, '.*t', got 'a', 'x', without '.*t', '.*t'"),
    ],
)
def test_data_of_other_names_are_refused(flavor, structure, message):
    graph = _two_inputs(flavor, OWN_STRUCTURES[structure])
    with pytest.raises(ValueError, match=message):
        graph.flatten_inputs({"a": 1, "x": 2})


# Rebuilding.


@pytest.mark.parametrize(
    ("build", "shape"), [(_image_model, (2, 4, 4, 3)), (_nested_model, (2, 3))]
)
def test_rebuilt_model_computes_the_same(flavor, build, shape):
    model = build(flavor)
    copy = _copied(model)
    assert copy is not model
    assert flavor_of(copy) is flavor
    assert copy.name == model.name
    assert copy.count_params() == model.count_params()
    _assert_same_function(model, copy, _random(*shape))


def test_values_walk_through_augmentation_as_in_inference(flavor):
    layers = flavor.layers
    x = inputs = flavor.keras.Input((4, 4, 3))
    x = layers.RandomZoom(0.5, seed=1)(layers.RandomFlip(seed=0)(x))
    x = layers.Dense(2)(layers.Dropout(0.5)(layers.Flatten()(x)))
    model = flavor.keras.Model(inputs, x)
    images = _random(3, 4, 4, 3)
    for net in (model, _copied(model)):
        *_, (_, (result,)) = model_graph(net).walk([images])
        np.testing.assert_array_equal(result, net(images, training=False))
        assert np.abs(np.asarray(net(images, training=True)) - result).max() > 0.1


def test_layers_of_a_nested_model_train_as_it_was_called(flavor):
    layers, keras = flavor.layers, flavor.keras
    inner_input = keras.Input((3,))
    inner = keras.Model(inner_input, layers.Dropout(0.5, seed=0)(layers.Dense(3)(inner_input)))
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs, training=False)))
    x = _random(64, 3)
    # In Keras 3 what the whole model is called with overrides it.
    drops = flavor is KERAS
    for net in (model, _copied(model)):
        differs = np.abs(np.asarray(net(x, training=True)) - np.asarray(net(x, training=False)))
        assert bool(differs.max() > 0.1) is drops


def test_rebuilt_model_keeps_names(flavor):
    model = _image_model(flavor)
    assert [layer.name for layer in _copied(model).layers] == [layer.name for layer in model.layers]


def test_rebuilding_leaves_the_users_model_alone(flavor):
    model = _nested_model(flavor)
    before = [np.array(weight) for weight in model.get_weights()]
    configuration = model.to_json()
    calls = len(model_graph(model).calls)
    copy = _copied(model)
    copy.set_weights([weight + 1 for weight in copy.get_weights()])
    assert model.to_json() == configuration
    assert len(model_graph(model).calls) == calls
    for left, right in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_shared_layers_stay_shared(flavor):
    layers, keras = flavor.layers, flavor.keras
    left, right = keras.Input((3,)), keras.Input((3,))
    dense = layers.Dense(4, name="dense")
    model = keras.Model([left, right], layers.Concatenate()([dense(left), dense(right)]))
    asked = []

    def make_layer(call):
        asked.append(call.path)
        return clone_layer(call.layer)

    copy, _ = rebuild(model_graph(model), make_layer)
    assert asked.count("dense") == 1
    assert copy.count_params() == 3 * 4 + 4
    copy.set_weights(model.get_weights())
    _assert_same_function(model, copy, [_random(2, 3), _random(2, 3) + 1])


def test_dictionaries_of_inputs_and_outputs(flavor):
    layers, keras = flavor.layers, flavor.keras
    # Not in alphabetical order, which flattening would give.
    inputs = {"image": keras.Input((4,), name="image"), "depth": keras.Input((3,), name="depth")}
    joined = layers.Concatenate()([inputs["image"], layers.Dense(2)(inputs["depth"])])
    outputs = {"score": layers.Dense(1)(joined), "boxes": (layers.Dense(4)(joined), joined)}
    model = keras.Model(inputs, outputs)
    copy = _copied(model)
    values = {"image": _random(2, 4), "depth": _random(2, 3)}
    _assert_same_function(model, copy, values)
    result = copy(values)
    assert result["score"].shape == (2, 1)
    assert [part.shape for part in result["boxes"]] == [(2, 4), (2, 6)]


def test_an_output_that_is_an_input_and_one_given_twice(flavor):
    layers, keras = flavor.layers, flavor.keras
    inputs = keras.Input((3,))
    y = layers.Dense(3)(inputs)
    model = keras.Model(inputs, [y, inputs, y])
    _assert_same_function(model, _copied(model), _random(2, 3))


def test_operators_and_constants(flavor):
    layers, keras = flavor.layers, flavor.keras
    x = inputs = keras.Input((4, 3))
    x = layers.Dense(6)(x)
    y = (2.0 - x) * x[:, 1:2, ::-1] / (x * x + 1.0)
    y = y + np.linspace(0, 1, 6, dtype="float32")
    model = keras.Model(inputs, -y)
    _assert_same_function(model, _copied(model), _random(2, 4, 3))


def test_layers_with_keyword_arguments_and_several_tensors(flavor):
    layers, keras = flavor.layers, flavor.keras
    query, value = keras.Input((4, 6)), keras.Input((5, 6))
    attended, scores = layers.MultiHeadAttention(2, 3, name="attention")(
        query, value, return_attention_scores=True
    )
    y = layers.LSTM(4, return_sequences=True)(attended, initial_state=None)
    y = layers.Dropout(0.5)(y, training=False)
    model = keras.Model([query, value], [y, scores])
    copy = _copied(model)
    _assert_same_function(model, copy, [_random(2, 4, 6), _random(2, 5, 6)])


def test_input_names_types_and_batch_sizes_stay(flavor):
    keras = flavor.keras
    inputs = keras.Input(batch_shape=(2, 5), dtype="int32", name="tokens")
    model = keras.Model(inputs, flavor.layers.Embedding(7, 3)(inputs))
    copy = _copied(model)
    assert tuple(copy.inputs[0].shape) == (2, 5)
    assert "int32" in str(copy.inputs[0].dtype)
    assert copy.layers[0].name == "tokens"
    _assert_same_function(model, copy, np.arange(10, dtype="int32").reshape(2, 5) % 7)


def test_a_tuple_of_layers_is_applied_in_order(flavor):
    model = _image_model(flavor)
    graph = model_graph(model)

    def make_layer(call):
        if call.path != "second":
            return clone_layer(call.layer)
        linear = clone_layer(call.layer, activation="linear")
        return linear, flavor.layers.ReLU(name="split_off")

    copy, layers = rebuild(graph, make_layer)
    assert [layer.name for layer in layers["second"]] == ["second", "split_off"]
    copy.set_weights(model.get_weights())
    _assert_same_function(model, copy, _random(2, 4, 4, 3))


def test_after_sees_every_tensor_once_and_may_replace_it(flavor):
    model = _image_model(flavor)
    graph = model_graph(model)
    seen = []

    def after(key, tensor):
        seen.append(key)
        assert tuple(tensor.shape) == graph.shapes[key]
        if key in graph.inputs:
            return flavor.layers.Rescaling(2.0, name="doubled")(tensor)
        return tensor

    copy = _copied(model, after=after)
    assert sorted(seen) == sorted(graph.shapes)
    images = _random(2, 4, 4, 3)
    np.testing.assert_array_equal(copy(images), model(2 * images))


def test_applications_with_nested_models_and_operators(flavor):
    # ConvNeXt nests Sequentials and adds with `+`; MobileNetV3 computes its activations.
    for name in ("ConvNeXtTiny", "MobileNetV3Small"):
        build = getattr(flavor.keras.applications, name)
        model = build(weights=None, input_shape=(32, 32, 3), include_top=False)
        graph = model_graph(model)
        copy, _ = rebuild(graph, _same_layer)
        assert copy.count_params() == model.count_params()
        assert copy.output_shape == model.output_shape


# Weights.


def test_copying_weights_of_another_shape_is_refused(flavor):
    model = _image_model(flavor)
    graph = model_graph(model)
    with pytest.raises(ValueError, match="shape"):
        copy_weights(graph, {**graph.layers(), "first": _built_dense(flavor)})


def _built_dense(flavor):
    layer = flavor.layers.Dense(2)
    layer.build((None, 3))
    return layer
