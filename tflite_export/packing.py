"""Integers of two and four bits in bytes, as TFLite stores them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pack(integers: npt.ArrayLike, num_bits: int) -> npt.NDArray[np.uint8]:
    """Returns integers in as few bytes as they fit, the first in a byte's lowest bits.

    Two's complement, in C order; rows do not begin at a byte, and unused bits at the end are 0:
    pack([1, -1, 0, -2], 2) is [0x8D], pack([1, -1], 4) is [0xF1].

    Args:
        integers: Values of -2**(num_bits-1)..2**(num_bits-1)-1, any shape.
        num_bits: 2, 4 or 8.

    Raises:
        ValueError: If num_bits is another number, or a value does not fit.
    """
    per_byte = _integers_per_byte(num_bits)
    flat = np.asarray(integers).reshape(-1)
    half = 2 ** (num_bits - 1)
    if flat.size and (flat.min() < -half or flat.max() > half - 1):
        raise ValueError(
            f"`integers` must be in {-half}..{half - 1} to be packed in {num_bits} bits, "
            f"got {flat.min()}..{flat.max()}."
        )
    padded = np.zeros(-(-flat.size // per_byte) * per_byte, np.uint8)
    padded[: flat.size] = flat.astype(np.int64) & (2**num_bits - 1)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(num_bits)
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(
        padded.reshape(-1, per_byte) << shifts, axis=1
    )
    return packed


def unpack(
    packed: npt.NDArray[np.uint8], num_bits: int, shape: tuple[int, ...]
) -> npt.NDArray[np.int8]:
    """Returns the integers that `pack` packed.

    Args:
        packed: uint8 bytes.
        num_bits: 2, 4 or 8.
        shape: Of the result.

    Raises:
        ValueError: If num_bits is another number, or the bytes are not as many as the shape needs.
    """
    per_byte = _integers_per_byte(num_bits)
    count = int(np.prod(shape, dtype=np.int64))
    if packed.size != -(-count // per_byte):
        raise ValueError(
            f"`packed` must hold {-(-count // per_byte)} bytes for {count} integers of {num_bits} "
            f"bits, got {packed.size}."
        )
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(num_bits)
    bits = ((packed.reshape(-1, 1) >> shifts) & np.uint8(2**num_bits - 1)).astype(np.int16)
    signed = np.where(bits >= 2 ** (num_bits - 1), bits - 2**num_bits, bits)
    return signed.reshape(-1)[:count].reshape(shape).astype(np.int8)


def pack_indices(indices: npt.NDArray[np.uint8], num_bits: int) -> npt.NDArray[np.uint8]:
    """Returns indices of 1..8 bits in as few bytes as they fit, as tflite-micro's tables read them.

    The first is in a byte's highest bits, one may span two bytes, and unused bits are 0:
    pack_indices([1, 2, 0, 3], 2) is [0x63].

    Raises:
        ValueError: If an index does not fit.
    """
    flat = np.ascontiguousarray(indices).reshape(-1)
    if flat.size and flat.max() >> num_bits:
        raise ValueError(f"`indices` must fit {num_bits} bits, got {flat.max()}.")
    bits = np.unpackbits(flat.reshape(-1, 1), axis=1)[:, 8 - num_bits :]
    return np.packbits(bits)


def _integers_per_byte(num_bits: int) -> int:
    if num_bits not in (2, 4, 8):
        raise ValueError(f"`num_bits` must be 2, 4 or 8, got {num_bits}.")
    return 8 // num_bits
