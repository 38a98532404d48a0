"""The pure functions of the Apprentice loss, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.training import apprentice_loss
from wrpn_tf.training.distributions import BERNOULLI, CATEGORICAL

# float32 exp and log of numbers near 1.
TOLERANCE = 1e-6

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [30.0, -30.0, 0.0]], np.float32)


def softmax(z):
    shifted = np.exp(z - z.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


# Each with NumPy's way from logits to probabilities.
DISTRIBUTIONS = pytest.mark.parametrize(
    ("distribution", "probabilities_of"), [(CATEGORICAL, softmax), (BERNOULLI, sigmoid)]
)


@pytest.fixture
def ops(flavor):
    return flavor.keras.ops if flavor.name == "keras" else flavor.keras.backend


@DISTRIBUTIONS
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_targets_are_the_probabilities_of_logits_over_temperature(
    ops, distribution, probabilities_of, temperature
):
    logits = ops.cast(LOGITS, "float32")
    targets = apprentice_loss.soft_targets(logits, "logits", temperature, distribution, ops)
    np.testing.assert_allclose(targets, probabilities_of(LOGITS / temperature), atol=TOLERANCE)


@DISTRIBUTIONS
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_soft_targets_of_probabilities_are_those_of_their_logits(
    ops, distribution, probabilities_of, temperature
):
    logits = LOGITS[:2]  # No probability under the floor of 1e-7.
    given = ops.cast(probabilities_of(logits), "float32")
    targets = apprentice_loss.soft_targets(given, "probabilities", temperature, distribution, ops)
    np.testing.assert_allclose(targets, probabilities_of(logits / temperature), atol=TOLERANCE)


@pytest.mark.parametrize("distribution", [CATEGORICAL, BERNOULLI])
def test_probabilities_are_their_own_targets_at_temperature_1(ops, distribution):
    probabilities = ops.cast([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], "float32")
    targets = apprentice_loss.soft_targets(probabilities, "probabilities", 1, distribution, ops)
    np.testing.assert_array_equal(targets, probabilities)


# The floor is 1e-7, and log(1e-7) = -16.118.
@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (CATEGORICAL, [0.0, -16.118095, -16.118095]),
        (BERNOULLI, [16.118095, -16.118095, -16.118095]),
    ],
)
def test_a_zero_probability_gives_finite_targets_and_logits(ops, distribution, expected):
    given = ops.cast([[1.0, 0.0, 0.0]], "float32")
    targets = apprentice_loss.soft_targets(given, "probabilities", 2.0, distribution, ops)
    assert np.isfinite(targets).all()
    logits = apprentice_loss.convert_outputs(given, "probabilities", "logits", distribution, ops)
    np.testing.assert_allclose(logits, [expected], atol=1e-5)


@pytest.mark.parametrize("distribution", [CATEGORICAL, BERNOULLI])
def test_conversion_to_the_same_kind_changes_nothing(ops, distribution):
    outputs = ops.cast(LOGITS, "float32")
    converted = apprentice_loss.convert_outputs(outputs, "logits", "logits", distribution, ops)
    assert converted is outputs


@DISTRIBUTIONS
@pytest.mark.parametrize("student_kind", ["logits", "probabilities"])
@pytest.mark.parametrize("teacher_kind", ["logits", "probabilities"])
def test_terms_are_the_same_distributions_whatever_the_kinds(
    ops, distribution, probabilities_of, teacher_kind, student_kind
):
    teacher, student = LOGITS[:2], LOGITS[:2] * -0.3
    labels = np.array([0, 2])
    outputs = {
        name: ops.cast(probabilities_of(z) if kind == "probabilities" else z, "float32")
        for name, z, kind in (("t", teacher, teacher_kind), ("s", student, student_kind))
    }
    terms = apprentice_loss.loss_terms(
        labels,
        outputs["t"],
        outputs["s"],
        teacher_kind=teacher_kind,
        student_kind=student_kind,
        temperature=2.0,
        distribution=distribution,
        ops=ops,
    )
    assert set(terms) == {"teacher", "student", "distillation"}
    assert terms["teacher"][0] is labels
    assert terms["student"][0] is labels
    as_probabilities = probabilities_of if student_kind == "logits" else np.asarray
    for part, logits in (("teacher", teacher), ("student", student), ("distillation", student)):
        np.testing.assert_allclose(
            as_probabilities(np.asarray(terms[part][1])), probabilities_of(logits), atol=TOLERANCE
        )
    targets = terms["distillation"][0]
    np.testing.assert_allclose(targets, probabilities_of(teacher / 2), atol=TOLERANCE)


@pytest.mark.parametrize("distribution", [CATEGORICAL, BERNOULLI])
def test_no_gradient_flows_into_the_soft_targets(ops, distribution):
    import tensorflow as tf

    logits = tf.constant(LOGITS)
    for kind in ("logits", "probabilities"):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            outputs = tf.nn.softmax(logits)
            targets = apprentice_loss.soft_targets(outputs, kind, 2.0, distribution, ops)
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
        distribution=CATEGORICAL,
        ops=ops,
    )
    for _, predictions in terms.values():
        assert predictions.dtype.name == "float32"
    assert terms["distillation"][0].dtype.name == "float32"
