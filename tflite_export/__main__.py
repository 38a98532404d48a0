"""`python -m tflite_export MODEL OUT.tflite`: converts a saved model, proves the file, reports.

Exit code 0 if everything was proved, 1 if a proof failed (the file is not written then), 2 if the
input was wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tflite_export.converter import check_writable, convert, save
from tflite_export.description import describe
from tflite_export.graph_reader import fold_model
from tflite_export.integer_model import Tensor
from tflite_export.keras_levels import tensor_names
from tflite_export.saved_models import load_model
from tflite_export.snap_model import snap
from tflite_export.storage import STORAGES
from tflite_export.verification import check_range, verify
from wrpn_tf.model_graph import ModelGraph, model_graph
from wrpn_tf.simulation.checks import check_images

_RANDOM_IMAGES = 16
_RANGES = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))  # of what preprocessing may read


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts a model; returns the exit code."""
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
        try:
            return _export(options)
        except (OSError, OverflowError, TypeError, ValueError) as error:
            _say(f"error: {error}")
            return 2


def _export(options: argparse.Namespace) -> int:
    """Converts, proves and writes; returns 0, or 1 if a proof failed."""
    target = check_writable(options.output)
    model = load_model(options.model)
    if target.exists() and os.path.samefile(options.model, target):
        raise ValueError(f"`OUT.tflite` must be another file than `MODEL`, got {options.output!r}.")
    images = _images(options.images, model)
    _say("snapping scales and biases")
    snapped, moves = snap(model, options.storage)
    _say(str(moves))
    _say("writing the file")
    blob = convert(
        snapped,
        options.storage,
        snap_first=False,
        input_type=options.input_type,
        output_type=options.output_type,
    )
    report = verify(snapped, blob, images)
    print(describe(blob))
    print(report)
    if not report.exact:
        _say(f"{options.output} was not written: a proof failed.")
        return 1
    save(blob, target)
    _say(f"wrote {options.output}: {len(blob):,} bytes")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tflite_export",
        description="Converts a quantized Keras model to TFLite and proves that the file computes "
        "the same on every kernel.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a saved model: .keras, .h5, or a tf_keras folder"
    )
    parser.add_argument("output", metavar="OUT.tflite", help="the file to write")
    parser.add_argument("--storage", choices=STORAGES, default="int8", help="of the weights")
    parser.add_argument("--input-type", choices=("int8", "uint8", "float32"), default="int8")
    parser.add_argument("--output-type", choices=("int8", "uint8", "float32"), default="int8")
    parser.add_argument(
        "--images",
        metavar="FILE.npy",
        help="inputs to compare on; without it, random ones over the range of the model's input",
    )
    return parser


def _images(path: str | None, model: Any) -> Any:
    """The images of a file, or random ones: one array per input of the model."""
    folded, graph = fold_model(model), model_graph(model)
    if path is not None:
        if len(folded.inputs) != 1:
            raise ValueError(
                f"`--images` must be left out for a model of {len(folded.inputs)} inputs; call "
                "`tflite_export.verify` with a list of arrays."
            )
        loaded = check_images(graph, _loaded_images(path))
        if not folded.preprocessing:
            check_range(loaded, folded)
        return loaded
    tensors = [folded.tensors[name] for name in folded.inputs]
    candidates = [[(tensor.scale * tensor.low, tensor.scale * tensor.high) for tensor in tensors]]
    if folded.preprocessing:  # The ranges behind it say nothing of what it reads.
        candidates = [[ends] * len(tensors) for ends in _RANGES]
    drawn = [(ranges, _random_images(graph, tensors, ranges)) for ranges in candidates]
    ranges, images = max(drawn, key=lambda pair: _num_levels(graph, tensors, pair[1]))
    for low, high in ranges:
        _say(f"no --images: comparing on {_RANDOM_IMAGES} random ones in {low:g}..{high:g}")
    return images


def _random_images(
    graph: ModelGraph, tensors: Sequence[Tensor], ranges: Sequence[tuple[float, float]]
) -> list[np.ndarray]:
    """Uniform random values, one array per input of the model."""
    generator = np.random.default_rng(0)
    images = []
    for key, tensor, ends in zip(graph.inputs, tensors, ranges, strict=True):
        # What is resized may be of any size.
        shape = [size or own for size, own in zip(graph.shapes[key][1:], tensor.shape, strict=True)]
        images.append(generator.uniform(*ends, (_RANDOM_IMAGES, *shape)).astype(np.float32))
    return images


def _num_levels(graph: ModelGraph, tensors: Sequence[Tensor], images: list[np.ndarray]) -> int:
    """How many levels the preprocessing makes of images, in all rounded inputs."""
    names, inputs = tensor_names(graph), {tensor.name: tensor for tensor in tensors}
    count = 0
    for call, (result, *_) in graph.walk(images):
        tensor = inputs.pop(names.get(call.outputs[0], ""), None)
        if tensor is not None:
            levels = np.rint(np.asarray(result) / tensor.scale)
            count += len(np.unique(np.clip(levels, tensor.low, tensor.high)))
        if not inputs:
            break
    return count


def _loaded_images(path: str) -> np.ndarray:
    try:
        images = np.load(path)
    except (EOFError, ValueError) as error:
        raise ValueError(f"`--images` must be a file of NumPy's `save`, got {path!r}.") from error
    if not isinstance(images, np.ndarray):
        raise ValueError(f"`--images` must hold one array, got {path!r}.")
    return images


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
