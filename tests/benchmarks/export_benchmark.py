"""What exported networks weigh and how fast they run, against TensorFlow's own 8-bit exports.

    python tests/benchmarks/export_benchmark.py [--rounds=500]

ResNet-20: both files come from one tf_keras network: tfmot's through `quantize_model` and the
converter, ours with 2-bit weights and 8-bit activations. Bounds: bytes of int8 / tfmot's 1.05;
bytes of int2 / floor 1.25, where the floor is the parameters' bits and 8 bytes per channel for bias
and scale; latency of int8 / tfmot's on XNNPACK, one thread, image by image, ratio of medians 1.00;
snapping 5 s. MobileNetV3Small, 224 pixels, whose gates and hard swishes tfmot does not know,
against the converter's quantization after training: no bound, for kernels have no exact form of
either but products in int32 and tables. Takes two minutes on two quiet cores; run nothing else
meanwhile.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from absl import app, flags
from ai_edge_litert import interpreter as litert
from alternating import median_ratios

import tflite_export
import wrpn_tf
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import weight_quantizers

_ROUNDS = flags.DEFINE_integer("rounds", 500, "Timed rounds.", lower_bound=1)
_WARM_UP = 20
_BATCH = 32
_BYTES_PER_CHANNEL = 8
_SIZE_BOUND, _FLOOR_BOUND, _LATENCY_BOUND, _SNAP_BOUND = 1.05, 1.25, 1.00, 5.0
_INTERPRETERS = {"tf.lite": tf.lite.Interpreter, "LiteRT": litert.Interpreter}


def main(argv: list[str]) -> None:
    """Prints sizes, latencies and the time of snapping beside their bounds."""
    del argv
    images = np.random.default_rng(0).normal(size=(_BATCH, 32, 32, 3)).astype("float32")
    net = wrpn_tf.applications.ResNet20(weights=None, keras_flavor="tf_keras")
    net(images, training=True)
    model = wrpn_tf.quantize_model(net, num_bits_weight=2)
    wrpn_tf.calibrate(model, images)
    start = time.perf_counter()
    tflite_export.snap(model)
    report("snap, seconds", time.perf_counter() - start, _SNAP_BOUND)
    files = {"tfmot": tfmot_export(net, images)}
    for storage in ("int8", "int4", "int2"):
        files[storage] = tflite_export.convert(model, storage)
    print("bytes: " + ", ".join(f"{name} {len(blob):,}" for name, blob in files.items()))
    report("bytes, int8 / tfmot", len(files["int8"]) / len(files["tfmot"]), _SIZE_BOUND)
    report("bytes, int2 / floor", len(files["int2"]) / floor_bytes(model), _FLOOR_BOUND)
    for library in _INTERPRETERS:
        ratio = print_latencies(library, files)
        report(f"{library}, int8 / tfmot", ratio, _LATENCY_BOUND)
    files = gated_exports()
    print("MobileNetV3Small, bytes: " + ", ".join(f"{n} {len(b):,}" for n, b in files.items()))
    for library in _INTERPRETERS:
        print(f"{library}, int8 / converter {print_latencies(library, files):.3f}", flush=True)


def gated_exports() -> dict[str, bytes]:
    """Returns the converter's 8-bit file of a MobileNetV3Small, and ours."""
    net = tf_keras.applications.MobileNetV3Small(
        (224, 224, 3), weights=None, include_preprocessing=False
    )
    images = np.random.default_rng(0).normal(size=(_BATCH, 224, 224, 3)).astype("float32")
    wrpn_tf.reestimate_batch_norm(net, images, verbose=False)
    model = wrpn_tf.quantize_model(net, num_bits_weight=2)
    wrpn_tf.calibrate(model, images, verbose=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return {"converter": converter.convert(), "int8": tflite_export.convert(model)}


def tfmot_export(net: Any, images: np.ndarray) -> bytes:
    """Returns tfmot's 8-bit file of a float network, with int8 inputs and outputs."""
    model = tfmot.quantization.keras.quantize_model(net)
    model(images, training=True)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def floor_bytes(model: Any) -> float:
    """Returns parameters * bits / 8 of all weights, and 8 bytes for each output channel."""
    total = 0.0
    for layer in model_graph(model).layers().values():
        for variable, quantizer in weight_quantizers(layer).values():
            size = int(np.prod(variable.shape))
            total += size * quantizer.num_bits / 8 + variable.shape[-1] * _BYTES_PER_CHANNEL
    return total


def print_latencies(library: str, files: dict[str, bytes]) -> float:
    """Times all files on one library's default kernels, XNNPACK, turn by turn.

    Returns:
        The latency of our file in int8 / that of the first file.
    """
    functions = {name: invocation(library, blob) for name, blob in files.items()}
    medians = {
        name: seconds
        for name, (seconds, _) in median_ratios(functions, _ROUNDS.value, _WARM_UP).items()
    }
    print(
        f"{library}, ms: "
        + ", ".join(f"{name} {1e3 * seconds:.3f}" for name, seconds in medians.items())
    )
    return medians["int8"] / medians[next(iter(files))]


def invocation(library: str, blob: bytes) -> Callable[[], object]:
    """Returns a function that runs a file once, on one thread."""
    interpreter = _INTERPRETERS[library](model_content=blob, num_threads=1)
    interpreter.allocate_tensors()
    (details,) = interpreter.get_input_details()
    levels = np.random.default_rng(1).integers(-128, 128, details["shape"])
    interpreter.set_tensor(details["index"], levels.astype(np.int8))
    return interpreter.invoke


def report(what: str, value: float, bound: float) -> None:
    """Prints a figure beside its bound."""
    verdict = "holds" if value <= bound else "MISSED"
    print(f"{what:<24}{value:8.3f}  (bound {bound:.2f}, {verdict})", flush=True)


if __name__ == "__main__":
    app.run(main)
