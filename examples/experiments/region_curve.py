"""Accuracy against energy saved by region precision, on CIFAR-10, beside the controls.

    python examples/experiments/region_curve.py --data_dir=.../cifar-10-batches-py \
        --teacher=.../resnet20.h5 --stages=base,uniform,two_pass,maps,tuned,report

A ResNet-20 with 2-bit weights and 8-bit activations, distilled from its float teacher; then, with
no retraining, maps of several metrics at several mean bits, and what they must beat: smooth random
maps, the image's centre, and uniform lower precision, the best mix of layers that sensitivities on
training images give. `two_pass` computes each image at a uniform low precision first and again at
full precision if the first pass was in doubt. `tuned` distils on for a short while with regions in
each step, and the controls for as long.

Each finished row is appended to a CSV file; rows that are in it are not computed again, trained
nets are kept in --work_dir, so an interrupted series goes on where it was. On two cores: training
the base 40 minutes, sensitivities and predictor 5, each row half a minute, fine-tuning 3 minutes a
net.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import datasets
import region_bench
import region_networks
import region_report
import region_settings

import wrpn_tf

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder cifar-10-batches-py.", required=True)
_TEACHER = flags.DEFINE_string("teacher", None, "The float network, a tf_keras .h5 file.")
_STAGES = flags.DEFINE_list(
    "stages", ["base", "uniform", "two_pass", "maps", "report"], "See above; in this order."
)
_EPOCHS = flags.DEFINE_integer("epochs", 8, "Epochs of the base net.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 200, "Steps of fine-tuning, 128 images each.", lower_bound=1)
_RATE = flags.DEFINE_float("tuning_rate", 3e-5, "Adam's learning rate at first, of fine-tuning.")
_IMAGES = flags.DEFINE_integer("images", 10_000, "Test images.", lower_bound=1)
_LABELLED = flags.DEFINE_integer(
    "labelled", 20_000, "Training images for sensitivities and predictor.", lower_bound=2000
)
_SEED = flags.DEFINE_integer("seed", 0, "Of all training.")
_WORK_DIR = flags.DEFINE_string("work_dir", "region_curve_models", "Trained nets.")
_OUT = flags.DEFINE_string("out", "region_curve.csv", "CSV file of finished rows.")


def main(argv: list[str]) -> None:
    """Computes the rows that are not in the CSV file yet."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    out = pathlib.Path(_OUT.value)
    for stage in _STAGES.value:
        if stage == "report":
            region_report.write(out)
            continue
        about_net = {"seed": _SEED.value, "epochs": _EPOCHS.value}
        region_bench.measure(region_settings.of_stage(stage), _bench, out, about_net, stage)


@functools.cache
def _bench() -> region_bench.Bench:
    """Returns the one bench, which is made only if there is something to measure."""
    data = datasets.load("cifar10", _DATA_DIR.value)
    mean = data.x_train.mean(0)
    folder = pathlib.Path(_WORK_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    teacher = region_networks.load_teacher(_TEACHER.value)
    base = region_networks.trained_base(teacher, data, mean, _EPOCHS.value, _SEED.value, folder)
    precisions = region_settings.Precisions(base, data.x_train[: _LABELLED.value], mean, folder)

    def network(weights: str) -> Any:
        """The quantized net with the weights of this name."""
        if weights == "base":
            return base
        settings = f"{_STEPS.value}steps_rate{_RATE.value:g}_seed{_SEED.value}"
        path = folder / f"{weights}_{settings}.h5"
        if not path.exists():
            setting = region_settings.TUNED[weights]
            tuned = region_networks.fine_tuned(
                base.get_weights(),
                teacher,
                None if setting is None else precisions.precision(setting),
                data,
                mean,
                _STEPS.value,
                _RATE.value,
                _SEED.value,
            )
            tuned.save_weights(path)
        model = wrpn_tf.quantize_model(teacher)
        model.load_weights(path)
        return model

    return region_bench.Bench(network, precisions, data, mean, _IMAGES.value)


if __name__ == "__main__":
    app.run(main)
