"""What a Distiller refuses, and how it says so."""

from __future__ import annotations

import re

import numpy as np
import pytest

import wrpn_tf
from wrpn_tf import keras_flavor
from wrpn_tf.training import Distiller
from wrpn_tf.training.distiller import trained_network
from wrpn_tf.training.monitor_values import check_quantized_model


def other_flavor(flavor):
    return keras_flavor.get_flavor({"keras": "tf_keras", "tf_keras": "keras"}[flavor.name])


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "temperature"])
@pytest.mark.parametrize("value", [True, "1", None, 1j])
def test_refuses_weights_that_are_no_numbers(classifier, name, value):
    with pytest.raises(TypeError, match=f"`{name}` must be a number, got {type(value).__name__}"):
        Distiller(classifier(1), classifier(2), **{name: value})


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "temperature"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_refuses_weights_out_of_range(classifier, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be finite and >= 0, got {value}."):
        Distiller(classifier(1), classifier(2), **{name: value})


def test_takes_numpy_numbers(classifier):
    given = {"alpha": np.float32(0.5), "temperature": np.int64(2)}
    config = Distiller(classifier(1), classifier(2), **given).get_config()
    assert (config["alpha"], config["temperature"]) == (0.5, 2)


def test_refuses_temperature_0(classifier):
    with pytest.raises(ValueError, match="`temperature` must be > 0, got 0."):
        Distiller(classifier(1), classifier(2), temperature=0)


@pytest.mark.parametrize("alpha", [0, 1])
def test_refuses_weights_that_train_no_student(classifier, alpha):
    with pytest.raises(ValueError, match="`beta` and `gamma` must not both be 0"):
        Distiller(classifier(1), classifier(2), alpha=alpha, beta=0, gamma=0)


def test_scheme_a_refuses_weights_that_train_no_teacher(classifier):
    with pytest.raises(ValueError, match='`alpha` must be > 0 under scheme "A", got 0'):
        Distiller(classifier(1), classifier(2), scheme="A", alpha=0)
    Distiller(classifier(1), classifier(2), scheme="B", alpha=0)


@pytest.mark.parametrize("scheme", ["a", "D", None, 1])
def test_refuses_unknown_schemes(classifier, scheme):
    with pytest.raises(ValueError, match=f'`scheme` must be "A", "B" or "C", got {scheme!r}'):
        Distiller(classifier(1), classifier(2), scheme=scheme)


def test_refuses_what_is_no_model(classifier):
    with pytest.raises(TypeError, match="`student` must be a Keras 3 or tf_keras model, got str"):
        Distiller("student", classifier(2))
    with pytest.raises(TypeError, match="`teacher` must be a Keras 3 or tf_keras model, got None"):
        Distiller(classifier(1), None)


def test_refuses_a_teacher_of_the_other_keras(flavor, classifier):
    keras = other_flavor(flavor).keras
    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    with pytest.raises(ValueError, match=f"`teacher` must be a model of .* {flavor.name}, got one"):
        Distiller(classifier(1), teacher)


def test_refuses_the_student_as_its_own_teacher(classifier):
    model = classifier(1)
    with pytest.raises(ValueError, match="`teacher` must be another model than `student`"):
        Distiller(model, model)


def test_refuses_a_teacher_that_shares_weights(flavor, classifier):
    student = classifier(1)
    teacher = flavor.keras.Model(student.input, student.output)
    with pytest.raises(ValueError, match="`teacher` must share no weights .* got 4 shared"):
        Distiller(student, teacher)


def test_refuses_models_that_are_not_built(flavor, classifier):
    unbuilt = flavor.keras.Sequential([flavor.keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="`teacher` must be built"):
        Distiller(classifier(1), unbuilt)
    with pytest.raises(ValueError, match="`student` must be built"):
        Distiller(unbuilt, classifier(1))


def test_refuses_subclassed_models(flavor, classifier):
    class Subclassed(flavor.keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="`teacher` must be a Functional or Sequential model"):
        Distiller(classifier(1), Subclassed())


@pytest.mark.parametrize(
    "call",
    [
        lambda distiller, x: wrpn_tf.summary(distiller),
        wrpn_tf.calibrate,
        wrpn_tf.simulate,
        lambda distiller, x: wrpn_tf.apply_regions(distiller, wrpn_tf.RegionPrecision()),
    ],
    ids=["summary", "calibrate", "simulate", "apply_regions"],
)
def test_what_takes_no_distiller_asks_for_the_student(classifier, data, call):
    distiller = Distiller(classifier(1), classifier(2))
    with pytest.raises(ValueError, match="Pass the model that it trains, `distiller.student`"):
        call(distiller, data[0])


def test_a_users_model_with_a_student_is_no_distiller(flavor, classifier):
    pupil, student = (wrpn_tf.quantize_model(classifier(seed, batch_norm=True)) for seed in (1, 2))
    pupil.student = student
    assert trained_network(pupil) is pupil
    assert check_quantized_model(pupil).model is pupil
    distiller = Distiller(student, classifier(3))
    assert trained_network(distiller) is student
    assert check_quantized_model(distiller).model is student


def test_refuses_a_teacher_of_other_output_shape(classifier):
    message = r"`teacher` must have outputs of the student's shape \(None, 3\), got \(None, 4\)."
    with pytest.raises(ValueError, match=message):
        Distiller(classifier(1), classifier(2, classes=4))


def test_refuses_a_teacher_of_other_input_shape(classifier):
    message = r"`teacher` must have inputs of the student's shape \(None, 4\), got \(None, 5\)."
    with pytest.raises(ValueError, match=message):
        Distiller(classifier(1), classifier(2, features=5))


def test_refuses_several_outputs_and_a_dictionary(flavor, classifier):
    model = classifier(1)
    for outputs in ([model.output, model.layers[1].output], {"classes": model.output}):
        several = flavor.keras.Model(model.input, outputs)
        with pytest.raises(ValueError, match="`student` must have one output that is a tensor"):
            Distiller(several, classifier(2))
        with pytest.raises(ValueError, match="`teacher` must have one output that is a tensor"):
            Distiller(classifier(2), several)


def test_refuses_outputs_of_unknown_size(flavor, classifier):
    inputs = flavor.keras.Input((None, 4))
    outputs = flavor.keras.layers.Permute((2, 1))(flavor.keras.layers.Dense(4)(inputs))
    unknown = flavor.keras.Model(inputs, outputs)
    message = r"`teacher` must end in logits or .* of known size, got outputs of shape .*4, None\)"
    with pytest.raises(ValueError, match=message):
        Distiller(classifier(1), unknown)


def test_refuses_models_without_trainable_weights(classifier):
    frozen = classifier(1)
    frozen.trainable = False
    with pytest.raises(ValueError, match="`student` must have trainable weights"):
        Distiller(frozen, classifier(2))
    with pytest.raises(ValueError, match="`teacher` must have trainable weights under scheme 'A'"):
        Distiller(classifier(2), frozen, scheme="A")
    Distiller(classifier(2), frozen)


@pytest.mark.parametrize("loss", [["mse"], {"student": "mse"}])
def test_refuses_several_losses(classifier, loss):
    distiller = Distiller(classifier(1), classifier(2))
    with pytest.raises(ValueError, match="`loss` must be one loss, got " + re.escape(repr(loss))):
        distiller.compile(loss=loss)


def test_refuses_loss_weights(classifier):
    distiller = Distiller(classifier(1), classifier(2))
    with pytest.raises(ValueError, match=r"`loss_weights` must be None, got \[1, 2\]: .* `alpha`"):
        distiller.compile(loss_weights=[1, 2])
