"""How fast the accelerator's model runs: engine-steps per second, and the time of an image.

    python tests/benchmarks/accelerator_benchmark.py [--rounds=20]

Bounds: the array step by step, at least 1 M engine-steps per second; one image of 32 x 32 pixels
through the layers of a ResNet-20, 2-bit weights and 8-bit first and last layers, with cycles,
at most 0.2 s. Takes ten seconds.
"""

from __future__ import annotations

import functools
import operator
import statistics
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from wrpn_tf import accelerator

_ROUNDS = flags.DEFINE_integer("rounds", 20, "Timed rounds.", lower_bound=1)

_BLOCKS_OF_A_STAGE = 3


def median_seconds(function: Callable[[], object]) -> float:
    """Returns the median time of `rounds` calls, after one to warm up."""
    function()
    times = []
    for _ in range(_ROUNDS.value):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def engine_steps_per_second(dataflow: accelerator.Dataflow) -> float:
    """Runs a 64 x 144 times 144 x 16 product on 8 x 8 engines, step by step."""
    generator = np.random.default_rng(1)
    a = generator.integers(0, 256, (64, 144), dtype=np.uint8)
    b = generator.integers(-1, 2, (144, 16), dtype=np.int8)
    array = accelerator.SystolicArray(dataflow=dataflow)
    steps = array.step_by_step(a, b).cycles * array.rows * array.cols
    return steps / median_seconds(lambda: array.step_by_step(a, b))


def resnet20_convolutions() -> list[tuple[int, int, int, int, int]]:
    """Returns (size, input channels, filters, stride, bits of the weights) of each 3 x 3 layer."""
    layers = [(32, 3, 16, 1, 8)]
    size, channels = 32, 16
    for filters, first_stride in ((16, 1), (32, 2), (64, 2)):
        for index in range(2 * _BLOCKS_OF_A_STAGE):
            stride = first_stride if index == 0 else 1
            layers.append((size, channels, filters, stride, 2))
            size, channels = size // stride, filters
    return layers


def make_image() -> Callable[[], accelerator.Trace]:
    """Returns a function that runs one image through the layers of a ResNet-20."""
    generator = np.random.default_rng(2)
    array = accelerator.SystolicArray()
    operands = []
    for size, channels, filters, stride, num_bits in resnet20_convolutions():
        largest = 2 ** (num_bits - 1) - 1
        levels = generator.integers(0, 256, (1, size, size, channels))
        weights = generator.integers(-largest, largest + 1, (3, 3, channels, filters))
        operands.append((levels, weights, stride, num_bits))
    features = generator.integers(0, 256, (1, 64))
    classifier = generator.integers(-127, 128, (64, 10))

    def run() -> accelerator.Trace:
        traces = []
        for levels, weights, stride, num_bits in operands:
            sums, trace = accelerator.conv2d(
                levels, weights, num_bits=num_bits, array=array, strides=stride, padding="same"
            )
            channels = sums.shape[-1]
            accelerator.requantize(sums, np.full(channels, 1e-3), np.zeros(channels), 0, 255)
            traces.append(trace)
        traces.append(accelerator.dense(features, classifier, num_bits=8, array=array)[1])
        return functools.reduce(operator.add, traces)

    return run


def main(argv: list[str]) -> None:
    """Prints the figures beside their bounds."""
    del argv
    for dataflow in ("os", "ws"):
        rate = engine_steps_per_second(dataflow) / 1e6
        print(f"step by step, {dataflow}: {rate:.1f} M engine-steps/s (bound 1.0)")
    run = make_image()
    trace = run()
    seconds = median_seconds(run)
    print(
        f"one image, ResNet-20: {seconds * 1e3:.1f} ms (bound 200); {trace.macs:,} ternary "
        f"multiply-accumulates, {trace.cycles:,} cycles, utilisation {trace.utilisation:.1%}"
    )


if __name__ == "__main__":
    app.run(main)
