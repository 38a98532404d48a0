"""The pure functions of the Apprentice loss, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.training import apprentice_loss

# float32 exp and log of numbers near 1.
TOLERANCE = 1e-6

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [30.0, -30.0, 0.0]], np.float32)


def softmax(z):
    shifted = np.exp(z - z.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


@pytest.fixture
def ops(flavor):
    return flavor.keras.ops if flavor.name == "keras" else flavor.keras.backend


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_targets_are_the_softmax_of_logits_over_temperature(ops, temperature):
    targets = apprentice_loss.soft_targets(ops.cast(LOGITS, "float32"), "logits", temperature, ops)
    np.testing.assert_allclose(targets, softmax(LOGITS / temperature), atol=TOLERANCE)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_soft_targets_of_probabilities_are_those_of_their_logits(ops, temperature):
    logits = LOGITS[:2]  # No probability under the floor of 1e-7.
    probabilities = ops.cast(softmax(logits), "float32")
    targets = apprentice_loss.soft_targets(probabilities, "probabilities", temperature, ops)
    np.testing.assert_allclose(targets, softmax(logits / temperature), atol=TOLERANCE)


def test_probabilities_are_their_own_targets_at_temperature_1(ops):
    probabilities = ops.cast([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], "float32")
    targets = apprentice_loss.soft_targets(probabilities, "probabilities", 1, ops)
    np.testing.assert_array_equal(targets, probabilities)


def test_a_zero_probability_gives_finite_targets_and_logits(ops):
    probabilities = ops.cast([[1.0, 0.0, 0.0]], "float32")
    assert np.isfinite(apprentice_loss.soft_targets(probabilities, "probabilities", 2.0, ops)).all()
    logits = apprentice_loss.convert_outputs(probabilities, "probabilities", "logits", ops)
    # The floor is 1e-7, and log(1e-7) = -16.118.
    np.testing.assert_allclose(logits, [[0.0, -16.118095, -16.118095]], atol=1e-5)


def test_conversion_to_the_same_kind_changes_nothing(ops):
    outputs = ops.cast(LOGITS, "float32")
    assert apprentice_loss.convert_outputs(outputs, "logits", "logits", ops) is outputs


@pytest.mark.parametrize("student_kind", ["logits", "probabilities"])
@pytest.mark.parametrize("teacher_kind", ["logits", "probabilities"])
def test_terms_are_the_same_distributions_whatever_the_kinds(ops, teacher_kind, student_kind):
    teacher, student = LOGITS[:2], LOGITS[:2] * -0.3
    labels = np.array([0, 2])
    outputs = {
        name: ops.cast(softmax(z) if kind == "probabilities" else z, "float32")
        for name, z, kind in (("t", teacher, teacher_kind), ("s", student, student_kind))
    }
    terms = apprentice_loss.loss_terms(
        labels,
        outputs["t"],
        outputs["s"],
        teacher_kind=teacher_kind,
        student_kind=student_kind,
        temperature=2.0,
        ops=ops,
    )
    assert set(terms) == {"teacher", "student", "distillation"}
    assert terms["teacher"][0] is labels
    assert terms["student"][0] is labels
    as_distribution = softmax if student_kind == "logits" else np.asarray
    for part, logits in (("teacher", teacher), ("student", student), ("distillation", student)):
        np.testing.assert_allclose(
            as_distribution(np.asarray(terms[part][1])), softmax(logits), atol=TOLERANCE
        )
    np.testing.assert_allclose(terms["distillation"][0], softmax(teacher / 2), atol=TOLERANCE)


def test_no_gradient_flows_into_the_soft_targets(ops):
    import tensorflow as tf

    logits = tf.constant(LOGITS)
    for kind in ("logits", "probabilities"):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            targets = apprentice_loss.soft_targets(tf.nn.softmax(logits), kind, 2.0, ops)
            total = tf.reduce_sum(targets * [1.0, 2.0, 3.0])
        assert tape.gradient(total, logits) is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_outputs_become_float32(ops, dtype):
    outputs = ops.cast(LOGITS, dtype)
    terms = apprentice_loss.loss_terms(
        np.zeros(3, int),
        outputs,
        outputs,
        teacher_kind="logits",
        student_kind="logits",
        temperature=1.0,
        ops=ops,
    )
    for _, predictions in terms.values():
        assert predictions.dtype.name == "float32"
    assert terms["distillation"][0].dtype.name == "float32"
