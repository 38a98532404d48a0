"""What the arguments of a Distiller must be, and what follows from its models."""

from __future__ import annotations

import contextlib
import math
import numbers
from typing import Any

from wrpn_tf import keras_flavor
from wrpn_tf.model_graph import check_model, model_graph
from wrpn_tf.training import model_outputs

SCHEMES = ("A", "B", "C")


def check_options(scheme: Any, alpha: Any, beta: Any, gamma: Any, temperature: Any) -> None:
    """Checks the arguments of a Distiller that are no models.

    Raises:
        TypeError: If a weight or the temperature is no number.
        ValueError: If one is out of range, or the weights leave a model of the scheme untrained.
    """
    if scheme not in SCHEMES:
        raise ValueError(f'`scheme` must be "A", "B" or "C", got {scheme!r}.')
    for name, value in (
        ("alpha", alpha),
        ("beta", beta),
        ("gamma", gamma),
        ("temperature", temperature),
    ):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"`{name}` must be a number, got {type(value).__name__} {value!r}.")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"`{name}` must be finite and >= 0, got {value}.")
    if temperature == 0:
        raise ValueError(f"`temperature` must be > 0, got {temperature}.")
    if beta == gamma == 0:
        raise ValueError(
            "`beta` and `gamma` must not both be 0, got beta=0 and gamma=0: the student "
            "would learn nothing."
        )
    if scheme == "A" and alpha == 0:
        raise ValueError(
            '`alpha` must be > 0 under scheme "A", got 0: the teacher would learn nothing.'
        )


def check_models(student: Any, teacher: Any, scheme: str) -> keras_flavor.KerasFlavor:
    """Checks that two models can be student and teacher, and returns their flavour.

    Raises:
        TypeError: If one belongs to neither Keras.
        ValueError: If one is not a built classifier with one output, has nothing to train though
            the scheme trains it, or the two do not fit each other.
    """
    flavor = check_model(student, "student")
    teacher_flavor = check_model(teacher, "teacher")
    if teacher_flavor is not flavor:
        raise ValueError(
            f"`teacher` must be a model of the student's Keras, {flavor.name}, got one of "
            f"{teacher_flavor.name}."
        )
    if teacher is student:
        raise ValueError("`teacher` must be another model than `student`, got the same one.")
    teacher_weights = {id(weight) for weight in teacher.weights}
    shared = [weight.name for weight in student.weights if id(weight) in teacher_weights]
    if shared:
        raise ValueError(
            f"`teacher` must share no weights with `student`, got {len(shared)} shared, the first "
            f"named {shared[0]!r}: training the student would change the teacher."
        )
    trained = {"student": student, "teacher": teacher} if scheme == "A" else {"student": student}
    for argument, model in trained.items():
        if not model.trainable_weights:
            raise ValueError(
                f"`{argument}` must have trainable weights under scheme {scheme!r}, got "
                f"{model.name!r} without any. Is its `trainable` False?"
            )
    for argument, model in (("student", student), ("teacher", teacher)):
        model_outputs.class_shape(model, argument)
    model_outputs.check_same_shapes(student, teacher)
    return flavor


def dtype_policy(*trained: Any) -> str:
    """The dtype policy of a model that trains these: only float16 needs its loss scaled."""
    for model in trained:
        for layer in model_graph(model).layers().values():
            layer = getattr(layer, "layer", layer)  # What a quantizing wrapper wraps.
            if getattr(layer, "compute_dtype", None) == "float16":
                return "mixed_float16"
    return "float32"


def strategy_scope(model: Any) -> contextlib.AbstractContextManager:
    """The scope of the `tf.distribute` strategy under which a model was made."""
    strategy = getattr(model, "distribute_strategy", None)  # Keras 3 has it with TensorFlow only.
    return contextlib.nullcontext() if strategy is None else strategy.scope()
