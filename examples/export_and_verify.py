"""Exports a 2-bit network to TFLite and proves that the files compute what was trained.

    python examples/export_and_verify.py
    python examples/export_and_verify.py --model_path=quickstart_results/low_bit.keras
    python examples/export_and_verify.py --storages=int8,int2 --out_dir=exported

Snaps the network (its scales and biases move to values that all TFLite kernels round alike), writes
a file for each storage, and compares each file with Keras and with the model of the 2-bit x 8-bit
accelerator at every layer, on every runtime that is installed. Without --model_path a small network
is trained on the images first: with the digits half a minute on two cores in all.
"""

from __future__ import annotations

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import datasets
import keras
import saved_models
from absl import app, flags

import tflite_export
import wrpn_tf
from tflite_export.storage import STORAGES

_DATASET = flags.DEFINE_enum("dataset", "digits", datasets.NAMES, "Images to compare on.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "For cifar10: the folder cifar-10-batches-py.")
_MODEL_PATH = flags.DEFINE_string(
    "model_path", None, "A quantized Keras 3 model of these images; one is trained by default."
)
_STORAGES = flags.DEFINE_list("storages", list(STORAGES), "Files to write.")
_IMAGES = flags.DEFINE_integer("images", 100, "Test images to compare.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs, if a network is trained.", lower_bound=1)
_OUT_DIR = flags.DEFINE_string("out_dir", "quickstart_results", "Where the files are written.")
flags.register_validator(
    "storages",
    lambda names: names and set(names) <= set(STORAGES),
    f"must be among {', '.join(STORAGES)}",
)


def main(argv: list[str]) -> None:
    """Exports in each storage; exit code 1 if a proof fails."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    try:
        data = datasets.load(_DATASET.value, _DATA_DIR.value)
        pathlib.Path(_OUT_DIR.value).mkdir(parents=True, exist_ok=True)
        model = trained(data) if _MODEL_PATH.value is None else saved_models.load(_MODEL_PATH.value)
        failed = export(model, data)
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f"Error: {error}")
    if failed:
        sys.exit(f"NOT PROVED, not written: {', '.join(failed)}")


def export(model: keras.Model, data: datasets.Dataset) -> list[str]:
    """Writes and proves a file for each storage, and prints a table; returns those not proved."""
    out_dir = pathlib.Path(_OUT_DIR.value)
    images = data.x_test[: _IMAGES.value]
    rows, failed = [], []
    for storage in _STORAGES.value:
        snapped, moves = tflite_export.snap(model, storage, (data.x_test, data.y_test))
        blob = tflite_export.convert(snapped, storage, snap_first=False)
        report = tflite_export.verify(snapped, blob, images)
        if storage == _STORAGES.value[0]:
            print(f"{moves}\n\n{report}\n")
        path = out_dir / f"low_bit_{storage}.tflite"
        if report.exact:
            tflite_export.save(blob, path)
        else:
            failed.append(storage)
        rows.append(table_row(storage, blob, report, moves.accuracies))
    print("Levels at all layers that differ from the accelerator's, and top-1 accuracy")
    print(
        f"{'storage':<10}{'bytes':>9}{'kernels':>10}{'Keras':>8}{'before':>10}{'snapped':>10}  runs"
    )
    print("\n".join(rows))
    simulation = wrpn_tf.simulate(model, images[:1])
    print(f"\nThe accelerator takes {simulation.cycles:,} cycles for an image, 8 x 8 engines.")
    print(f"Files: {out_dir}/low_bit_*.tflite")
    return failed


def trained(data: datasets.Dataset) -> keras.Model:
    """Returns a ResNet-8 with 2-bit weights and 8-bit activations, trained on the images."""
    keras.utils.set_random_seed(0)
    net = wrpn_tf.applications.ResNet8(input_shape=data.input_shape, classifier_activation=None)
    model = wrpn_tf.quantize_model(net, num_bits_weight=2)
    batches = data.training_batches(64, seed=0)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, _EPOCHS.value * len(batches))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"], jit_compile=False)
    model.fit(batches, shuffle=False, epochs=_EPOCHS.value, verbose=2)
    return model


def table_row(
    storage: str,
    blob: bytes,
    report: tflite_export.verification.VerificationReport,
    accuracies: tuple[float, ...],
) -> str:
    """Returns one line of the table."""
    compared = [pair for layer in report.layers for pair in layer.sources.items()]
    kernels = sum(comparison.differing for source, comparison in compared if source != "Keras")
    in_keras = sum(comparison.differing for source, comparison in compared if source == "Keras")
    runtimes = [source for source in report.sources if not source.startswith(("Keras", "formula"))]
    before, after = accuracies
    runs = f"{len(runtimes)} kernels of runtimes"
    if not runtimes:  # What was compared are the kernels' formulas.
        kernels, runs = "-", "not run: pip install tflite-micro"
    return (
        f"{storage:<10}{len(blob):>9,}{kernels:>10}{in_keras:>8}{before:>10.2%}{after:>10.2%}"
        f"  {runs}"
    )


if __name__ == "__main__":
    app.run(main)
