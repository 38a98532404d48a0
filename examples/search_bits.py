"""Chooses bits for each layer of a trained network; compares with uniform bits of the same cost.

    python examples/search_bits.py
    python examples/search_bits.py --budget=bytes --uniform=3
    python examples/search_bits.py --model_path=mine.h5 --dataset=cifar10 --data_dir=...

By default a ResNet-8 is first trained on scikit-learn's digits. For each of --uniform, the budget
is what that many bits for all weights and activations cost (first and last layers' weights have 8);
for bytes and cycles, where activations do not count, these have 8 bits. The search sees training
images, and nothing is trained: quantized networks are calibrated, and tested on the test images.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import datasets
import keras
import numpy as np
import saved_models
from absl import app, flags

import wrpn_tf
from wrpn_tf.analysis import SearchResult, search

_BUDGET = flags.DEFINE_enum("budget", "cost", ["cost", "bytes", "cycles"], "What is limited.")
_UNIFORM = flags.DEFINE_list("uniform", ["5", "4", "3"], "Uniform bits to compare with.")
_MODEL_PATH = flags.DEFINE_string("model_path", None, "A saved trained float model of --dataset.")
_DATASET = flags.DEFINE_enum("dataset", "digits", datasets.NAMES, "Images.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "For cifar10: see datasets.py.")
_IMAGES = flags.DEFINE_integer("images", 256, "Training images to search on.", lower_bound=1)
_MEASURE = flags.DEFINE_enum("measure", "kl", ["kl", "loss", "mse"], "Of the error.")
_WEIGHT_SCALE = flags.DEFINE_string("weight_scale", "mean", "Rule: see `quantize_model`.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A file to resume from.")
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs of the default network.", lower_bound=1)
flags.register_validator(
    "uniform",
    lambda bits: bits and set(bits) <= set("2345678"),  # 1 is less than the search can go to.
    "must be bits from 2 to 8, separated by commas",
)

_SEARCHED_BITS = (2, 3, 4, 5, 6, 8)


def main(argv: Sequence[str]) -> None:
    """Trains, searches, tests."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    start = time.monotonic()
    keras.utils.set_random_seed(0)
    try:
        data = datasets.load(_DATASET.value, _DATA_DIR.value)
        model = trained_network(data)
        images = data.x_train[: _IMAGES.value]
        print(f"Float network: {tested(model, data)}.", flush=True)
        lines = []
        for num_bits in map(int, _UNIFORM.value):
            result = searched(model, data, num_bits)
            print(f"\n{result}\n", flush=True)
            lines += compared(model, images, data, num_bits, result)
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f"Error: {error}")
    print("\n".join(["On the test images, calibrated, not trained:", *lines]))
    print(f"Took {time.monotonic() - start:.0f} s after TensorFlow's start.")


def trained_network(data: datasets.Dataset) -> keras.Model:
    """Returns the float network that the flags name."""
    if _MODEL_PATH.value:
        model = saved_models.load(_MODEL_PATH.value)
        check_outputs(model, data)
        return model
    print(f"Training a ResNet-8 on {data.name}, {_EPOCHS.value} epochs.", flush=True)
    model = wrpn_tf.applications.ResNet8(input_shape=data.input_shape, classes=data.num_classes)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(data.x_train, data.y_train, epochs=_EPOCHS.value, verbose=0)
    return model


def check_outputs(model: keras.Model, data: datasets.Dataset) -> None:
    """Raises ValueError unless a model ends in a softmax of the classes, or in their logits."""
    says_yes_or_no = getattr(model.layers[-1], "activation", None) is keras.activations.sigmoid
    if tuple(model.output_shape[1:]) != (data.num_classes,) or says_yes_or_no:
        raise ValueError(
            f"`model_path` must be a network that ends in a softmax of {data.num_classes} classes, "
            f"as {data.name} has, or their logits, got outputs {model.output_shape} of "
            f"{model.layers[-1].name!r}."
        )


def searched(model: keras.Model, data: datasets.Dataset, num_bits: int) -> SearchResult:
    """Returns the bits that cost no more than uniform ones."""
    count = _IMAGES.value
    return search(
        model,
        {_BUDGET.value: uniform_price(model, num_bits)},
        (data.x_train[:count], data.y_train[:count]),
        num_bits_weight=_SEARCHED_BITS,
        num_bits_activation=_SEARCHED_BITS,
        measure=_MEASURE.value,
        weight_scale=_WEIGHT_SCALE.value,
        checkpoint=_CHECKPOINT.value,
    )


def uniform_price(model: keras.Model, num_bits: int) -> float:
    """Returns what uniform bits cost."""
    quantized = uniform_network(model, num_bits)
    profile = wrpn_tf.analysis.ModelProfile(quantized)
    if _BUDGET.value == "bytes":
        return profile.num_bytes
    if _BUDGET.value == "cost":
        baseline = wrpn_tf.analysis.ModelProfile(model)
        return wrpn_tf.analysis.relative_cost(profile, baseline)
    image = np.random.default_rng(0).random((1, *model.input_shape[1:]), np.float32)
    wrpn_tf.calibrate(quantized, image, verbose=False)
    return sum(layer.trace.cycles for layer in wrpn_tf.simulate(quantized, image).layers)


def uniform_network(model: keras.Model, num_bits: int) -> keras.Model:
    """Returns the network with uniform bits, where activations count; else these have 8."""
    return wrpn_tf.quantize_model(
        model,
        num_bits_weight=num_bits,
        num_bits_activation=num_bits if _BUDGET.value == "cost" else 8,
        weight_scale=_WEIGHT_SCALE.value,
    )


def compared(
    model: keras.Model,
    images: np.ndarray,
    data: datasets.Dataset,
    num_bits: int,
    result: SearchResult,
) -> list[str]:
    """Returns a line for uniform bits, and one for those found."""
    networks = {
        f"uniform {num_bits} bits": uniform_network(model, num_bits),
        f"searched ({result.best.name})": wrpn_tf.quantize_model(model, overrides=result.overrides),
    }
    lines = []
    for name, network in networks.items():
        wrpn_tf.calibrate(network, images, verbose=False)
        lines.append(f"  {name:<30} {tested(network, data)}")
    return lines


def tested(model: keras.Model, data: datasets.Dataset) -> str:
    """Returns accuracy and cross entropy on the test images."""
    outputs = model.predict(data.x_test, verbose=0)
    if outputs.min() < 0 or not np.allclose(outputs.sum(axis=-1), 1, atol=1e-3):  # logits
        outputs = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        outputs /= outputs.sum(axis=-1, keepdims=True)
    right = outputs.argmax(axis=-1) == data.y_test
    of_label = outputs[np.arange(len(right)), data.y_test]
    loss = -np.log(np.maximum(of_label, np.finfo(np.float32).tiny)).mean()
    return f"{right.mean():7.2%} right, cross entropy {loss:.4f}"


if __name__ == "__main__":
    app.run(main)
