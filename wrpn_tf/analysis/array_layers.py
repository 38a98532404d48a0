"""What each layer with a kernel costs on the systolic array, from shapes alone: no data is needed.

| layer | M | K | N | groups |
|---|---|---|---|---|
| Dense | positions | input features | units | 1 |
| Conv | output positions | kernel positions * input channels of a group | filters of one | groups |
| depthwise | output positions | kernel positions | multiplier | channels |
| transposed | input positions | input channels | kernel positions * filters | 1 |

M follows from the multiply-accumulates: each value of a kernel is used M times. A separable
convolution is a depthwise one and a Conv of kernel size 1. Costs are the closed forms of
`wrpn_tf.accelerator`, a pass for each group and ternary plane of the weights, of one example.
"""

from __future__ import annotations

import dataclasses
import math

from wrpn_tf.accelerator import SystolicArray, Trace
from wrpn_tf.accelerator.gemm import layer_trace
from wrpn_tf.accelerator.trace import ACCUMULATOR_BITS
from wrpn_tf.analysis.cost import check_profile
from wrpn_tf.analysis.profile import LayerProfile, MACProfile, ModelProfile
from wrpn_tf.model_graph import Shape

# The array's activations have 8 bits; weights have planes of up to 8.
_MAX_BITS = 8


@dataclasses.dataclass(frozen=True)
class ArrayCost:
    """What one kernel of one layer call costs on the array, for one example.

    Attributes:
        path: The layer's name, as in the profile.
        class_name: The layer's class.
        weight: The weight's attribute: "kernel"; "" if the layer is not understood.
        num_bits_activation: Bits of the values that meet the weight; None if unknown.
        num_bits_weight: Bits of the weight; None if unknown.
        trace: Products, cycles and traffic, layer after layer ("drain"); None if the layer does not
            run on the array. SRAM traffic leaves out that a transposed convolution's overlapping
            windows are added up.
        reason: Why the layer does not run on the array; None if it does.
    """

    path: str
    class_name: str
    weight: str
    num_bits_activation: int | None
    num_bits_weight: int | None
    trace: Trace | None
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class RooflinePoint:
    """A layer on the roofline of an array.

    rate = macs / max(cycles, DRAM cycles) <= min(rows * cols, intensity * DRAM bytes per cycle)

    Attributes:
        intensity: Operations per byte that crosses the DRAM's port. An operation is one engine's
            multiply-accumulate; k-bit weights take k - 1 for each product.
        rate: Operations per cycle, DRAM transfers overlapping with the computation.
        dram_cycles: Cycles that the transfers take.
        is_dram_bound: Whether the transfers take longer than the computation.
    """

    intensity: float
    rate: float
    dram_cycles: float
    is_dram_bound: bool


@dataclasses.dataclass(frozen=True)
class _Product:
    """The matrix product of one group; M follows from the count."""

    K: int
    N: int
    groups: int


def array_costs(profile: ModelProfile, array: SystolicArray | None = None) -> tuple[ArrayCost, ...]:
    """Returns what each kernel costs on the array, in the order of computation.

    Layers that multiply nothing are left out. Those that cannot run on the array, for a factor is
    float or what they compute is unknown, are in it with the reason.

    Args:
        profile: A model's profile; `with_bits` makes one of a float model for bits to come.
        array: The accelerator; by default 8 x 8 engines, output stationary.

    Raises:
        TypeError: If an argument is of another type.
    """
    check_profile(profile, "profile")
    chosen = SystolicArray() if array is None else array
    if not isinstance(chosen, SystolicArray):
        raise TypeError(f"`array` must be a SystolicArray, got {type(chosen).__name__}.")
    # A shared layer lists its weights only once.
    kernels = {(x.path, w.name): w.shape for x in profile.layers for w in x.weights}
    costs = []
    for layer in profile.layers:
        if layer.uncounted:
            costs.append(
                ArrayCost(layer.path, layer.class_name, "", None, None, None, layer.uncounted)
            )
        for mac in layer.macs:
            costs.append(_cost(layer, mac, kernels[layer.path, mac.weight], chosen))
    return tuple(costs)


