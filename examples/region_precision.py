"""Shows which parts of photographs a network can compute at fewer bits, and what that saves.

    python examples/region_precision.py
    python examples/region_precision.py --images=photos --metric=gradient --bits=8,4,2
    python examples/region_precision.py --images=a.jpg,b.png --application=MobileNet --kept=0.3

For each image a figure: its importance, the bits of what convolutions read at each resolution, and
the bits and the energy of each layer; then one figure and a table of all metrics.

By default VGG-16 without its dense layers, quantized to 8 bits, with 4 bits where it matters less:
6 on average over all images, so that 25 % of the energy of computing is saved. Expect plain
pictures to save more (the rocket and its sky 41 % by entropy) and busy ones less (the cat, 13 %),
while the centre, a control that sees no pixel, treats all alike. With --kept=0.5 they save 19 to
24 %, not 25: a position of a deep layer is important if anything under it is, so maps grow with
depth. Bits follow from the image and the layers' shapes alone, so the weights are random and
nothing is downloaded; what a saving costs in accuracy cannot be seen here.

Takes some 20 seconds of one core, TensorFlow's start included.
"""

from __future__ import annotations

import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import photographs
import region_figures
import saved_models
from absl import app, flags
from region_measures import ImageRegions, measure

import wrpn_tf

_METRICS = tuple(wrpn_tf.regions.METRICS)

_IMAGES = flags.DEFINE_list(
    "images", None, "Image files (PNG, JPEG, GIF, BMP), or folders of them; bundled by default."
)
_APPLICATION = flags.DEFINE_string("application", "VGG16", "A network of keras.applications.")
_MODEL_PATH = flags.DEFINE_string(
    "model_path", None, "A saved Keras 3 model of images to take instead, quantized or not."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 224, "Height and width for --application.", lower_bound=32
)
_METRIC = flags.DEFINE_enum("metric", "entropy", _METRICS, "The metric of the figures.")
_COMPARE = flags.DEFINE_bool("compare", True, "Whether to try the other metrics, too.")
_BITS = flags.DEFINE_list("bits", ["8", "4"], "Bits, the most important parts' first.")
_FINAL_BITS = flags.DEFINE_list(
    "final_bits", None, "Bits at the last layer, reached from --bits step by step."
)
_KEPT = flags.DEFINE_list(
    "kept", None, "Shares of each image with each of --bits, or more, but the last; 0.5 for two."
)
_THRESHOLD = flags.DEFINE_list(
    "threshold", None, "Least importance for each of --bits but the last, of --metric alone."
)
_TARGET_BITS = flags.DEFINE_float(
    "target_bits", None, "Mean bits to reach over all images. By default the middle of --bits."
)
_OUT_DIR = flags.DEFINE_string("out_dir", "region_results", "Where the figures are written.")


