"""Trains a 2-bit student with a teacher: the three schemes of Apprentice.

    python examples/distill.py --scheme=A    # teacher and student learn together
    python examples/distill.py --scheme=B    # trained teacher, student from scratch
    python examples/distill.py --scheme=C    # trained teacher, student from trained float weights

By default a ResNet-14 teaches a ResNet-8 with 2-bit weights and 8-bit activations on scikit-learn's
digits. At the end: what teacher and student know of the test set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import datasets
import keras
from absl import app, flags

import wrpn_tf

_SCHEME = flags.DEFINE_enum("scheme", "B", ["A", "B", "C"], "Scheme of Apprentice.")
_DATASET = flags.DEFINE_enum("dataset", "digits", datasets.NAMES, "Images to train on.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "For cifar10: the folder cifar-10-batches-py.")
_NUM_BITS_WEIGHT = flags.DEFINE_integer(
    "num_bits_weight", 2, "Bits of the student's weights.", lower_bound=1, upper_bound=8
)
_TEACHER_DEPTH = flags.DEFINE_integer("teacher_depth", 14, "Layers of the teacher: 6n + 2.")
_STUDENT_DEPTH = flags.DEFINE_integer("student_depth", 8, "Layers of the student: 6n + 2.")
_EPOCHS = flags.DEFINE_integer("epochs", 8, "Epochs of each training.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 50, "Images in a training step.", lower_bound=1)
_BETA = flags.DEFINE_float(
    "beta", 0.5, "Weight of the student's loss on the labels.", lower_bound=0
)
_GAMMA = flags.DEFINE_float(
    "gamma", 0.5, "Weight of the student's loss on the teacher's outputs.", lower_bound=0
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", 1.0, "Divides the teacher's logits.", lower_bound=1e-3
)


def build_network(data: datasets.Dataset, depth: int) -> keras.Model:
    """Returns a float ResNet of the CIFAR family."""
    return wrpn_tf.applications.CIFARResNet(
        depth, input_shape=data.input_shape, classes=data.num_classes
    )


def fit(model: keras.Model, data: datasets.Dataset, title: str, **compile_options: object) -> None:
    """Trains a float network or a Distiller, and prints a line for each epoch."""
    print(f"\n{title}")
    model.compile(**compile_options, metrics=["accuracy"], jit_compile=False)
    model.fit(
        data.training_batches(_BATCH_SIZE.value, seed=0),
        shuffle=False,
        epochs=_EPOCHS.value,
        verbose=2,
    )


def fit_float(model: keras.Model, data: datasets.Dataset, title: str) -> None:
    """Trains a float network on the labels."""
    fit(model, data, title, optimizer="adam", loss="sparse_categorical_crossentropy")


def accuracy(model: keras.Model, data: datasets.Dataset) -> float:
    """Returns the share of right answers on the test set."""
    predicted = model.predict(data.x_test, 500, verbose=0).argmax(axis=-1)
    return float((predicted == data.y_test).mean())


def main(argv: Sequence[str]) -> None:
    """Trains as the scheme says, and compares."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    keras.utils.set_random_seed(0)
    scheme, bits = _SCHEME.value, f"{_NUM_BITS_WEIGHT.value}b/8b"
    try:
        data = datasets.load(_DATASET.value, _DATA_DIR.value)
        data.num_batches(_BATCH_SIZE.value)  # Refuses more images than there are.
        teacher = build_network(data, _TEACHER_DEPTH.value)
        float_student = build_network(data, _STUDENT_DEPTH.value)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    if scheme != "A":
        fit_float(teacher, data, f"The teacher, {teacher.name} in float:")
    if scheme == "C":
        fit_float(float_student, data, f"The student before quantization, {float_student.name}:")
    try:
        student = wrpn_tf.quantize_model(float_student, num_bits_weight=_NUM_BITS_WEIGHT.value)
        trainer = wrpn_tf.Distiller(
            student,
            teacher,
            scheme=scheme,
            beta=_BETA.value,
            gamma=_GAMMA.value,
            temperature=_TEMPERATURE.value,
        )
    except (TypeError, ValueError) as error:
        sys.exit(f"Error: {error}")
    # Fine-tuning needs a lower learning rate than Adam's default of 1e-3.
    learning_rate = 3e-4 if scheme == "C" else 1e-3
    fit(
        trainer,
        data,
        f"The student, {float_student.name} in {bits}, scheme {scheme}:",
        optimizer=keras.optimizers.Adam(learning_rate),
    )
    print(f"\nTest images told right ({data.split}):")
    print(f"  teacher, float   {accuracy(teacher, data):.2%}")
    if scheme == "C":
        print(f"  student, float   {accuracy(float_student, data):.2%}")
    print(f"  student, {bits}   {accuracy(student, data):.2%}")


if __name__ == "__main__":
    app.run(main)
