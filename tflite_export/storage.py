"""How a file stores weights: which type, and the largest multiplier that it leaves room for.

A weight n of k bits is at most L = 2**(k-1)-1 (1 for one bit) and is stored as n*M: the larger M,
the finer the kernels' accumulators are against their own rounding.
"""

from __future__ import annotations

import dataclasses

from tflite_export.integer_model import Conv2D, DepthwiseConv2D, FullyConnected, Operation

STORAGES = ("int8", "int4", "int2", "tflm")


@dataclasses.dataclass(frozen=True)
class WeightStorage:
    """How the weights of one operation are stored.

    Attributes:
        num_bits: Of a stored integer: 8, 4 or 2.
        unpacked: Whether the file stores n and its graph computes n*M (DEQUANTIZE, then CAST to
            int8), with one M for all channels; otherwise it stores n*M.
    """

    num_bits: int
    unpacked: bool = False

    @property
    def type_name(self) -> str:
        """The schema's name of the stored type."""
        return f"INT{self.num_bits}"


def check_storage(storage: str) -> None:
    """Raises ValueError unless `storage` is one of `STORAGES`."""
    if storage not in STORAGES:
        raise ValueError(f"`storage` must be one of {', '.join(STORAGES)}, got {storage!r}.")


def weight_storage(storage: str, operation: type[Operation], num_bits: int) -> WeightStorage:
    """Returns how a storage keeps the weights of an operation.

    Args:
        storage: One of `STORAGES`: "int8" keeps n*M in int8. "int4" keeps up to four bits in
            int4, as n*M where the kernels read it right (convolutions, depthwise and dense
            layers; TRANSPOSE_CONV silently computes garbage from it) and unpacked in the graph
            elsewhere. "int2" keeps up to two bits in int2, three and four in int4, both unpacked
            in the graph: CONV_2D with native int2 fails or, per tensor, computes garbage. "tflm"
            is int8.
        operation: `Conv2D`, `DepthwiseConv2D`, `TransposeConv` or `FullyConnected`.
        num_bits: Bits of the weights, 1..8.

    Raises:
        ValueError: If the storage is unknown or the bits are not in 1..8.
    """
    check_storage(storage)
    if not 1 <= num_bits <= 8:
        raise ValueError(f"`num_bits` must be in 1..8, got {num_bits}.")
    if num_bits > 4 or storage in ("int8", "tflm"):
        return WeightStorage(8)
    if storage == "int4":
        native = operation in (Conv2D, DepthwiseConv2D, FullyConnected)
        return WeightStorage(4, unpacked=not native)
    return WeightStorage(2 if num_bits <= 2 else 4, unpacked=True)


def max_multiplier(storage: str, operation: type[Operation], num_bits: int) -> int:
    """Returns the largest M for which n*M fits the type that the kernel reads.

    Args:
        storage: One of `STORAGES`.
        operation: Class of the operation that reads the weights.
        num_bits: Bits of the weights, 1..8.

    Raises:
        ValueError: See `weight_storage`.
    """
    stored = weight_storage(storage, operation, num_bits)
    bits_read = 8 if stored.unpacked else stored.num_bits
    return largest_integer(bits_read) // max(1, largest_integer(num_bits))


def largest_integer(num_bits: int) -> int:
    """Returns the largest integer of so many bits, two's complement."""
    return (1 << (num_bits - 1)) - 1
