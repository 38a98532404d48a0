"""What a Distiller computes and reports, in both Keras."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.training import Distiller

# Sums of a few float32 losses near 1, in another order than NumPy's.
TOLERANCE = 2e-6


def softmax(z):
    shifted = np.exp(z - z.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def cross_entropy(targets, logits, weights=None):
    """Mean of H(targets, softmax(logits)) over all examples, each with its weight."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    per_example = -(targets * log_p).sum(axis=-1)
    return np.mean(per_example * (1 if weights is None else weights))


def one_hot(y):
    return np.eye(3, dtype=np.float32)[y]


def expected_parts(distiller, x, labels, temperature=1.0, weights=None):
    """NumPy's cross entropies, from the outputs of nets that end in logits."""
    teacher, student = (
        np.float64(model(x, training=False)) for model in (distiller.teacher, distiller.student)
    )
    return {
        "teacher_loss": cross_entropy(labels, teacher, weights),
        "student_loss": cross_entropy(labels, student, weights),
        "distillation_loss": cross_entropy(softmax(teacher / temperature), student, weights),
    }


def test_is_a_model_of_the_students_keras(flavor, classifier):
    distiller = Distiller(classifier(1), classifier(2))
    assert isinstance(distiller, flavor.keras.Model)
    assert isinstance(distiller, Distiller)


@pytest.mark.parametrize("scheme", ["A", "B", "C"])
def test_loss_is_the_weighted_sum_of_the_parts(classifier, data, scheme):
    x, y = data
    distiller = Distiller(
        classifier(1),
        classifier(2, 9),
        scheme=scheme,
        alpha=0.7,
        beta=0.3,
        gamma=1.1,
        temperature=3,
    )
    distiller.compile(metrics=["accuracy"], run_eagerly=True)
    # A last batch of 4: means over batches would weigh it like the others.
    report = distiller.evaluate(x, y, batch_size=10, verbose=0, return_dict=True)
    parts = expected_parts(distiller, x, one_hot(y), temperature=3)
    for name, value in parts.items():
        assert report[name] == pytest.approx(value, abs=TOLERANCE), name
    total = 0.7 * parts["teacher_loss"] + 0.3 * parts["student_loss"]
    total += 1.1 * parts["distillation_loss"]
    assert report["loss"] == pytest.approx(total, abs=2 * TOLERANCE)
    accuracy = np.mean(np.argmax(distiller.predict(x, verbose=0), axis=1) == y)
    assert report["accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_default_weights_are_the_papers(classifier, data):
    x, y = data
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile(run_eagerly=True)
    report = distiller.evaluate(x, y, verbose=0, return_dict=True)
    total = report["teacher_loss"]
    total += 0.5 * report["student_loss"] + 0.5 * report["distillation_loss"]
    assert report["loss"] == pytest.approx(total, abs=TOLERANCE)


@pytest.mark.parametrize("student_activation", [None, "softmax"])
@pytest.mark.parametrize("teacher_activation", [None, "softmax"])
def test_training_is_the_same_with_logits_and_probabilities(
    classifier, data, student_activation, teacher_activation
):
    x, y = data
    distillers = [
        Distiller(
            classifier(1, activation=student), classifier(2, activation=teacher), temperature=2
        )
        for student, teacher in [(None, None), (student_activation, teacher_activation)]
    ]
    for distiller in distillers:
        distiller.compile("sgd", run_eagerly=True)
        distiller.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for ours, expected in zip(*(d.student.get_weights() for d in distillers), strict=True):
        # float32 rounding of log(softmax(z)), over six steps.
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "probabilities_of", "labels_of", "targets_of"),
    [
        (3, softmax, lambda y: y, one_hot),
        (1, sigmoid, lambda y: (y == 0).astype(int), lambda y: (y == 0)[:, None]),
    ],
    ids=["classes", "yes or no"],
)
def test_one_step_is_the_gradient_of_the_formula(
    classifier, data, classes, probabilities_of, labels_of, targets_of
):
    """An independent gradient: dL/dz_student = beta (p - y) + gamma (p - p_T)."""
    x, y = data
    student, teacher = classifier(1, classes=classes), classifier(2, classes=classes)
    hidden = np.maximum(x @ student.get_weights()[0] + student.get_weights()[1], 0)
    kernel, bias = student.get_weights()[2:]
    p = probabilities_of(hidden @ kernel + bias)
    p_teacher = probabilities_of(np.asarray(teacher(x)))
    error = (0.3 * (p - targets_of(y)) + 1.1 * (p - p_teacher)) / len(x)
    distiller = Distiller(student, teacher, beta=0.3, gamma=1.1)
    distiller.compile("sgd")  # learning rate 0.01
    distiller.train_on_batch(x, labels_of(y))
    np.testing.assert_allclose(
        student.get_weights()[2], kernel - 0.01 * hidden.T @ error, atol=TOLERANCE
    )
    np.testing.assert_allclose(
        student.get_weights()[3], bias - 0.01 * error.sum(axis=0), atol=TOLERANCE
    )


