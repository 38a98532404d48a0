"""What of a Distiller is saved, and how an interrupted training goes on."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.training import Distiller


class InterruptedTrainingError(Exception):
    """Ends a training from outside."""


@pytest.fixture
def interrupt(flavor):
    """Returns a function that makes a callback which raises when an epoch begins."""

    class Interrupt(flavor.keras.callbacks.Callback):
        def __init__(self, epoch):
            super().__init__()
            self._epoch = epoch

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == self._epoch:
                raise InterruptedTrainingError

    return Interrupt


def make(flavor, classifier, scheme, **student_options):
    distiller = Distiller(
        classifier(1, batch_norm=True, **student_options), classifier(2, 9), scheme=scheme
    )
    # Eager steps: the graphs of three trainings would take longer than the trainings.
    distiller.compile(flavor.keras.optimizers.Adam(0.01), run_eagerly=True)
    return distiller


def all_weights(distiller):
    return distiller.student.get_weights() + distiller.teacher.get_weights()


@pytest.mark.parametrize("scheme", ["A", "B"])
def test_resumed_training_ends_in_the_same_weights(
    flavor, classifier, data, interrupt, tmp_path, assert_same_weights, scheme
):
    x, y = data
    options = {"batch_size": 8, "epochs": 4, "shuffle": False, "verbose": 0}
    whole = make(flavor, classifier, scheme)
    whole.fit(x, y, **options)
    backup = flavor.keras.callbacks.BackupAndRestore
    first = make(flavor, classifier, scheme)
    with pytest.raises(InterruptedTrainingError):
        first.fit(x, y, callbacks=[backup(str(tmp_path / "b")), interrupt(2)], **options)
    resumed = make(flavor, classifier, scheme)
    history = resumed.fit(x, y, callbacks=[backup(str(tmp_path / "b"))], **options)
    assert history.epoch == [2, 3]
    assert_same_weights(all_weights(resumed), all_weights(whole))


def test_resumed_training_repeats_dropout(
    flavor, classifier, data, interrupt, tmp_path, assert_same_weights
):
    if flavor.name == "tf_keras":
        pytest.skip("tf_keras' checkpoints hold no state of its random operations.")
    x, y = data
    options = {"batch_size": 8, "epochs": 4, "shuffle": False, "verbose": 0}
    whole = make(flavor, classifier, "B", dropout=0.5)
    whole.fit(x, y, **options)
    backup = flavor.keras.callbacks.BackupAndRestore
    first = make(flavor, classifier, "B", dropout=0.5)
    with pytest.raises(InterruptedTrainingError):
        first.fit(x, y, callbacks=[backup(str(tmp_path / "b")), interrupt(2)], **options)
    resumed = make(flavor, classifier, "B", dropout=0.5)
    resumed.fit(x, y, callbacks=[backup(str(tmp_path / "b"))], **options)
    assert_same_weights(all_weights(resumed), all_weights(whole))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_save_writes_the_student(flavor, classifier, tmp_path, assert_same_weights, suffix):
    distiller = make(flavor, classifier, "A")
    path = str(tmp_path / f"student{suffix}")
    distiller.save(path)
    loaded = flavor.keras.models.load_model(path)
    assert type(loaded) is type(distiller.student)
    assert_same_weights(loaded.get_weights(), distiller.student.get_weights())


def test_model_checkpoint_writes_the_best_student(
    flavor, classifier, data, tmp_path, assert_same_weights
):
    x, y = data
    distiller = make(flavor, classifier, "B")
    path = str(tmp_path / "best.keras")
    save = flavor.keras.callbacks.ModelCheckpoint(path)
    distiller.fit(x, y, callbacks=[save], verbose=0)
    loaded = flavor.keras.models.load_model(path)
    assert_same_weights(loaded.get_weights(), distiller.student.get_weights())


@pytest.mark.parametrize("name", ["c.weights.h5", "c.h5", "checkpoint"])
def test_weight_files_hold_no_frozen_teacher(flavor, classifier, data, tmp_path, name):
    if flavor.name == "keras" and name != "c.weights.h5":
        pytest.skip("Keras 3 writes .weights.h5 only.")
    x, y = data
    sizes = {}
    for units in (4, 4000):
        distiller = Distiller(classifier(1), classifier(2, units))
        distiller.compile("sgd")
        distiller.train_on_batch(x, y)
        folder = tmp_path / str(units)
        folder.mkdir()
        distiller.save_weights(str(folder / name))
        sizes[units] = sum(file.stat().st_size for file in folder.iterdir())
    # The larger teacher alone has 32 thousand weights of 4 bytes.
    assert sizes[4000] == pytest.approx(sizes[4], abs=1000)


def test_weights_saved_under_scheme_a_hold_the_teacher(
    flavor, classifier, data, tmp_path, assert_same_weights
):
    x, y = data
    trained, fresh = (make(flavor, classifier, "A") for _ in range(2))
    trained.fit(x, y, verbose=0)
    fresh.optimizer.build(fresh.trainable_variables)
    path = str(tmp_path / "all.weights.h5")
    trained.save_weights(path)
    fresh.load_weights(path)
    assert_same_weights(all_weights(fresh), all_weights(trained))


def test_weights_saved_under_scheme_b_load(flavor, classifier, data, tmp_path, assert_same_weights):
    x, y = data
    trained, fresh = (make(flavor, classifier, "B") for _ in range(2))
    trained.fit(x, y, verbose=0)
    fresh.optimizer.build(fresh.trainable_variables)
    path = str(tmp_path / "student.weights.h5")
    trained.save_weights(path)
    fresh.load_weights(path)
    assert_same_weights(all_weights(fresh), all_weights(trained))


def test_export_writes_the_student(flavor, classifier, data, tmp_path):
    import tensorflow as tf

    x, _ = data
    distiller = make(flavor, classifier, "B")
    distiller.export(str(tmp_path / "served"))
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(x), np.asarray(distiller(x, training=False)), atol=1e-6)


def test_the_parts_of_the_loss_are_logged(flavor, classifier, data, tmp_path):
    x, y = data
    distiller = make(flavor, classifier, "B")
    table = tmp_path / "log.csv"
    distiller.fit(x, y, callbacks=[flavor.keras.callbacks.CSVLogger(str(table))], verbose=0)
    columns = table.read_text().splitlines()[0].split(",")
    assert {"student_loss", "teacher_loss", "distillation_loss", "loss"} < set(columns)


def test_saving_the_distiller_itself_is_refused(flavor, classifier, tmp_path):
    distiller = make(flavor, classifier, "B")
    with pytest.raises(NotImplementedError, match=r"Save the student: `distiller.save\(path\)`"):
        flavor.keras.saving.save_model(distiller, str(tmp_path / "whole.keras"))
    # Keras 3 has opened the file by then.
    assert not any(file.stat().st_size for file in tmp_path.iterdir())
