"""Data that are refused: arrays before the training, datasets in the step that meets them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from wrpn_tf.training import Distiller, label_checks


@pytest.fixture
def distiller(classifier):
    made = Distiller(classifier(1, batch_norm=True), classifier(2))
    made.compile("sgd", metrics=["accuracy"])
    return made


@pytest.mark.parametrize(
    ("labels", "outputs", "kind"),
    [
        ((None,), (None, 3), "sparse"),
        ((None, 1), (None, 3), "sparse"),
        ((None, 3), (None, 3), "dense"),
        ((8, 3), (None, 3), "dense"),
        ((None, None), (None, 3), "dense"),
        ((None, 2), (None, 3), None),
        ((None, 3, 1), (None, 3), None),
        ((), (None, 3), None),
        ((None, 4, 4), (None, 4, 4, 3), "sparse"),
        ((None, 4, 4, 1), (None, 4, 4, 3), "sparse"),
        ((None, 4, 4, 3), (None, None, None, 3), "dense"),
        ((None, 4, 5), (None, 4, 4, 3), None),
    ],
)
def test_label_kind_goes_by_the_shapes(labels, outputs, kind):
    assert label_checks.label_kind(labels, outputs) == kind


def with_nan(array, index):
    changed = array.astype(np.float32)
    changed[index] = np.nan
    return changed


def soft(y):
    return np.eye(3, dtype=np.float32)[y]


# What is changed, and what the error says of it.
BAD_DATA = [
    (lambda x, y: (with_nan(x, 5), y), "`x` must be finite, got NaN or infinity"),
    (lambda x, y: (x * np.float32(np.inf), y), "`x` must be finite, got NaN or infinity"),
    (lambda x, y: (x, with_nan(y, 5)), "`y` must be finite, got NaN or infinity"),
    (lambda x, y: (x, y + 1), r"`y` must hold class indices in 0..2, got"),
    (lambda x, y: (x, y - 1), r"`y` must hold class indices in 0..2, got"),
    (lambda x, y: (x, y * 0.5), r"`y` must hold class indices in 0..2, got"),
    (
        lambda x, y: (x, 2 * soft(y)),
        "`y` must hold one-hot or soft labels, non-negative and summing",
    ),
    (lambda x, y: (x, 1.5 * soft(y) - 0.5 / 3), "`y` must hold one-hot or soft labels, non-neg"),
    (lambda x, y: (x, y, with_nan(y, 3)), "`sample_weight` must be finite, got NaN or infinity"),
]


@pytest.mark.parametrize(("change", "message"), BAD_DATA)
def test_arrays_are_refused_before_the_training(
    distiller, data, assert_same_weights, change, message
):
    before = distiller.student.get_weights()
    x, y, *weights = change(*data)
    with pytest.raises(ValueError, match=message):
        distiller.fit(x, y, sample_weight=weights[0] if weights else None, verbose=0)
    assert_same_weights(distiller.student.get_weights(), before)
    assert distiller.train_function is None  # Nothing was even traced.


@pytest.mark.parametrize(("change", "message"), BAD_DATA)
def test_batches_are_refused_in_the_graph(data, change, message):
    rule = label_checks.LabelRule((None, 3))
    check = tf.function(lambda *batch: label_checks.check_batch(*batch, rule=rule))
    x, y, *weights = change(*data)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        check(x, y, weights[0] if weights else None)


# One each for inputs, for labels, and for weights.
@pytest.mark.parametrize(("change", "message"), [BAD_DATA[0], BAD_DATA[3], BAD_DATA[-1]])
def test_datasets_are_refused_before_they_change_a_weight(
    distiller, data, assert_same_weights, change, message
):
    before = distiller.student.get_weights()
    dataset = tf.data.Dataset.from_tensor_slices(change(*data)).batch(24)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        distiller.fit(dataset, verbose=0)
    # Batch statistics included.
    assert_same_weights(distiller.student.get_weights(), before)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        distiller.evaluate(dataset, verbose=0)


def test_the_work_before_a_bad_batch_is_kept(distiller, data, assert_same_weights):
    x, y = data
    good = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    bad = tf.data.Dataset.from_tensor_slices((x, y + 1)).batch(8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="class indices"):
        distiller.fit(good.concatenate(bad), verbose=0)
    after = distiller.student.get_weights()
    assert all(np.isfinite(w).all() for w in after)
    distiller.fit(good, verbose=0)  # It can go on.


@pytest.mark.parametrize(("change", "message"), BAD_DATA[:1] + BAD_DATA[3:4])
def test_validation_arrays_are_refused_before_the_training(distiller, data, change, message):
    with pytest.raises(ValueError, match=f"validation {message}"):
        distiller.fit(*data, validation_data=change(*data), verbose=0)
    assert distiller.train_function is None


@pytest.mark.parametrize("as_dataset", [False, True])
def test_missing_labels(distiller, data, as_dataset):
    x, _ = data
    given = tf.data.Dataset.from_tensor_slices(x).batch(8) if as_dataset else x
    with pytest.raises(ValueError, match="`y` must hold the labels, got None"):
        distiller.fit(given, verbose=0)


def test_labels_of_a_wrong_shape(distiller, data):
    x, y = data
    message = (
        r"`y` must hold class indices of shape \(None,\) or one-hot or soft labels of shape "
        r"\(None, 3\), got labels of shape \(.*, 4\)"
    )
    labels = np.eye(4)[y]
    with pytest.raises(ValueError, match=message):
        distiller.fit(x, labels, verbose=0)
    with pytest.raises(ValueError, match=message):
        distiller.fit(tf.data.Dataset.from_tensor_slices((x, labels)).batch(8), verbose=0)


def test_small_integer_labels_of_many_classes():
    rule = label_checks.LabelRule((None, 1000))
    y = np.arange(250, dtype=np.uint8)  # 1000 does not fit into a uint8.
    label_checks.check_arrays(None, y, None, rule)
    label_checks.check_batch(tf.zeros((250, 1)), tf.constant(y), None, rule)


def test_generators_are_not_consumed(distiller, data):
    x, y = data
    served = []

    def batches():
        for start in range(0, 24, 8):
            served.append(start)
            yield x[start : start + 8], y[start : start + 8]

    distiller.fit(batches(), steps_per_epoch=3, verbose=0)
    assert served == [0, 8, 16]


def test_the_error_counts_and_points(distiller, data):
    x, y = data
    x = x.copy()
    x[[4, 9], 0] = np.nan
    with pytest.raises(ValueError, match="in 2 of 24 examples, first at index 4"):
        distiller.fit(x, y, verbose=0)
    y = y.copy()
    y[[2, 3, 4]] = 7
    with pytest.raises(ValueError, match=r"got 7 \(3 of 24 labels are wrong\)"):
        distiller.fit(data[0], y, verbose=0)


def test_eager_steps_check_arrays(classifier, data):
    x, y = data
    distiller = Distiller(classifier(1), classifier(2))
    distiller.compile(run_eagerly=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="class indices in 0..2"):
        distiller.train_on_batch(x, y + 1)


def test_labels_in_a_dictionary(distiller, data):
    x, y = data
    dataset = tf.data.Dataset.from_tensor_slices((x, {"dense": y})).batch(8)
    with pytest.raises(ValueError, match="`y` must be one tensor of labels, got dict"):
        distiller.fit(dataset, verbose=0)


def test_large_finite_numbers_pass():
    x = np.full((4, 2), 3e38, np.float32)  # Their sum is infinite.
    label_checks.check_arrays(x, None, None, label_checks.LabelRule((None, 3)))
