"""How a file stores weights: in which form, and the largest multiplier that it leaves room for.

A weight n of k bits is at most L = 2**(k-1)-1 (1 for one bit) and reaches the kernel as n*M: the
larger M, the finer the kernels' accumulators are against their own rounding.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tflite_export.integer_model import Conv2D, DepthwiseConv2D, FullyConnected, Operation

# Storage -> the runtimes that read all of its forms.
RUNTIMES = {
    "int8": ("tf.lite", "LiteRT", "tflite-micro"),
    "int4": ("tf.lite", "LiteRT"),
    "int2": ("tf.lite", "LiteRT"),
    "tflm": ("tflite-micro",),
}
STORAGES = tuple(RUNTIMES)

STORED = "stored"
UNPACKED = "unpacked"
TABLE = "table"

# Accumulator units that should be reachable for each level of the output. A trained layer's values
# use some hundredth of what is reachable, and scales move by up to half a unit per level: by about
# 1 % where this much is reachable, by 10 % and more where a tenth of it is.
_ROOM = 1000
# A channel that has less alone needs an M of its own.
_SMALL_ROOM = 100
# Weights of few bits have a large M. Fewer units per level than this come of few levels that become
# many, and leave the zones in which kernels differ no room between thresholds.
_FEWEST = 4
# Weights of more bits have the small multiplier that int8 leaves them, in every storage.
_LOW_BITS = 4
_LARGEST_SPAN = 255


@dataclasses.dataclass(frozen=True)
class WeightStorage:
    """How the weights of one operation are stored.

    Attributes:
        num_bits: Of a stored integer: 8, 4 or 2; in a table 1..7.
        form: `STORED`: n*M, read by the kernel itself. `UNPACKED`: n, of which the graph makes n*M
            in int8 (DEQUANTIZE, CAST), with one M for all channels. `TABLE`: the index n + L (0
            or 1 for one bit) into the channel's table of n*M, looked up by tflite-micro's DECODE.
    """

    num_bits: int
    form: str = STORED


def check_storage(storage: str) -> None:
    """Raises ValueError unless `storage` is one of `STORAGES`."""
    if storage not in STORAGES:
        raise ValueError(f"`storage` must be one of {', '.join(STORAGES)}, got {storage!r}.")


def weight_storage(storage: str, operation: type[Operation], num_bits: int) -> WeightStorage:
    """Returns how a storage keeps the weights of an operation.

    - "int8" stores n*M in int8.
    - "int4" stores up to four bits in int4, as n*M where all kernels read it right (convolutions,
      depthwise and dense layers). TRANSPOSE_CONV silently computes garbage from int4, so the
      graph unpacks its weights.
    - "int2" stores up to two bits in int2 and three or four in int4, and the graph unpacks both:
      convolutions refuse int2 or, per tensor, silently compute garbage.
    - "tflm" stores up to seven bits as indices into tables.

    More bits than that are stored in int8.

    Args:
        storage: One of `STORAGES`.
        operation: `Conv2D`, `DepthwiseConv2D`, `TransposeConv` or `FullyConnected`.
        num_bits: Bits of the weights, 1..8.

    Raises:
        ValueError: If the storage is unknown or the bits are not in 1..8.
    """
    check_storage(storage)
    if not 1 <= num_bits <= 8:
        raise ValueError(f"`num_bits` must be in 1..8, got {num_bits}.")
    if storage == "tflm" and num_bits < 8:
        return WeightStorage(num_bits, TABLE)
    if storage == "int4" and num_bits <= 4:
        native = operation in (Conv2D, DepthwiseConv2D, FullyConnected)
        return WeightStorage(4, STORED if native else UNPACKED)
    if storage == "int2" and num_bits <= 4:
        return WeightStorage(2 if num_bits <= 2 else 4, UNPACKED)
    return WeightStorage(8)


def max_multiplier(storage: str, operation: type[Operation], num_bits: int) -> int:
    """Returns the largest M for which n*M fits what the kernel reads.

    Args:
        storage: One of `STORAGES`.
        operation: Class of the operation that reads the weights.
        num_bits: Bits of the weights, 1..8.

    Raises:
        ValueError: See `weight_storage`.
    """
    stored = weight_storage(storage, operation, num_bits)
    return _largest_multiplier(stored.num_bits if stored.form == STORED else 8, num_bits)


def multiplier(
    storage: str, operation: type[Operation], num_bits: int, room: float, signed: bool
) -> int:
    """Returns the M with which a layer's weights are stored.

    The largest one, except that a native int4 whose small M leaves the kernels' accumulators too
    coarse for the output's levels gives way to int4 that the graph unpacks, with the M of int8.

    Args:
        storage: One of `STORAGES`.
        operation: Class of the operation that reads the weights.
        num_bits: Bits of the weights, 1..8.
        room: Reachable values of sum(n q), per level of the output, of a typical channel.
        signed: Whether the output has levels below 0.

    Raises:
        ValueError: See `weight_storage`.
    """
    largest = max_multiplier(storage, operation, num_bits)
    stored = weight_storage(storage, operation, num_bits)
    is_small = stored.form == STORED and stored.num_bits < 8
    if is_small and _is_coarse(largest, room, signed):
        return _largest_multiplier(8, num_bits)
    return largest


def channel_multipliers(
    storage: str,
    operation: type[Operation],
    num_bits: int,
    multiplier: int,
    largest_weights: npt.NDArray[np.int64],
    rooms: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """Returns the M with which each channel's weights are stored.

    The layer's; more where int8 has room for it and the channel needs it: one of a few small
    weights reaches so few sums that the nearest good scale would be far.

    Args:
        storage: One of `STORAGES`.
        operation: Class of the operation that reads the weights.
        num_bits: Bits of the weights, 1..8.
        multiplier: The layer's.
        largest_weights: [channels], largest magnitude of each channel's weights.
        rooms: [channels], as `room` for `multiplier`, of each channel.

    Raises:
        ValueError: See `weight_storage`.
    """
    if weight_storage(storage, operation, num_bits) != WeightStorage(8):
        return np.full(rooms.shape, multiplier, np.int64)
    own = largest_weight(8) // np.maximum(largest_weights, 1)
    needed = (rooms * multiplier < _SMALL_ROOM) & (largest_weights > 0)
    return np.where(needed, np.maximum(own, multiplier), multiplier)


def spread(num_bits: int, span: int, room: float, signed: bool) -> int:
    """Returns the power of two by which a file multiplies the levels that a layer reads.

    Where weights of many bits leave M too small for the output's levels, or those levels are far
    finer than any sum, what the weights multiply can take M's place: few levels of an input, spread
    as far as eight bits hold them, make sums multiples of this number, as M does. 1 where there is
    no need, or no room.

    Args:
        num_bits: Bits of the weights, 1..8.
        span: The input's highest level minus its lowest, 1..255.
        room: As for `multiplier`.
        signed: As for `multiplier`.
    """
    largest = _largest_multiplier(8, num_bits)
    is_low = num_bits <= _LOW_BITS
    is_needed = room * largest < _FEWEST if is_low else _is_coarse(largest, room, signed)
    if not is_needed:
        return 1
    return 1 << ((_LARGEST_SPAN // span).bit_length() - 1)


def _is_coarse(largest: int, room: float, signed: bool) -> bool:
    """Whether accumulators of the multiplier M have too few units for each level of the output."""
    return room * largest < _ROOM or (signed and largest == 1)


def _largest_multiplier(bits_read: int, num_bits: int) -> int:
    return ((1 << (bits_read - 1)) - 1) // largest_weight(num_bits)


def largest_weight(num_bits: int) -> int:
    """Returns L, the largest weight of so many bits."""
    return max(1, (1 << (num_bits - 1)) - 1)