def roofline_point(
    trace: Trace, *, array: SystolicArray, dram_bytes_per_cycle: float
) -> RooflinePoint:
    """Returns where a layer stands on the roofline.

    Args:
        trace: The layer's.
        array: The accelerator that made the trace.
        dram_bytes_per_cycle: Bandwidth of the DRAM, in bytes per cycle of the array.

    Raises:
        TypeError, ValueError: If the bandwidth is not a finite number above 0.

    Source: Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model for
        Multicore Architectures", Communications of the ACM 52 (4), 2009.
    """
    check_bandwidth(dram_bytes_per_cycle)
    num_bytes = (trace.dram.reads + trace.dram.writes) / 8
    dram_cycles = num_bytes / dram_bytes_per_cycle
    return RooflinePoint(
        intensity=trace.macs / num_bytes,
        rate=trace.macs / max(trace.cycles, dram_cycles),
        dram_cycles=dram_cycles,
        is_dram_bound=dram_cycles > trace.cycles,
    )


def check_bandwidth(dram_bytes_per_cycle: float) -> None:
    """Checks a bandwidth.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not finite or not above 0.
    """
    if isinstance(dram_bytes_per_cycle, bool) or not isinstance(dram_bytes_per_cycle, (int, float)):
        raise TypeError(
            f"`dram_bytes_per_cycle` must be a number, got {type(dram_bytes_per_cycle).__name__}."
        )
    if not 0 < dram_bytes_per_cycle < math.inf:
        raise ValueError(
            f"`dram_bytes_per_cycle` must be finite and > 0, got {dram_bytes_per_cycle!r}."
        )


def _cost(
    layer: LayerProfile, mac: MACProfile, shape: tuple[int, ...], array: SystolicArray
) -> ArrayCost:
    product = _product(layer.class_name, mac, shape)
    trace, reason = None, _float_factor(mac)
    if product is None:
        reason = f"{layer.class_name} is not known as a matrix product"
    elif reason is None:
        M = mac.count // (product.K * product.N * product.groups)
        trace = _trace(layer, mac, product, M, array)
    return ArrayCost(
        path=layer.path,
        class_name=layer.class_name,
        weight=mac.weight,
        num_bits_activation=mac.num_bits_activation,
        num_bits_weight=mac.num_bits_weight,
        trace=trace,
        reason=reason,
    )


def _float_factor(mac: MACProfile) -> str | None:
    """Why two factors do not fit the array; None if they do."""
    wide = [
        name
        for name, bits in (
            ("weights", mac.num_bits_weight),
            ("activations", mac.num_bits_activation),
        )
        if bits > _MAX_BITS
    ]
    return f"more than {_MAX_BITS} bits: {' and '.join(wide)}" if wide else None


def _product(name: str, mac: MACProfile, shape: tuple[int, ...]) -> _Product | None:
    """The product of a kernel; None for a layer of another kind."""
    if name == "Dense":
        return _Product(K=shape[0], N=shape[1], groups=1)
    if name in ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"):
        return _Product(K=shape[-1], N=math.prod(shape[:-1]), groups=1)
    is_separable = name in ("SeparableConv1D", "SeparableConv2D")
    if name in ("DepthwiseConv1D", "DepthwiseConv2D") or (
        is_separable and mac.weight == "depthwise_kernel"
    ):
        return _Product(K=math.prod(shape[:-2]), N=shape[-1], groups=shape[-2])
    if is_separable:
        return _Product(K=math.prod(shape[:-1]), N=shape[-1], groups=1)
    if name in ("Conv1D", "Conv2D", "Conv3D"):
        return _Product(K=math.prod(shape[:-1]), N=shape[-1] // mac.groups, groups=mac.groups)
    return None


def _trace(
    layer: LayerProfile, mac: MACProfile, product: _Product, M: int, array: SystolicArray
) -> Trace:
    inputs, outputs = _size(layer.input_shapes[0]), _size(layer.output_shapes[0])
    if mac.weight == "pointwise_kernel":
        inputs = M * product.K  # what the depthwise kernel has made
    trace = layer_trace(array, M, product.N, product.K, product.groups, mac.num_bits_weight, inputs)
    if not layer.class_name.endswith("Transpose"):
        return trace
    # Overlapping windows are added up before they leave.
    dram = dataclasses.replace(trace.dram, accumulator_writes=outputs * ACCUMULATOR_BITS)
    return dataclasses.replace(trace, dram=dram)


def _size(shape: Shape) -> int:
    return math.prod(size for size in shape[1:] if size is not None)
