"""Logits or probabilities: found out, and checked."""

from __future__ import annotations

import pytest

from wrpn_tf.training import Distiller, model_outputs
from wrpn_tf.training.distributions import CATEGORICAL


def output_kind(model, said="auto", argument="student"):
    """What a model of classes puts out."""
    return model_outputs.output_kind(model, said, argument, CATEGORICAL)


@pytest.mark.parametrize(("activation", "kind"), [(None, "logits"), ("softmax", "probabilities")])
@pytest.mark.parametrize("said", ["auto", "right"])
def test_finds_out_what_a_model_puts_out(classifier, activation, kind, said):
    said = kind if said == "right" else said
    assert output_kind(classifier(1, activation=activation), said, "teacher") == kind


@pytest.mark.parametrize(("activation", "said"), [(None, "probabilities"), ("softmax", "logits")])
@pytest.mark.parametrize("argument", ["student", "teacher"])
def test_refuses_what_is_not_so(classifier, activation, said, argument):
    models = {"student": classifier(1), "teacher": classifier(2)}
    models[argument] = classifier(3, activation=activation)
    message = f'`{argument}_outputs` must say what the {argument} puts out, got "{said}", but on'
    with pytest.raises(ValueError, match=message):
        Distiller(**models, **{f"{argument}_outputs": said})


def test_refuses_unknown_words(classifier):
    message = '`teacher_outputs` must be one of "auto", "logits", "probabilities", got \'softmax\''
    with pytest.raises(ValueError, match=message):
        Distiller(classifier(1), classifier(2), teacher_outputs="softmax")


def test_refuses_a_softmax_over_another_axis(flavor):
    keras = flavor.keras
    inputs = keras.Input((5, 4))
    logits = keras.layers.Dense(3)(inputs)
    model = keras.Model(inputs, keras.layers.Softmax(axis=1)(logits))
    with pytest.raises(ValueError, match="Is the softmax over another axis?"):
        output_kind(model)


def test_zeros_are_logits(classifier):
    dead = classifier(1)
    dead.set_weights([0 * weight for weight in dead.get_weights()])
    assert output_kind(dead) == "logits"


def test_a_softmax_that_is_no_layer_of_that_name(flavor):
    keras = flavor.keras
    inputs = keras.Input((4,))
    logits = keras.layers.Dense(3)(inputs)
    model = keras.Model(inputs, keras.layers.Lambda(lambda z: keras.activations.softmax(z))(logits))
    assert output_kind(model) == "probabilities"


def test_integer_and_several_inputs_can_be_tried(flavor):
    keras = flavor.keras
    words, numbers = keras.Input((2,), dtype="int32"), keras.Input((4,))
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(words))
    joined = keras.layers.Concatenate()([embedded, numbers])
    model = keras.Model([words, numbers], keras.layers.Dense(3, activation="softmax")(joined))
    assert output_kind(model) == "probabilities"


def test_a_fixed_batch_size_can_be_tried(flavor):
    keras = flavor.keras
    inputs = keras.Input((4,), batch_size=6)
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    assert output_kind(model) == "logits"


@pytest.fixture
def of_any_size(flavor):
    """Returns a function that makes a net whose input size is not known."""

    def make(*last_layers):
        keras = flavor.keras
        inputs = keras.Input((None, None, 2))
        x = keras.layers.GlobalAveragePooling2D()(inputs)
        for layer in last_layers:
            x = layer(x)
        return keras.Model(inputs, x)

    return make


def test_goes_by_the_activation_where_the_input_size_is_unknown(flavor, of_any_size):
    layers = flavor.keras.layers
    kinds = [
        output_kind(of_any_size(*last), "auto", "teacher")
        for last in (
            [layers.Dense(3)],
            [layers.Dense(3, activation="softmax")],
            [layers.Dense(3), layers.Softmax()],
            [layers.Dense(3, activation="softmax"), layers.Activation("linear")],
        )
    ]
    assert kinds == ["logits", "probabilities", "probabilities", "probabilities"]


def test_asks_where_nothing_can_be_found_out(flavor, of_any_size):
    layers = flavor.keras.layers
    model = of_any_size(layers.Dense(3), layers.LayerNormalization())
    with pytest.raises(ValueError, match='`teacher_outputs` must be "logits" or "probabilities"'):
        output_kind(model, "auto", "teacher")
    assert output_kind(model, "logits", "teacher") == "logits"


def test_refuses_what_the_activation_denies(flavor, of_any_size):
    model = of_any_size(flavor.keras.layers.Dense(3, activation="softmax"))
    message = 'got "logits", but its last activation is softmax: probabilities'
    with pytest.raises(ValueError, match=message):
        output_kind(model, "logits", "teacher")