def test_scheme_a_trains_the_teacher_on_the_labels_alone(
    flavor, classifier, data, assert_same_weights
):
    x, y = data
    alone = classifier(2, 9, batch_norm=True)
    alone.compile(
        flavor.keras.optimizers.SGD(0.1),
        flavor.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    alone.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    distiller = Distiller(classifier(1), classifier(2, 9, batch_norm=True), scheme="A")
    distiller.compile(flavor.keras.optimizers.SGD(0.1))
    distiller.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    # Plain SGD has no state that mixes the two nets, and alpha is 1.
    for ours, expected in zip(distiller.teacher.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize("scheme", ["B", "C"])
def test_a_frozen_teacher_does_not_change(classifier, data, assert_same_weights, scheme):
    x, y = data
    teacher = classifier(2, batch_norm=True, dropout=0.5)
    before = teacher.get_weights()
    trainable = len(teacher.trainable_weights)
    student = classifier(1)
    distiller = Distiller(student, teacher, scheme=scheme)
    distiller.compile()
    losses = distiller.fit(x, y, batch_size=8, epochs=2, verbose=0).history["teacher_loss"]
    assert_same_weights(teacher.get_weights(), before)
    assert len(teacher.trainable_weights) == trainable
    # Dropout or batch statistics would change its loss from epoch to epoch.
    assert losses[0] == pytest.approx(losses[1], abs=TOLERANCE)
    assert [w.shape for w in distiller.weights] == [w.shape for w in student.weights]
    assert len(distiller.trainable_weights) == len(student.trainable_weights)


def test_scheme_a_counts_the_teachers_weights(classifier):
    student, teacher = classifier(1), classifier(2)
    distiller = Distiller(student, teacher, scheme="A")
    assert len(distiller.weights) == len(student.weights) + len(teacher.weights)
    assert len(distiller.trainable_weights) == 4 + 4


@pytest.mark.parametrize("scheme", ["A", "B"])
def test_calling_and_predicting_are_the_students(classifier, data, scheme):
    x, _ = data
    student = classifier(1, batch_norm=True)
    distiller = Distiller(student, classifier(2), scheme=scheme)
    expected = np.asarray(student(x, training=False))
    np.testing.assert_array_equal(np.asarray(distiller(x, training=False)), expected)
    np.testing.assert_array_equal(np.asarray(distiller(x)), expected)
    distiller.compile()
    np.testing.assert_allclose(distiller.predict(x, verbose=0), expected, atol=TOLERANCE)


@pytest.mark.parametrize("scheme", ["A", "B"])
def test_each_model_runs_once_per_step(classifier, counted, data, scheme):
    x, y = data
    student, student_counter = counted(classifier(1))
    teacher, teacher_counter = counted(classifier(2))
    distiller = Distiller(student, teacher, scheme=scheme)
    distiller.compile(run_eagerly=True)
    student_counter.runs = teacher_counter.runs = 0
    distiller.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert (student_counter.runs, teacher_counter.runs) == (3 * 2, 3 * 2)
    distiller.evaluate(x, y, batch_size=8, verbose=0)
    assert (student_counter.runs, teacher_counter.runs) == (3 * 3, 3 * 3)


@pytest.mark.parametrize(
    "labels",
    [
        lambda y: y,
        lambda y: y.astype(np.uint8),
        lambda y: y.astype(np.float32)[:, None],
        one_hot,
        lambda y: one_hot(y).astype(bool),
    ],
)
def test_sparse_and_one_hot_labels_mean_the_same(classifier, data, labels):
    x, y = data
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile(run_eagerly=True)
    report = distiller.evaluate(x, labels(y), batch_size=12, verbose=0, return_dict=True)
    for name, value in expected_parts(distiller, x, one_hot(y)).items():
        assert report[name] == pytest.approx(value, abs=TOLERANCE), name


def test_soft_labels(classifier, data):
    x, y = data
    soft = (0.7 * one_hot(y) + 0.1).astype(np.float32)
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile(run_eagerly=True)
    report = distiller.evaluate(x, soft, batch_size=12, verbose=0, return_dict=True)
    for name, value in expected_parts(distiller, x, soft).items():
        assert report[name] == pytest.approx(value, abs=TOLERANCE), name


def test_sample_weights_weigh_every_part(classifier, data):
    x, y = data
    weights = np.linspace(0, 2, len(x)).astype(np.float32)
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile(run_eagerly=True)
    report = distiller.evaluate(
        x, y, sample_weight=weights, batch_size=12, verbose=0, return_dict=True
    )
    for name, value in expected_parts(distiller, x, one_hot(y), weights=weights).items():
        assert report[name] == pytest.approx(value, abs=TOLERANCE), name


@pytest.mark.parametrize("labels", [lambda y: y, one_hot])
def test_class_weights_are_sample_weights(classifier, data, labels):
    x, y = data
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile("sgd")
    class_weight = {0: 0.5, 1: 1.0, 2: 3.0}
    weights = np.array([0.5, 1.0, 3.0])[y]
    expected = expected_parts(distiller, x, one_hot(y), weights=weights)
    history = distiller.fit(
        x, labels(y), batch_size=len(x), class_weight=class_weight, verbose=0
    ).history
    for name, value in expected.items():
        assert history[name][0] == pytest.approx(value, abs=TOLERANCE), name


def test_the_students_regularisation_counts(flavor, classifier, data):
    x, y = data
    regularizer = flavor.keras.regularizers.L2(0.1)
    student = classifier(1, regularizer=regularizer)
    distiller = Distiller(student, classifier(2, regularizer=regularizer))
    distiller.compile(run_eagerly=True)
    report = distiller.evaluate(x, y, verbose=0, return_dict=True)
    parts = report["teacher_loss"] + 0.5 * report["student_loss"]
    parts += 0.5 * report["distillation_loss"]
    expected = 0.1 * np.sum(student.get_weights()[0] ** 2)
    assert report["loss"] - parts == pytest.approx(expected, abs=1e-5)


def test_weighted_metrics_and_metric_objects_see_the_student(flavor, classifier, data):
    x, y = data
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile(
        metrics=[flavor.keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
        weighted_metrics=["accuracy"],
        run_eagerly=True,
    )
    weights = (y == 0).astype(np.float32)
    report = distiller.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    outputs = np.asarray(distiller.student(x))
    right = np.argmax(outputs, axis=1) == y
    assert report["accuracy"] == pytest.approx(np.mean(right[y == 0]), abs=1e-6)
    top2 = np.mean([label in np.argsort(row)[-2:] for label, row in zip(y, outputs, strict=True)])
    assert report["top2"] == pytest.approx(top2, abs=1e-6)


def test_validation_is_reported_by_part(classifier, data):
    x, y = data
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile(metrics=["accuracy"])
    history = distiller.fit(x, y, validation_data=(x, y), epochs=2, verbose=0).history
    names = {"loss", "student_loss", "distillation_loss", "teacher_loss", "accuracy"}
    assert set(history) == names | {f"val_{name}" for name in names}
    evaluation = distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(evaluation["loss"], abs=TOLERANCE)


def test_several_steps_per_execution_train_the_same(classifier, data, assert_same_weights):
    x, y = data
    weights = []
    for steps in (1, 2):
        distiller = Distiller(classifier(1), classifier(2))
        distiller.compile("sgd", steps_per_execution=steps)
        distiller.fit(x, y, batch_size=6, shuffle=False, verbose=0)
        weights.append(distiller.student.get_weights())
    assert_same_weights(weights[1], weights[0])


def test_jit_compile_trains_the_same(classifier, data):
    x, y = data
    weights = []
    for jit_compile in (False, True):
        distiller = Distiller(classifier(1), classifier(2))
        distiller.compile("sgd", jit_compile=jit_compile)
        assert distiller.jit_compile is jit_compile
        distiller.fit(x, y, batch_size=12, shuffle=False, verbose=0)
        weights.append(distiller.student.get_weights())
    for ours, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, expected, atol=TOLERANCE)  # XLA fuses other sums.


def test_callbacks_can_stop_the_training(flavor, classifier, data):
    x, y = data
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile(flavor.keras.optimizers.SGD(0.0))
    stop = flavor.keras.callbacks.EarlyStopping("student_loss", patience=1, mode="min")
    history = distiller.fit(x, y, epochs=9, callbacks=[stop], shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 2


def test_named_inputs_reach_both_models(flavor, data):
    keras = flavor.keras

    def two_inputs(seed):
        first, second = keras.Input((2,), name="first"), keras.Input((2,), name="second")
        joined = keras.layers.Concatenate()([first, second])
        init = keras.initializers.RandomNormal(seed=seed)
        return keras.Model(
            {"first": first, "second": second},
            keras.layers.Dense(3, kernel_initializer=init)(joined),
        )

    x, y = data
    distiller = Distiller(two_inputs(1), two_inputs(2))
    distiller.compile(run_eagerly=True)
    inputs = {"second": x[:, 2:], "first": x[:, :2]}
    report = distiller.evaluate(inputs, y, batch_size=12, verbose=0, return_dict=True)
    outputs = np.asarray(distiller.student(inputs))
    assert report["student_loss"] == pytest.approx(
        cross_entropy(one_hot(y), outputs), abs=TOLERANCE
    )


def test_sequential_models_train_as_functional_ones(flavor, classifier, data, assert_same_weights):
    def sequential(seed):
        layers = flavor.layers
        model = flavor.keras.Sequential(
            [flavor.keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(3)]
        )
        model.set_weights(classifier(seed).get_weights())
        return model

    students = [classifier(1), sequential(1)]
    for student, teacher in zip(students, [classifier(2), sequential(2)], strict=True):
        distiller = Distiller(student, teacher)
        distiller.compile("sgd")
        distiller.fit(*data, shuffle=False, verbose=0)
    assert_same_weights(students[1].get_weights(), students[0].get_weights())


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")  # Keras 3: a list.
def test_a_list_of_one_output_trains_as_the_output(flavor, classifier, data, assert_same_weights):
    """As in models that Keras 3 reads from HDF5 files of Keras 2."""
    models = [classifier(1), classifier(2)]
    copies = [classifier(1), classifier(2)]
    lists = [flavor.keras.Model([model.input], [model.output]) for model in copies]
    for student, teacher in (models, lists):
        distiller = Distiller(student, teacher)
        distiller.compile("sgd", metrics=["accuracy"])
        distiller.fit(*data, shuffle=False, verbose=0)
    assert_same_weights(lists[0].get_weights(), models[0].get_weights())
    assert distiller.predict(data[0], verbose=0).shape == (24, 3)


def test_one_label_per_pixel(flavor):
    keras = flavor.keras

    def segmenter():
        inputs = keras.Input((4, 4, 2))
        return keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs))

    x = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 3, size=(5, 4, 4))
    distiller = Distiller(segmenter(), segmenter())
    distiller.compile(run_eagerly=True)
    report = distiller.evaluate(x, y, verbose=0, return_dict=True)
    expected = cross_entropy(one_hot(y), np.float64(distiller.student(x)))
    assert report["student_loss"] == pytest.approx(expected, abs=TOLERANCE)


