"""Students whose outputs each say yes or no: one logit or sigmoid, or several."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from wrpn_tf.training import Distiller, model_outputs
from wrpn_tf.training.distributions import BERNOULLI

# Sums of a few float32 losses near 1, in another order than NumPy's.
TOLERANCE = 2e-6


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def cross_entropy(targets, logits):
    """H(targets, sigmoid(logits)) of each output."""
    p = sigmoid(logits)
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p))


@pytest.fixture
def yes_or_no(data):
    """24 examples of 4 features, and whether each is of class 0."""
    x, y = data
    return x, (y == 0).astype(np.int64)


@pytest.fixture
def several_labels(data):
    """24 examples of 4 features, and 3 labels for each."""
    x, _ = data
    return x, (x[:, :3] > 0).astype(np.float32)


def with_two_classes(flavor, model):
    """The network with the logits 0 and z in place of z."""
    keras = flavor.keras
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, activation="relu")(inputs)
    wide = keras.Model(inputs, keras.layers.Dense(2)(x))
    *first, kernel, bias = model.get_weights()
    pair = [np.concatenate([0 * kernel, kernel], axis=1), np.concatenate([0 * bias, bias])]
    wide.set_weights([*first, *pair])
    return wide


@pytest.mark.parametrize("student_activation", [None, "sigmoid"])
@pytest.mark.parametrize("teacher_activation", [None, "sigmoid"])
@pytest.mark.parametrize(
    "labels",
    [
        lambda y: y,
        lambda y: y[:, None],
        lambda y: y.astype(np.float32),
        lambda y: y.astype(bool)[:, None],
    ],
)
def test_a_single_output_is_two_classes(
    flavor, classifier, yes_or_no, student_activation, teacher_activation, labels
):
    x, y = yes_or_no
    weights = np.linspace(0, 2, len(x)).astype(np.float32)
    options = {"alpha": 0.7, "beta": 0.3, "gamma": 1.1, "temperature": 3}
    pair = Distiller(
        with_two_classes(flavor, classifier(1, classes=1)),
        with_two_classes(flavor, classifier(2, classes=1)),
        **options,
    )
    single = Distiller(
        classifier(1, classes=1, activation=student_activation),
        classifier(2, classes=1, activation=teacher_activation),
        **options,
    )
    reports = []
    for distiller, given in ((pair, y), (single, labels(y))):
        distiller.compile(run_eagerly=True)
        reports.append(
            distiller.evaluate(
                x, given, sample_weight=weights, batch_size=12, verbose=0, return_dict=True
            )
        )
    expected, report = reports
    assert set(report) == set(expected)
    for name, value in expected.items():
        # Through probabilities in float32 where there is a sigmoid.
        assert report[name] == pytest.approx(value, abs=1e-5), name


@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("labels", ["yes_or_no", "several_labels"])
def test_metrics_by_name_are_those_of_yes_and_no(request, classifier, labels, activation):
    x, y = request.getfixturevalue(labels)
    y = y.reshape(len(x), -1)
    classes = y.shape[1]
    student = classifier(1, classes=classes, activation=activation)
    distiller = Distiller(student, classifier(2, classes=classes, activation="sigmoid"))
    names = ["acc", "binary_accuracy", "binary_crossentropy", "auc"]
    distiller.compile(metrics=names, weighted_metrics=["accuracy"], run_eagerly=True)
    logits = np.float64(classifier(1, classes=classes)(x))
    # No threshold but 0 gives the same numbers.
    assert ((logits > 0) & (logits < 0.5)).any()
    # Half the examples count three times.
    weights = np.where(np.arange(len(x)) % 2, 3.0, 1.0)
    report = distiller.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    is_right = (logits > 0) == y
    for name in ("acc", "binary_accuracy"):
        assert report[name] == pytest.approx(is_right.mean(), abs=1e-6)
    expected = np.average(is_right.mean(axis=1), weights=weights)
    assert report["accuracy"] == pytest.approx(expected, abs=1e-6)
    assert report["binary_crossentropy"] == pytest.approx(cross_entropy(y, logits).mean(), abs=1e-5)
    no, yes = logits[y == 0], logits[y == 1]
    # 200 thresholds instead of all.
    assert report["auc"] == pytest.approx((no[:, None] < yes).mean(), abs=0.03)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_metrics_by_name_keep_their_names(flavor, classifier, yes_or_no, activation):
    x, y = yes_or_no
    plain = classifier(1, classes=1, activation="sigmoid")
    models = classifier(1, classes=1, activation=activation), classifier(2, classes=1)
    names = ["accuracy", "acc", "binary_accuracy", "AUC", "mae"]
    plain.compile(loss="binary_crossentropy", metrics=names)
    distiller = Distiller(*models)
    distiller.compile(metrics=names)
    expected = plain.evaluate(x, y, verbose=0, return_dict=True)
    report = distiller.evaluate(x, y, verbose=0, return_dict=True)
    # tf_keras counts its own names up.
    report = {name.removesuffix("_1"): value for name, value in report.items()}
    assert expected.keys() <= report.keys()
    for name in expected.keys() - {"loss", "mae", "mean_absolute_error"}:
        assert report[name] == pytest.approx(expected[name], abs=0.03), name


def test_metric_objects_stay_as_they_are(flavor, classifier, yes_or_no):
    x, y = yes_or_no
    distiller = Distiller(classifier(1, classes=1), classifier(2, classes=1))
    distiller.compile(metrics=[flavor.keras.metrics.BinaryAccuracy(threshold=0.3)])
    report = distiller.evaluate(x, y[:, None], verbose=0, return_dict=True)
    says_yes = np.asarray(distiller.student(x))[:, 0] > 0.3
    assert report["binary_accuracy"] == pytest.approx(np.mean(says_yes == y), abs=1e-6)


@pytest.mark.parametrize(
    ("student_activation", "teacher_activation"),
    [("sigmoid", "sigmoid"), ("sigmoid", None), (None, "sigmoid")],
)
def test_several_outputs_are_several_labels(
    classifier, several_labels, student_activation, teacher_activation
):
    x, y = several_labels
    models = (
        classifier(1, activation=student_activation),
        classifier(2, activation=teacher_activation),
    )
    distiller = Distiller(*models, temperature=2)
    distiller.compile(run_eagerly=True)
    report = distiller.evaluate(x, y, batch_size=12, verbose=0, return_dict=True)
    student, teacher = (np.float64(classifier(seed)(x)) for seed in (1, 2))
    for name, targets, logits in (
        ("student_loss", y, student),
        ("teacher_loss", y, teacher),
        ("distillation_loss", sigmoid(teacher / 2), student),
    ):
        expected = cross_entropy(targets, logits).mean()
        assert report[name] == pytest.approx(expected, abs=1e-5), name


@pytest.mark.parametrize("labels", [lambda y: y, lambda y: y[..., 0]])
def test_one_label_per_pixel(flavor, labels):
    keras = flavor.keras

    def net():
        inputs = keras.Input((4, 4, 2))
        return keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same")(inputs))

    generator = np.random.default_rng(0)
    x = generator.normal(size=(6, 4, 4, 2)).astype(np.float32)
    y = generator.integers(0, 2, (6, 4, 4, 1))
    distiller = Distiller(net(), net())
    distiller.compile(run_eagerly=True)
    report = distiller.evaluate(x, labels(y), batch_size=3, verbose=0, return_dict=True)
    expected = cross_entropy(y, np.float64(distiller.student(x))).mean()
    assert report["student_loss"] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(
    "loss", ["binary_crossentropy", "BinaryCrossentropy", "function", "object"]
)
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_the_binary_cross_entropy_can_be_said(flavor, classifier, yes_or_no, loss, activation):
    x, y = yes_or_no
    losses = flavor.keras.losses
    loss = {
        "function": losses.binary_crossentropy,
        "object": losses.BinaryCrossentropy(from_logits=activation is None),
    }.get(loss, loss)
    distiller = Distiller(classifier(1, classes=1, activation=activation), classifier(2, classes=1))
    reports = []
    for given in (None, loss):
        distiller.compile(loss=given, run_eagerly=True)
        reports.append(distiller.evaluate(x, y, verbose=0, return_dict=True))
    assert reports[0] == pytest.approx(reports[1], abs=TOLERANCE)


def test_refuses_a_cross_entropy_of_something_else(classifier):
    distiller = Distiller(classifier(1, classes=1), classifier(2, classes=1))
    message = "must be a cross entropy for a sigmoid or its logits, got SparseCategoricalCrossentr"
    with pytest.raises(ValueError, match=message):
        distiller.compile(loss="sparse_categorical_crossentropy")
    distiller = Distiller(classifier(1), classifier(2))
    message = (
        "must be a cross entropy for a softmax or its logits, got BinaryCrossentropy.* sigmoid"
    )
    with pytest.raises(ValueError, match=message):
        distiller.compile(loss="binary_crossentropy")


@pytest.mark.parametrize("loss", ["mse", "MeanAbsoluteError", "huber", "object"])
def test_refuses_networks_that_predict_numbers(flavor, classifier, loss):
    loss = flavor.keras.losses.MeanSquaredError() if loss == "object" else loss
    distiller = Distiller(classifier(1, classes=1), classifier(2, classes=1))
    with pytest.raises(ValueError, match="`loss` must be one of classification, got .*numbers"):
        distiller.compile(loss=loss)


def squared_error_of_signs(y_true, y_pred):
    return ((2 * y_true - 1) - y_pred) ** 2


def focal_loss(y, z):
    """The binary focal cross entropy with Keras' gamma of 2."""
    return np.where(y == 1, 1 - sigmoid(z), sigmoid(z)) ** 2 * cross_entropy(y, z)


