"""Distillation with 16-bit models."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.training import Distiller


@pytest.fixture
def with_policy(flavor):
    """Returns a function that makes a model under a global policy and sets the policy back."""
    mixed_precision = flavor.keras.mixed_precision

    def make(policy, function):
        before = (
            mixed_precision.global_policy()
            if flavor.name == "tf_keras"
            else (flavor.keras.config.dtype_policy())
        )
        mixed_precision.set_global_policy(policy)
        try:
            return function()
        finally:
            mixed_precision.set_global_policy(before)

    return make


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_losses_of_16_bit_models_are_float32(classifier, data, with_policy, policy, activation):
    x, y = data
    student = with_policy(policy, lambda: classifier(1, activation=activation))
    teacher = with_policy(policy, lambda: classifier(2, activation=activation))
    distiller = Distiller(student, teacher)  # Under the default policy.
    distiller.compile("sgd")
    outputs = np.asarray(student(x)).astype(np.float64)
    assert np.asarray(student(x)).dtype.itemsize == 2
    report = distiller.evaluate(x, y, verbose=0, return_dict=True)
    p = outputs if activation else np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
    p = p / p.sum(axis=-1, keepdims=True)  # Keras normalises: 16-bit probabilities do not sum to 1.
    expected = -np.log(np.maximum(p[np.arange(len(y)), y], 1e-7)).mean()
    # The graph of `evaluate` may keep more bits of the outputs than the eager call above.
    tolerance = 2e-2 if policy == "mixed_bfloat16" else 2e-3
    assert report["student_loss"] == pytest.approx(expected, rel=tolerance)


def test_a_float16_student_trains_with_a_scaled_loss(flavor, classifier, data, with_policy):
    x, y = data
    student = with_policy("mixed_float16", lambda: classifier(1, units=16))
    distiller = Distiller(student, classifier(2))
    distiller.compile("adam")
    assert type(distiller.optimizer).__name__.startswith("LossScaleOptimizer")
    before = student.get_weights()
    history = distiller.fit(x, y, batch_size=8, epochs=20, verbose=0).history["student_loss"]
    assert history[-1] < history[0]
    assert all(w.dtype == np.float32 for w in student.get_weights())
    assert not np.array_equal(student.get_weights()[0], before[0])


def test_small_gradients_survive_float16(flavor, classifier, data, with_policy):
    """With a weight of 1e-6 every gradient is below float16's 6e-8 unless the loss is scaled."""
    x, y = data
    updates = {}
    for policy in ("mixed_float16", "float32"):
        student = with_policy(policy, lambda: classifier(1))
        before = student.get_weights()[0]
        distiller = Distiller(student, classifier(2), beta=1e-6, gamma=1e-6)
        distiller.compile(flavor.keras.optimizers.SGD(1e6))
        distiller.train_on_batch(x, y)
        updates[policy] = student.get_weights()[0] - before
    # float16 has 11 bits, and the sums here cancel.
    np.testing.assert_allclose(
        updates["mixed_float16"], updates["float32"], atol=0.02 * np.abs(updates["float32"]).max()
    )


def test_a_float32_student_is_not_scaled(classifier, with_policy):
    teacher = with_policy("mixed_float16", lambda: classifier(2))
    distiller = Distiller(classifier(1), teacher)
    distiller.compile("adam")
    assert type(distiller.optimizer).__name__ == "Adam"
