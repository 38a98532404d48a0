"""Writes a trained net of `cifar10.py` for `examples/trained_network.py`.

    python examples/experiments/cifar10_release.py --run=w2a8_both --target=trained \
        --data_dir=.../cifar-10-batches-py

As a Keras 3 model, as an integer file, and the mean training image that both want subtracted. The
three are written only if the Keras 3 model is as accurate as what was trained, maybe in tf_keras.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import cifar10_config
import cifar10_networks
import datasets
import saved_models
from cifar10_training import Images, RunFiles

from wrpn_tf.whole_file import write_whole

_HERE = pathlib.Path(__file__).resolve().parent

# In points. The two compute batch norm in another order, and here and there a value on the border
# of two levels falls to the other side.
_TOLERANCE = 0.1

_CONFIG = flags.DEFINE_string("config", str(_HERE / "cifar10.yaml"), "YAML file of runs.")
_RUN = flags.DEFINE_string("run", None, "Name of the run.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Its seed.", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py.", required=True)
_OUT_DIR = flags.DEFINE_string("out_dir", "cifar10", "Where the run's results are.")
_WORK_DIR = flags.DEFINE_string("work_dir", "cifar10_checkpoints", "Where its trained net is.")
_TARGET = flags.DEFINE_string("target", None, "Folder for the three files.", required=True)


def main(argv: list[str]) -> None:
    """Converts, compares, writes."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    run = cifar10_config.read(_CONFIG.value)[_RUN.value]
    if run.quantize is None or not run.export:
        raise app.UsageError(f"--run must name a run with `quantize` and `export`, got {run.name}.")
    files = RunFiles(run.name, _SEED.value, _OUT_DIR.value, _WORK_DIR.value)
    if not files.json.exists():
        raise app.UsageError(f"--run must name a finished run, and {files.json} is not there.")
    model = cifar10_networks.build(run, keras_flavor="keras")
    if files.weights("keras").exists():
        model.load_weights(files.weights("keras"))
    else:
        trained = cifar10_networks.build(run)
        trained.load_weights(files.weights("tf_keras"))
        cifar10_networks.copy_weights(trained, model)
    data = Images(datasets.load("cifar10", _DATA_DIR.value))
    accuracy = data.accuracy(model)
    expected = json.loads(files.json.read_text())["test_accuracy"]
    if abs(accuracy - expected) > _TOLERANCE:
        sys.exit(f"Error: the Keras 3 model reaches {accuracy:.2f} %, not {expected:.2f} %.")
    target = pathlib.Path(_TARGET.value)
    bits = [run.quantize[f"num_bits_{part}"] for part in ("weight", "activation")]
    stem = "resnet{}_w{}a{}".format(run.depth, *bits)
    saved_models.save(model, target / f"{stem}.keras")
    blob = (files.folder / "int8.tflite").read_bytes()
    write_whole(blob, target / f"{stem}_int8.tflite")
    np.save(target / "mean.npy", data.mean)
    print(f"{run.title}: {accuracy:.2f} %, {len(blob):,} bytes as an integer file.")


if __name__ == "__main__":
    app.run(main)