# The loss, whether its labels are -1 and 1, and what it is of labels and logits.
OTHER_LOSSES = {
    "binary_focal_crossentropy": (False, focal_loss),
    "BinaryFocalCrossentropy": (False, focal_loss),
    "object": (False, focal_loss),
    "bce": (False, cross_entropy),
    "hinge": (True, lambda y, z: np.maximum(1 - y * z, 0)),
    "function": (False, squared_error_of_signs),
}


@pytest.mark.parametrize("loss", OTHER_LOSSES)
def test_takes_other_losses_of_classification(flavor, classifier, yes_or_no, loss):
    x, y = yes_or_no
    has_signs, expected = OTHER_LOSSES[loss]
    labels = (2 * y - 1 if has_signs else y)[:, None].astype(np.float32)
    distiller = Distiller(classifier(1, classes=1), classifier(2, classes=1))
    focal = flavor.keras.losses.BinaryFocalCrossentropy(from_logits=True)
    distiller.compile(
        loss={"object": focal, "function": squared_error_of_signs}.get(loss, loss),
        run_eagerly=True,
    )
    report = distiller.evaluate(x, labels, verbose=0, return_dict=True)
    logits = np.float64(classifier(1, classes=1)(x))
    assert report["student_loss"] == pytest.approx(expected(labels, logits).mean(), rel=1e-5)