def main(argv: Sequence[str]) -> None:
    """Makes the maps, a table and the figures."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    start = time.monotonic()
    try:
        region_figures.check_matplotlib()
        keras.utils.set_random_seed(0)
        model = quantized_network()
        images = photographs.load(_IMAGES.value, model.inputs[0].shape[1:])
        pathlib.Path(_OUT_DIR.value).mkdir(parents=True, exist_ok=True)
        results = measure_all(model, images)
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f"Error: {error}")
    print(f"\n{table(results)}\n")
    save_figures(results, f"{model.name}, {_settings()}")
    print(f"Took {time.monotonic() - start:.0f} s after TensorFlow's start.")


def quantized_network() -> keras.Model:
    """Returns the network that the flags name, with 8-bit activations."""
    if _MODEL_PATH.value:
        model = saved_models.load(_MODEL_PATH.value)
    else:
        network = getattr(keras.applications, _APPLICATION.value, None)
        if not callable(network):
            raise ValueError(
                f"`application` must be a network of keras.applications, got "
                f"{_APPLICATION.value!r}."
            )
        size = (_IMAGE_SIZE.value, _IMAGE_SIZE.value, 3)
        model = network(weights=None, include_top=False, input_shape=size)
    if any(wrpn_tf.quantization.is_quantized(layer) for layer in model.layers):
        return model
    print(f"Quantizing {model.name} to 8 bits.", flush=True)
    return wrpn_tf.quantize_model(model)


def measure_all(
    model: keras.Model, images: Mapping[str, np.ndarray]
) -> dict[str, list[ImageRegions]]:
    """Returns metric -> what the network reads of each image; the metric of the figures first."""
    metrics = [_METRIC.value]
    if _COMPARE.value and _THRESHOLD.value is None:
        metrics += [name for name in _METRICS if name != _METRIC.value]
    results = {}
    for metric in metrics:
        print(f"Maps of {len(images)} images by the metric {metric}.", flush=True)
        results[metric] = measure(model, images, region_precision(metric))
    return results


def region_precision(metric: str) -> wrpn_tf.RegionPrecision:
    """Returns what the flags ask for, with one metric."""
    return wrpn_tf.RegionPrecision(
        metric,
        _numbers(_BITS, int),
        kept=_numbers(_KEPT, float),
        threshold=_numbers(_THRESHOLD, float),
        target_bits=_target_bits(),
        final_bits=_numbers(_FINAL_BITS, int),
    )


def _target_bits() -> float | None:
    if _TARGET_BITS.value is not None or _KEPT.value or _THRESHOLD.value:
        return _TARGET_BITS.value
    most, *_, least = _numbers(_BITS, int)
    return (most + least) / 2


def table(results: Mapping[str, Sequence[ImageRegions]]) -> str:
    """Returns mean bits and savings, one line for each image and one column for each metric."""
    images = next(iter(results.values()))
    # Names of two words take two lines.
    heads = [metric.replace("_of_", " of_").split("_") for metric in results]
    words = [[x[0] if len(x) > 1 else "", x[-1]] for x in heads]
    lines = [f"{'':<13}" + "".join(f"{word[i]:>14}" for word in words) for i in (0, 1)]
    lines = [line.rstrip() for line in lines if line.strip()]
    lines.append(f"{'image':<13}" + f"{'bits':>6}{'saved':>8}" * len(results))
    for row, image in enumerate(images):
        cells = [(of[row].mean_bits, of[row].saving) for of in results.values()]
        lines.append(_line(image.name, cells))
    means = [
        (np.mean([x.mean_bits for x in of]), np.mean([x.saving for x in of]))
        for of in results.values()
    ]
    lines.append(_line("mean", means))
    full = images[0].full_bits
    return "\n".join(
        [
            *lines,
            "",
            "bits: of activations, the mean over the network's multiply-accumulates; "
            f"{full:.2f} without regions.",
            "saved: of the computation's energy, if an activation costs its own bits (bit-serial).",
        ]
    )


def _line(name: str, cells: Sequence[tuple[float, float]]) -> str:
    return f"{name[:12]:<13}" + "".join(f"{bits:>6.2f}{saving:>8.1%}" for bits, saving in cells)


def save_figures(results: Mapping[str, Sequence[ImageRegions]], subtitle: str) -> None:
    """Draws a figure for each image, and one of all metrics."""
    folder = pathlib.Path(_OUT_DIR.value)
    for regions in results[_METRIC.value]:
        path = folder / f"{regions.name}_{_METRIC.value}.png"
        region_figures.draw_image(regions, f"{subtitle}, metric: {_METRIC.value}", path)
        print(f"Figure: {path}", flush=True)
    if len(results) > 1:
        region_figures.draw_comparison(results, subtitle, folder / "metrics.png")
        print(f"Figure: {folder / 'metrics.png'}")


def _settings() -> str:
    """Says in words how parts of images get their bits."""
    bits = "/".join(_BITS.value)
    if _FINAL_BITS.value:
        bits += f" to {'/'.join(_FINAL_BITS.value)}"
    for name, value in (("kept", _KEPT.value), ("threshold", _THRESHOLD.value)):
        if value:
            return f"{bits} bits, {name} = {', '.join(value)}"
    return f"{bits} bits, {_target_bits():g} on average over all images"


def _numbers(flag: flags.FlagHolder, kind: type) -> tuple[int | float, ...] | None:
    if flag.value is None:
        return None
    try:
        return tuple(kind(value) for value in flag.value)
    except ValueError as error:
        raise ValueError(f"`{flag.name}` must be numbers, got {','.join(flag.value)}.") from error


if __name__ == "__main__":
    app.run(main)