def test_learns_more_from_a_good_teacher_than_random(classifier, data):
    x, y = data
    distiller = Distiller(classifier(1, 16), classifier(2, 16), scheme="A")
    distiller.compile("adam")
    history = distiller.fit(x, y, batch_size=8, epochs=30, verbose=0).history
    for name in ("student_loss", "teacher_loss"):
        assert history[name][-1] < 0.8 * history[name][0]


def test_scheme_c_defaults_to_a_low_learning_rate(classifier):
    distiller = Distiller(classifier(1), classifier(2), scheme="C")
    distiller.compile()
    assert type(distiller.optimizer).__name__ == "Adam"
    assert float(np.asarray(distiller.optimizer.learning_rate)) == pytest.approx(1e-4)


def test_scheme_c_refuses_an_optimizer_without_learning_rate(classifier):
    distiller = Distiller(classifier(1), classifier(2), scheme="C")
    with pytest.raises(ValueError, match="`optimizer` must carry the low learning rate .* 'adam'"):
        distiller.compile("adam")


def test_config_holds_the_keyword_arguments(classifier):
    student, teacher = classifier(1), classifier(2)
    options = {
        "scheme": "C",
        "alpha": 0.5,
        "beta": 0.25,
        "gamma": 2.0,
        "temperature": 3.0,
        "student_outputs": "logits",
        "teacher_outputs": "auto",
        "region_precision": None,
        "name": "apprentice",
    }
    distiller = Distiller(student, teacher, **options)
    assert distiller.name == "apprentice"
    assert distiller.get_config() == options
    again = Distiller.from_config({"student": student, "teacher": teacher, **options})
    assert again.get_config() == options
    with pytest.raises(ValueError, match="`config` must hold student and teacher"):
        type(distiller).from_config(options)