def test_takes_losses_of_numbers_for_probabilities(classifier, yes_or_no):
    x, y = yes_or_no
    distiller = Distiller(classifier(1, classes=1, activation="sigmoid"), classifier(2, classes=1))
    distiller.compile(loss="mse", run_eagerly=True)
    report = distiller.evaluate(x, y[:, None].astype(np.float32), verbose=0, return_dict=True)
    p = sigmoid(np.float64(classifier(1, classes=1)(x)))
    assert report["student_loss"] == pytest.approx(((p - y[:, None]) ** 2).mean(), rel=1e-5)


def test_refuses_the_divergence_of_probabilities_for_logits(classifier):
    distiller = Distiller(classifier(1, classes=1), classifier(2, classes=1))
    with pytest.raises(ValueError, match="`loss` must be one of logits, got .*in a sigmoid"):
        distiller.compile(loss="kl_divergence")


def test_refuses_a_softmax_of_a_single_output(classifier):
    message = "`teacher` must end in logits or a sigmoid, got a softmax, which is 1 for every input"
    with pytest.raises(ValueError, match=message):
        Distiller(classifier(1, classes=1), classifier(2, classes=1, activation="softmax"))


def test_refuses_a_softmax_beside_a_sigmoid(classifier):
    message = "`student` must end in logits or a sigmoid, got a softmax, which the other model's"
    with pytest.raises(ValueError, match=message):
        Distiller(classifier(1, activation="softmax"), classifier(2, activation="sigmoid"))


