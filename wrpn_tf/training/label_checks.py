"""Which labels fit a model's outputs, and checks of the data: before training, and in each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

SPARSE = "sparse"  # class indices
DENSE = "dense"  # one-hot or soft
BINARY = "binary"  # no (0), yes (1), or between
_EITHER = "either"
_UNCHECKED = "unchecked"  # for a loss of the user's own, labels may mean anything

# Soft labels in float16 or of many classes do not sum to 1 exactly; multi-hot ones sum to 2 or
# more.
_SUM_TOLERANCE = 0.01


def label_kind(label_shape: Any, output_shape: Any) -> str | None:
    """Returns `"sparse"` or `"dense"`, whichever labels of that shape are; None if neither.

    Args:
        label_shape: (batch, ...), or (batch, ..., 1), or (batch, ..., classes); dimensions may be
            None.
        output_shape: (batch, ..., classes).
    """
    if not len(label_shape):
        return None
    labels, outputs = list(label_shape)[1:], list(output_shape)[1:]
    if len(labels) == len(outputs) and labels[-1] == 1:
        labels = labels[:-1]
    for kind, wanted in ((SPARSE, outputs[:-1]), (DENSE, outputs)):
        if len(labels) == len(wanted) and all(
            a == b or a is None or b is None for a, b in zip(labels, wanted, strict=True)
        ):
            return kind
    return None


@dataclasses.dataclass(frozen=True)
class LabelRule:
    """The labels that a compiled Distiller takes.

    Attributes:
        output_shape: The student's output shape with batch dimension.
        kind: `"sparse"`, `"dense"`, `"either"`, `"binary"`, or `"unchecked"`.
    """

    output_shape: tuple[int | None, ...]
    kind: str = _EITHER

    @classmethod
    def unchecked(cls, output_shape: tuple[int | None, ...]) -> LabelRule:
        """The rule of a loss that is no cross entropy."""
        return cls(output_shape, _UNCHECKED)

    @property
    def num_classes(self) -> int:
        """The size of the last axis of the outputs."""
        return self.output_shape[-1]

    def kind_of(self, shape: Any) -> str | None:
        """Returns `"sparse"`, `"dense"`, `"binary"` or, for labels that are not checked, None.

        Raises:
            ValueError: If labels of that shape fit neither the outputs nor the loss.
        """
        if self.kind == _UNCHECKED:
            return None
        kind = label_kind(shape, self.output_shape)
        # The last axis of a single output may be there or not.
        if self.kind == BINARY and kind == (SPARSE if self.num_classes == 1 else DENSE):
            return BINARY
        if kind is None or self.kind not in (_EITHER, kind):
            sparse = f"class indices of shape {self.output_shape[:-1]}"
            dense = f"one-hot or soft labels of shape {self.output_shape}"
            binary = f"numbers from 0 to 1 of shape {self.output_shape}"
            wanted = {
                SPARSE: sparse,
                DENSE: dense,
                BINARY: binary,
                _EITHER: f"{sparse} or {dense}",
            }[self.kind]
            raise ValueError(f"`y` must hold {wanted}, got labels of shape {tuple(shape)}.")
        return kind


def check_arrays(x: Any, y: Any, sample_weight: Any, rule: LabelRule, prefix: str = "") -> None:
    """Checks data that is in memory, all of it, before the first step.

    Datasets and generators are let pass: reading them here would consume or reorder them, and every
    step checks its own batch.

    Args:
        x: Array, or list or dictionary of arrays; anything else is let pass.
        y: Labels, likewise.
        sample_weight: Weights, likewise.
        rule: What the labels must be.
        prefix: What comes before the names in errors, `"validation "` for instance.

    Raises:
        ValueError: If a number is NaN or infinite, or a label is out of range.
    """
    for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        for array in _arrays(value):
            _check_finite(array, f"{prefix}`{name}`")
    for labels in _arrays(y):
        kind = rule.kind_of(labels.shape)
        if kind == SPARSE:
            _check_indices(labels, rule.num_classes, prefix)
        elif kind == DENSE:
            _check_distributions(labels, prefix)
        elif kind == BINARY:
            _check_shares(labels, prefix)


def check_batch(x: Any, y: Any, sample_weight: Any, rule: LabelRule) -> tuple[Any, Any, Any]:
    """Returns a batch of TensorFlow tensors, from which nothing flows before it is checked.

    The same checks as `check_arrays`, as assertions in the graph. XLA leaves assertions out.

    Raises:
        ValueError: If the labels are missing or of a wrong shape.
        tf.errors.InvalidArgumentError: When run, as `check_arrays` otherwise.
    """
    import tensorflow as tf

    if y is None:
        raise ValueError("`y` must hold the labels, got None: the Apprentice loss needs them.")
    x, y, sample_weight = tf.nest.map_structure(
        # Eager steps get the user's own arrays.
        lambda value: tf.convert_to_tensor(value) if isinstance(value, np.ndarray) else value,
        (x, y, sample_weight),
    )
    if not isinstance(y, tf.Tensor):
        raise ValueError(f"`y` must be one tensor of labels, got {type(y).__name__}.")
    checks = [
        _assert(
            tf.reduce_all(tf.math.is_finite(tensor)),
            f"`{name}` must be finite, got NaN or infinity.",
        )
        for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight))
        for tensor in tf.nest.flatten(value)
        if isinstance(tensor, tf.Tensor) and tensor.dtype.is_floating
    ]
    if y.shape.rank is not None:
        kind = rule.kind_of(y.shape)
        if kind == SPARSE:
            checks.append(_assert_indices(y, rule.num_classes))
        elif kind == DENSE:
            checks.append(_assert_distributions(y))
        elif kind == BINARY:
            checks.append(_assert_shares(y))
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.nest.map_structure(
            lambda t: tf.identity(t) if isinstance(t, tf.Tensor) else t, (x, y, sample_weight)
        )


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """The numeric arrays of an array, or of a list or dictionary of them."""
    if isinstance(value, dict):
        value = list(value.values())
    for item in value if isinstance(value, list | tuple) else [value]:
        if hasattr(item, "__array__"):
            array = np.asarray(item)
            if array.dtype.kind in "biuf" and array.ndim and array.size:
                yield array.astype(np.uint8) if array.dtype.kind == "b" else array


def _check_finite(array: np.ndarray, name: str) -> None:
    if array.dtype.kind != "f":
        return
    # One pass without a temporary array: where the sum is finite, every summand is.
    with np.errstate(invalid="ignore", over="ignore"):
        total = array.sum()
    if np.isfinite(total):
        return
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {bad.sum()} of {len(array)} examples, "
            f"first at index {bad.argmax()}."
        )


def _check_indices(labels: np.ndarray, num_classes: int, prefix: str) -> None:
    wrong = (labels < 0) | (labels >= num_classes) | (labels != np.floor(labels))
    if wrong.any():
        raise ValueError(
            f"{prefix}`y` must hold class indices in 0..{num_classes - 1}, got {labels[wrong][0]} "
            f"({wrong.sum()} of {labels.size} labels are wrong)."
        )


def _check_distributions(labels: np.ndarray, prefix: str) -> None:
    sums = labels.sum(axis=-1, dtype=np.float64)
    wrong = (labels < 0).any(axis=-1) | (np.abs(sums - 1) > _SUM_TOLERANCE)
    if wrong.any():
        raise ValueError(
            f"{prefix}`y` must hold one-hot or soft labels, non-negative and summing to 1 over the "
            f"last axis, got {labels[wrong][0]} ({wrong.sum()} of {wrong.size} labels are wrong)."
        )


def _check_shares(labels: np.ndarray, prefix: str) -> None:
    wrong = (labels < 0) | (labels > 1)
    if wrong.any():
        raise ValueError(
            f"{prefix}`y` must hold 0 for no, 1 for yes, or numbers between, got "
            f"{labels[wrong][0]} ({wrong.sum()} of {labels.size} labels are wrong)."
        )


def _assert(condition: Any, *message: Any) -> Any:
    import tensorflow as tf

    return tf.debugging.Assert(condition, list(message))


def _assert_indices(labels: Any, num_classes: int) -> Any:
    import tensorflow as tf

    indices = tf.cast(labels, tf.int64)
    low, high = tf.reduce_min(indices), tf.reduce_max(indices)
    right = (low >= 0) & (high < num_classes)
    if labels.dtype.is_floating:
        right &= tf.reduce_all(tf.equal(labels, tf.floor(labels)))
    message = f"`y` must hold class indices in 0..{num_classes - 1}, got values from"
    return _assert(right, message, low, "to", high)


def _assert_distributions(labels: Any) -> Any:
    import tensorflow as tf

    shares = tf.cast(labels, tf.float32)
    low = tf.reduce_min(shares)
    error = tf.reduce_max(tf.abs(tf.reduce_sum(shares, axis=-1) - 1))
    return _assert(
        (low >= 0) & (error <= _SUM_TOLERANCE),
        "`y` must hold one-hot or soft labels, non-negative and summing to 1 over the last axis, "
        "got a smallest value of",
        low,
        "and a sum that is off by",
        error,
    )


def _assert_shares(labels: Any) -> Any:
    import tensorflow as tf

    shares = tf.cast(labels, tf.float32)
    low, high = tf.reduce_min(shares), tf.reduce_max(shares)
    message = "`y` must hold 0 for no, 1 for yes, or numbers between, got values from"
    return _assert((low >= 0) & (high <= 1), message, low, "to", high)
