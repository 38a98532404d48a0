"""From a quantized Keras model to the bytes of a TFLite file."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any

from tflite_export.flatbuffer import check_type, write
from tflite_export.flatbuffer_checks import check_integer_only
from tflite_export.flatbuffer_schema import check_blob
from tflite_export.graph_reader import fold_model
from tflite_export.lowering import lower_folded
from tflite_export.snap_model import snap
from tflite_export.snap_report import SnapReport
from wrpn_tf.whole_file import write_whole


def convert(
    model: Any,
    storage: str = "int8",
    *,
    snap_first: bool = True,
    input_type: str = "int8",
    output_type: str = "int8",
    verbose: bool = True,
) -> bytes:
    """Returns a TFLite file that computes the same levels on every stock runtime and kernel.

    Where no values are found at which all kernels agree, a warning names the layers. Another names
    the preprocessing in front of the inputs (`Rescaling`, `Resizing`, ...), which no file holds.

    Args:
        model: A model of `wrpn_tf.quantize_model` or `widen_and_quantize`, trained or calibrated,
            of either Keras; it stays as it is.
        storage: How weights are stored: `"int8"` (the fastest), `"int4"`, `"int2"` (the smallest),
            or `"tflm"` (what TensorFlow Lite for Microcontrollers accepts).
        snap_first: Whether the network first moves its scales and biases to values that all
            kernels round alike (`tflite_export.snap`, which changes nothing on a model that was
            snapped before). Without it kernels differ from each other, and from training.
        input_type: `"int8"`, `"uint8"` or `"float32"`.
        output_type: `"int8"`, `"uint8"` or `"float32"`.
        verbose: Whether to show a line of progress on stderr once it takes long.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If the model is not quantized, a layer was left in float or has no integer
            form, a range saw no data, or an argument is unknown; names the layer or argument.
        OverflowError: If an accumulator of a layer exceeds 32 bits.
    """
    check_type("input_type", input_type)
    check_type("output_type", output_type)
    exported = model
    if snap_first:
        exported, report = snap(model, storage, verbose=verbose)
        if not report.exact:
            _warn_of_inexact(report)
    folded = fold_model(exported)
    blob = write(
        lower_folded(folded, storage),
        storage=storage,
        input_type=input_type,
        output_type=output_type,
    )
    check_integer_only(blob)
    if folded.preprocessing:
        warnings.warn(
            f"The file begins behind {', '.join(folded.preprocessing)}: give it what the "
            "preprocessing makes of an input, not the input itself.",
            stacklevel=2,
        )
    return blob


def _warn_of_inexact(report: SnapReport) -> None:
    layers, others = report.inexact_layers, report.inexact_others
    remedy = (
        " Give a layer whose `weight_scale` is fixed one that follows the weights ('mean'), or a "
        "batch norm."
    )
    warnings.warn(
        f"Kernels will differ from training, by a level here and there, in "
        f"{', '.join((*layers, *others))}: no scale was found that all of them round alike."
        f"{remedy if layers else ''}",
        stacklevel=3,
    )


def save(blob: bytes, path: str | os.PathLike[str]) -> None:
    """Writes a file whole, or not at all.

    Args:
        blob: The file's bytes, from `convert`.
        path: Where to; its folder must exist.

    Raises:
        TypeError: If `blob` is no bytes.
        ValueError: If they are no TFLite file.
        OSError: If the path cannot be written.
    """
    check_blob(blob)
    write_whole(blob, check_writable(path))


def check_writable(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a path to which a file can be written.

    Raises:
        OSError: If it is a folder, or its folder does not exist or cannot be written to.
    """
    target = pathlib.Path(path)
    folder = target.parent
    if target.is_dir():
        raise IsADirectoryError(f"`path` must be a file, got the folder {str(path)!r}.")
    if not folder.is_dir():
        raise FileNotFoundError(f"`path` must lie in a folder that exists, got {str(path)!r}.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"`path` must lie in a writable folder, got {str(path)!r}.")
    return target