# What is changed, and what the error says of it.
BAD_LABELS = [
    (lambda y: 2 * y - 1, "`y` must hold 0 for no, 1 for yes, or numbers between, got"),
    (lambda y: 2 * y, "`y` must hold 0 for no, 1 for yes, or numbers between, got"),
]


@pytest.mark.parametrize(("change", "message"), BAD_LABELS)
def test_labels_beyond_0_and_1_are_refused(classifier, yes_or_no, change, message):
    x, y = yes_or_no
    distiller = Distiller(classifier(1, classes=1), classifier(2, classes=1))
    distiller.compile()
    with pytest.raises(ValueError, match=message):
        distiller.fit(x, change(y), verbose=0)
    assert distiller.train_function is None  # Nothing was even traced.
    dataset = tf.data.Dataset.from_tensor_slices((x, change(y))).batch(24)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        distiller.fit(dataset, verbose=0)


@pytest.mark.parametrize("shape", [(24,), (24, 1), (24, 2)])
def test_class_indices_are_refused_for_several_labels(classifier, data, shape):
    x, _ = data
    distiller = Distiller(classifier(1, activation="sigmoid"), classifier(2))
    distiller.compile()
    message = r"`y` must hold numbers from 0 to 1 of shape \(None, 3\), got labels of shape \(24"
    with pytest.raises(ValueError, match=message):
        distiller.fit(x, np.zeros(shape), verbose=0)


def test_a_sigmoid_that_is_no_layer(flavor, classifier):
    model = classifier(1, classes=1)
    function = flavor.keras.activations.sigmoid
    as_operation = flavor.keras.Model(model.inputs, function(model.outputs[0]))
    kind = model_outputs.output_kind(as_operation, "auto", "student", BERNOULLI)
    assert kind == "probabilities"


def test_asks_where_the_last_layer_does_not_say(flavor, classifier):
    model = classifier(1, classes=1)
    hidden = flavor.keras.layers.Reshape((1,))(model.outputs[0])
    student = flavor.keras.Model(model.inputs, hidden)
    message = '`student_outputs` must be "logits" or "prob.* numbers from 0 to 1 may be either, and'
    with pytest.raises(ValueError, match=message):
        Distiller(student, classifier(2, classes=1))
    Distiller(student, classifier(2, classes=1), student_outputs="logits")


def test_refuses_what_the_activation_denies(classifier):
    message = 'got "logits", but its last activation is sigmoid: probabilities'
    with pytest.raises(ValueError, match=message):
        Distiller(
            classifier(1, classes=1, activation="sigmoid"),
            classifier(2, classes=1),
            student_outputs="logits",
        )


def test_a_quantized_student_learns(flavor, classifier, yes_or_no):
    x, y = yes_or_no
    teacher = classifier(2, 16, classes=1)
    teacher.compile(
        flavor.keras.optimizers.Adam(0.05), flavor.keras.losses.BinaryCrossentropy(True)
    )
    teacher.fit(x, y, epochs=30, verbose=0)
    distiller = Distiller(wrpn_tf.widen_and_quantize(classifier(1, 16, classes=1)), teacher)
    distiller.compile(flavor.keras.optimizers.Adam(0.05))
    losses = distiller.fit(x, y, epochs=30, verbose=0).history["student_loss"]
    # Always saying 1/2 costs log 2.
    assert losses[-1] < 0.5 * np.log(2)
