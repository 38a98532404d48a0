"""`python -m tflite_export MODEL OUT.tflite`: converts a saved model, proves the file, reports.

Exit code 0 if everything was proved, 1 if a proof failed (the file is not written then), 2 if the
input was wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from tflite_export.converter import check_writable, convert, save
from tflite_export.description import describe
from tflite_export.saved_models import load_model
from tflite_export.snap_model import snap
from tflite_export.storage import STORAGES
from tflite_export.verification import verify
from wrpn_tf.keras_flavor import model_graph

_RANDOM_IMAGES = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts a model; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        target = check_writable(options.output)
        model = load_model(options.model)
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
    except (OSError, OverflowError, TypeError, ValueError) as error:
        _say(f"error: {error}")
        return 2
    print(describe(blob))  # noqa: T201
    print(report)  # noqa: T201
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
    parser.add_argument("model", metavar="MODEL", help="a saved model: .keras, .h5")
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


def _images(path: str | None, model: Any) -> np.ndarray:
    """The images of a file, or random ones."""
    if path is not None:
        return np.load(path)
    graph = model_graph(model)
    if len(graph.inputs) != 1:
        raise ValueError("`--images` must be given for a model of several inputs.")
    shape = graph.shapes[graph.inputs[0]][1:]
    if None in shape:
        raise ValueError(f"`MODEL` must have a fixed input shape, got {shape}.")
    _say(f"no --images: comparing on {_RANDOM_IMAGES} random ones in [0, 1]")
    return np.random.default_rng(0).random((_RANDOM_IMAGES, *shape), np.float32)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
