"""The Apprentice loss as a function of arrays.

L = alpha H(y, p_T) + beta H(y, p_A) + gamma H(z_T, p_A)

y labels, p_T and p_A the softmax outputs of teacher and student (apprentice), z_T the teacher's
logits, H(a, b) = -sum_classes a log b. z_T enters as softmax(z_T / temperature): a cross entropy of
raw logits has no lower bound. Outputs that each say yes or no have a sigmoid instead, and
H(a, b) = -a log b - (1 - a) log(1 - b): what a softmax of the logits 0 and z gives.

Source: Mishra & Marr, "Apprentice", arXiv 1711.05852.

`ops` is `keras.ops` or `tf_keras.backend`; the names used here mean the same in both.
"""

from __future__ import annotations

import types
from typing import Any

from wrpn_tf.training.distributions import LOGITS, PROBABILITIES, Distribution


def convert_outputs(
    outputs: Any, kind: str, wanted: str, distribution: Distribution, ops: types.ModuleType
) -> Any:
    """Returns logits as probabilities or the reverse, or `outputs` if they are `wanted` already.

    Probabilities below 1e-7 count as 1e-7 where logits are made of them; those logits' softmax or
    sigmoid is the probabilities again to within 1e-7 each.

    Args:
        outputs: Shape (..., classes).
        kind: `"logits"` or `"probabilities"`: what `outputs` are.
        wanted: `"logits"` or `"probabilities"`.
        distribution: Of what they are.
        ops: The flavour's array operations.
    """
    if kind == wanted:
        return outputs
    convert = distribution.probabilities if wanted == PROBABILITIES else distribution.logits
    return convert(outputs, ops)


def soft_targets(
    outputs: Any,
    kind: str,
    temperature: float,
    distribution: Distribution,
    ops: types.ModuleType,
) -> Any:
    """Returns the probabilities of z_T / temperature; shape as `outputs`.

    No gradient flows through them.

    Args:
        outputs: The teacher's outputs, shape (..., classes).
        kind: `"logits"` or `"probabilities"`: what `outputs` are.
        temperature: 1 leaves the teacher's probabilities as they are, more evens them out.
        distribution: Of what they are.
        ops: The flavour's array operations.
    """
    if kind == PROBABILITIES and temperature == 1:
        return ops.stop_gradient(outputs)
    logits = convert_outputs(outputs, kind, LOGITS, distribution, ops)
    return ops.stop_gradient(distribution.probabilities(logits / temperature, ops))


def loss_terms(
    labels: Any,
    teacher_outputs: Any,
    student_outputs: Any,
    *,
    teacher_kind: str,
    student_kind: str,
    temperature: float,
    distribution: Distribution,
    ops: types.ModuleType,
) -> dict[str, tuple[Any, Any]]:
    """Returns the (targets, predictions) of which L takes the three cross entropies.

    All predictions are of `student_kind`, so that one cross entropy serves the three; 16-bit
    outputs are made float32 first.

    Args:
        labels: Class indices, one-hot or soft labels; for yes and no numbers from 0 to 1, with the
            outputs' shape or without its last axis of size 1.
        teacher_outputs: Shape (..., classes).
        student_outputs: The same shape.
        teacher_kind: `"logits"` or `"probabilities"`.
        student_kind: `"logits"` or `"probabilities"`.
        temperature: Divides the teacher's logits.
        distribution: Of what both outputs are.
        ops: The flavour's array operations.

    Returns:
        `"teacher"` (weighted by alpha), `"student"` (beta), `"distillation"` (gamma).
    """
    teacher_outputs = _at_least_float32(teacher_outputs, ops)
    student_outputs = _at_least_float32(student_outputs, ops)
    targets = soft_targets(teacher_outputs, teacher_kind, temperature, distribution, ops)
    teacher_outputs = convert_outputs(
        teacher_outputs, teacher_kind, student_kind, distribution, ops
    )
    return {
        "teacher": (labels, teacher_outputs),
        "student": (labels, student_outputs),
        "distillation": (targets, student_outputs),
    }


def _at_least_float32(outputs: Any, ops: types.ModuleType) -> Any:
    name = getattr(outputs.dtype, "name", outputs.dtype)
    return ops.cast(outputs, "float32") if name in ("float16", "bfloat16") else outputs
