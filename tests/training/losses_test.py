"""Which loss `compile` makes of what the user gives."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

from wrpn_tf.training import Distiller, losses


@pytest.fixture
def student_loss(classifier, data):
    """Returns a function that compiles with a loss and returns what the student's part comes to."""
    x, y = data

    def evaluate(loss, labels=y, activation=None):
        distiller = Distiller(classifier(1, activation=activation), classifier(2))
        distiller.compile(loss=loss, run_eagerly=True)
        report = distiller.evaluate(x, labels, verbose=0, return_dict=True)
        return report["student_loss"]

    return evaluate


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize(
    ("loss", "is_dense"),
    [
        ("categorical_crossentropy", True),
        ("CategoricalCrossentropy", True),
        ("sparse_categorical_crossentropy", False),
        ("SparseCategoricalCrossentropy", False),
    ],
)
def test_a_name_means_the_loss_of_the_students_outputs(
    student_loss, data, loss, is_dense, activation
):
    _, y = data
    labels = np.eye(3)[y] if is_dense else y
    # Through probabilities in float32, instead of logits.
    assert student_loss(loss, labels, activation) == pytest.approx(student_loss(None), abs=2e-6)


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize(
    "loss", ["categorical_focal_crossentropy", "CategoricalFocalCrossentropy", "function"]
)
def test_the_focal_loss_is_that_of_the_students_outputs(
    flavor, student_loss, classifier, data, loss, activation
):
    x, y = data
    if loss == "function":
        loss = flavor.keras.losses.categorical_focal_crossentropy
    logits = np.float64(classifier(1)(x))
    p = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[np.arange(len(y)), y]
    # Keras' alpha is 0.25, its gamma 2.
    expected = np.mean(-0.25 * (1 - p) ** 2 * np.log(p))
    assert student_loss(loss, np.eye(3)[y], activation) == pytest.approx(expected, rel=1e-5)


def test_every_loss_of_logits_in_keras_is_known(flavor):
    functions = [f for f in vars(flavor.keras.losses).values() if inspect.isfunction(f)]
    names = {f.__name__ for f in functions if "from_logits" in inspect.signature(f).parameters}
    assert len(names) == 5
    assert names <= losses._CLASS_OF_NAME.keys()


@pytest.mark.parametrize("loss", ["kl_divergence", "kld", "KLDivergence", "function", "object"])
def test_refuses_a_loss_of_probabilities_for_logits(flavor, classifier, loss):
    own = flavor.keras.losses
    given = {"function": own.kl_divergence, "object": own.KLDivergence()}.get(loss, loss)
    distiller = Distiller(classifier(1), classifier(2))
    with pytest.raises(ValueError, match="`loss` must be one of logits, got .*in a softmax, or"):
        distiller.compile(loss=given)
    Distiller(classifier(1, activation="softmax"), classifier(2)).compile(loss=given)


@pytest.mark.parametrize("loss", ["Dice", "Tversky", "CategoricalGeneralizedCrossEntropy"])
def test_refuses_the_losses_of_probabilities_that_keras_3_alone_has(loss):
    inputs = keras.Input((4,))
    models = [keras.Model(inputs, keras.layers.Dense(3)(inputs)) for _ in range(2)]
    with pytest.raises(ValueError, match=f"`loss` must be one of logits, got {loss}"):
        Distiller(*models).compile(loss=getattr(keras.losses, loss)())


def test_kerass_own_functions_are_names(flavor, student_loss):
    function = flavor.keras.losses.sparse_categorical_crossentropy
    assert student_loss(function) == pytest.approx(student_loss(None), abs=1e-6)


def test_a_loss_object_is_used_as_it_is(flavor, student_loss, data):
    _, y = data
    smoothing = flavor.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    smooth = 0.7 * np.eye(3)[y] + 0.1
    assert student_loss(smoothing, np.eye(3)[y]) == pytest.approx(
        student_loss(None, smooth), abs=1e-6
    )


def test_a_loss_that_is_no_cross_entropy_takes_any_labels(student_loss, classifier, data):
    x, y = data
    targets = 3.0 * np.eye(3)[y]
    expected = np.mean((np.asarray(classifier(1)(x)) - targets) ** 2)
    assert student_loss("mse", targets) == pytest.approx(expected, rel=1e-6)


def test_a_function_of_the_users(student_loss, classifier, data):
    x, y = data

    def distance(y_true, y_pred):
        return abs(y_pred[:, 0] - y_true[:, 0])

    expected = np.mean(np.abs(np.asarray(classifier(1)(x))[:, 0] - np.eye(3)[y][:, 0]))
    assert student_loss(distance, np.eye(3)[y]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["CategoricalCrossentropy", "SparseCategoricalCrossentropy"])
@pytest.mark.parametrize(("activation", "kind"), [(None, "logits"), ("softmax", "probabilities")])
def test_refuses_a_loss_for_the_other_kind_of_outputs(flavor, classifier, name, activation, kind):
    loss = getattr(flavor.keras.losses, name)(from_logits=kind == "probabilities")
    distiller = Distiller(classifier(1, activation=activation), classifier(2))
    message = f"`loss` must expect what the student puts out, {kind}, got {name}.from_logits="
    with pytest.raises(ValueError, match=message):
        distiller.compile(loss=loss)


def test_refuses_a_loss_that_does_not_average(flavor, classifier):
    loss = flavor.keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")
    distiller = Distiller(classifier(1), classifier(2))
    with pytest.raises(ValueError, match="`loss` must average over the batch.*reduction='sum'"):
        distiller.compile(loss=loss)


def test_refuses_labels_that_the_loss_does_not_take(classifier, data):
    x, y = data
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile(loss="categorical_crossentropy")
    message = r"`y` must hold one-hot or soft labels of shape \(None, 3\), got .* shape \(24,\)."
    with pytest.raises(ValueError, match=message):
        distiller.fit(x, y, verbose=0)
    distiller.compile(loss="sparse_categorical_crossentropy")
    message = r"`y` must hold class indices of shape \(None,\), got .* shape \(24, 3\)."
    with pytest.raises(ValueError, match=message):
        distiller.fit(x, np.eye(3)[y], verbose=0)
