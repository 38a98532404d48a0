"""What images cost a network with regions, from their ranks: its layers as the accelerator's."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wrpn_tf.accelerator import (
    ActivationCost,
    ConvolutionShape,
    ImageCosts,
    LayerCosts,
    SystolicArray,
    WindowSums,
    num_planes,
    uniform_costs,
    window_costs,
    window_sums,
)
from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import LayerCall, ModelGraph
from wrpn_tf.quantization.quantize_registry import KERNEL_NAMES, weight_name
from wrpn_tf.quantization.quantized_layers import inner_layer, weight_quantizers
from wrpn_tf.quantization.region_graph import kernel_reads, network_graph
from wrpn_tf.quantization.region_reading import region_layers, region_rule
from wrpn_tf.regions import FixedRead, RegionPlan, RegionRead

_FULL_BITS = 8  # of weights in float: they are counted as the accelerator's widest

# Map, bits by rank, and windows: what layers share whose bits add up to the same.
_Windows: TypeAlias = tuple[int, tuple[int, ...], ConvolutionShape]


@dataclasses.dataclass(frozen=True)
class _Job:
    """One call of a layer with a kernel, as the accelerator runs it.

    Attributes:
        read: What it reads.
        shape: How it reads that.
        size: Height and width of the map.
        planes: Of its weights.
    """

    read: RegionRead | FixedRead
    shape: ConvolutionShape
    size: tuple[int, int]
    planes: int


class RegionCounter:
    """Adds up what images cost a network with regions, batch by batch.

    Args:
        graph: Of a model with regions.
        array: The accelerator; None: 8 x 8 engines, output stationary.

    Raises:
        ValueError: If the model has no regions, or the array is weight stationary.
    """

    def __init__(self, graph: ModelGraph, array: SystolicArray | None = None):
        self._array = SystolicArray() if array is None else array
        if self._array.dataflow != "os":
            raise ValueError(
                "`array` must be output stationary, 'os', for a model with regions, got "
                f"{self._array.dataflow!r}."
            )
        self._graph = graph
        self._plan = region_layers(graph.model)[1].plan
        self._jobs = tuple(_jobs(self._plan, graph))
        self._batches: dict[_Windows, list[WindowSums]] = collections.defaultdict(list)
        self._num_images = 0

    def add(self, ranks: Sequence[npt.NDArray[np.float32]]) -> None:
        """Adds a batch of images.

        Args:
            ranks: At each resolution of the plan, [images, height, width, 1].
        """
        self._num_images += len(ranks[0])
        maps = [np.asarray(x)[..., 0].astype(np.intp) for x in ranks]
        for windows in {_windows(x.read) for x in self._jobs if isinstance(x.read, RegionRead)}:
            map_index, bits, shape = windows
            levels = np.asarray(bits, np.uint8)[maps[map_index]]
            self._batches[windows].append(window_sums(levels, shape, self._array.rows))

    def result(self) -> ImageCosts:
        """Returns what the images cost, in the order that they were added."""
        sums = {windows: _joined(batches) for windows, batches in self._batches.items()}
        return ImageCosts(
            name=self._graph.model.name,
            regions=region_rule(self._graph.model),
            array=self._array,
            layers=tuple(self._layer(job, sums) for job in self._jobs),
        )

    def _layer(self, job: _Job, sums: Mapping[_Windows, WindowSums]) -> LayerCosts:
        read = job.read
        costs: Mapping[str, ActivationCost]
        settings: dict[str, Any] = {"array": self._array, "planes": job.planes}
        if isinstance(read, RegionRead):
            full_bits, bits = read.full_bits, read.bits
            costs = window_costs(
                sums[_windows(read)], job.size, job.shape, full_bits=full_bits, **settings
            )
        else:
            full_bits, bits = read.bits, None
            costs = uniform_costs(
                self._num_images, job.size, job.shape, full_bits=full_bits, **settings
            )
        return LayerCosts(read.name, job.shape.macs(*job.size), full_bits, bits, costs)


def _windows(read: RegionRead) -> _Windows:
    shape = _convolution(read)
    one = dataclasses.replace(shape, input_channels=1, output_channels=1, groups=1)
    return read.map_index, read.bits, one


def _joined(batches: Sequence[WindowSums]) -> WindowSums:
    fields = (field.name for field in dataclasses.fields(WindowSums))
    return WindowSums(*(np.concatenate([getattr(x, name) for x in batches]) for name in fields))


def _jobs(plan: RegionPlan, graph: ModelGraph) -> Iterator[_Job]:
    """Yields the layers with kernels in the order of computation."""
    reads = kernel_reads(graph)
    for call in network_graph(graph).calls:
        read = reads.get(call.outputs[0])
        if isinstance(read, RegionRead):
            size = plan.resolutions[read.map_index].size
            yield _Job(read, _convolution(read), size, _num_planes(call.layer))
        elif read is not None:
            shape = _product(call)
            size = (read.macs // shape.macs(1, 1), 1)
            yield _Job(read, shape, size, _num_planes(call.layer))


def _convolution(read: RegionRead) -> ConvolutionShape:
    names = (field.name for field in dataclasses.fields(ConvolutionShape))
    return ConvolutionShape(**{name: getattr(read, name) for name in names})


def _product(call: LayerCall) -> ConvolutionShape:
    """A layer as a product of matrices, in the accelerator's arrangement."""
    layer = inner_layer(call.layer)
    kernel = _kernel_shape(call.layer)
    if keras_class(layer).startswith("Depthwise"):
        *taps, channels, multiplier = kernel
        return ConvolutionShape(
            input_channels=math.prod(taps), output_channels=multiplier, groups=channels
        )
    if keras_class(layer).endswith("Transpose"):
        *outputs, channels = kernel
        return ConvolutionShape(input_channels=channels, output_channels=math.prod(outputs))
    groups = getattr(layer, "groups", 1)
    *inputs, filters = kernel
    return ConvolutionShape(
        input_channels=math.prod(inputs), output_channels=filters // groups, groups=groups
    )


def _kernel_shape(layer: Any) -> tuple[int, ...]:
    quantized = [variable for variable, _ in weight_quantizers(layer).values()]
    weights = (*quantized, *inner_layer(layer).weights)
    kernel = next(weight for weight in weights if weight_name(weight) in KERNEL_NAMES)
    return tuple(int(size) for size in kernel.shape)


def _num_planes(layer: Any) -> int:
    bits = [quantizer.num_bits for _, quantizer in weight_quantizers(layer).values()]
    return num_planes(int(bits[0]) if bits else _FULL_BITS)
