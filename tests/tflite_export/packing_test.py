from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_export.packing import pack, pack_indices, unpack


@pytest.mark.parametrize(
    ("integers", "num_bits", "packed"),
    [
        ([1, -1, 0, -2], 2, [0x8D]),
        ([1, -1], 4, [0xF1]),
        ([1, -1, 1, 1, -1], 2, [0b01011101, 0b11]),
        ([-8, 7, -1], 4, [0x78, 0x0F]),
        ([-128, 127], 8, [0x80, 0x7F]),
        ([], 2, []),
    ],
)
def test_packs_the_first_integer_in_the_lowest_bits(integers, num_bits, packed):
    result = pack(np.array(integers, np.int8), num_bits)
    assert result.dtype == np.uint8
    assert result.tolist() == packed


def _packed_one_by_one(integers: list[int], num_bits: int) -> list[int]:
    """The same by the bits of one large number."""
    number = sum((value % 2**num_bits) << (num_bits * i) for i, value in enumerate(integers))
    return list(number.to_bytes(-(-num_bits * len(integers) // 8), "little"))


@settings(derandomize=True, deadline=None)
@given(st.data(), st.sampled_from([2, 4, 8]))
def test_packs_like_one_large_number_and_unpacks_to_the_same(data, num_bits):
    half = 2 ** (num_bits - 1)
    integers = data.draw(st.lists(st.integers(-half, half - 1), max_size=40))
    packed = pack(np.array(integers, np.int8), num_bits)
    assert packed.tolist() == _packed_one_by_one(integers, num_bits)
    assert unpack(packed, num_bits, (len(integers),)).tolist() == integers


def test_packs_in_c_order_and_rows_share_bytes():
    integers = np.array([[1, 0, -1], [0, 1, 1]], np.int8)
    packed = pack(np.asfortranarray(integers), 2)
    assert packed.tolist() == [0b00110001, 0b0101]
    assert unpack(packed, 2, (2, 3)).tolist() == integers.tolist()


def test_refuses_other_widths():
    with pytest.raises(ValueError, match="`num_bits` must be 2, 4 or 8, got 3"):
        pack([1], 3)
    with pytest.raises(ValueError, match="`num_bits` must be 2, 4 or 8, got 16"):
        unpack(np.zeros(1, np.uint8), 16, (1,))


@pytest.mark.parametrize("value", [2, -3])
def test_refuses_an_integer_that_does_not_fit(value):
    with pytest.raises(ValueError, match=r"-2\.\.1 to be packed in 2 bits"):
        pack([0, value], 2)


def test_refuses_too_few_or_too_many_bytes():
    with pytest.raises(ValueError, match="2 bytes for 5 integers of 2 bits, got 1"):
        unpack(np.zeros(1, np.uint8), 2, (5,))
    with pytest.raises(ValueError, match="1 bytes for 2 integers of 4 bits, got 2"):
        unpack(np.zeros(2, np.uint8), 4, (2,))


def test_packs_indices_from_the_highest_bits():
    assert pack_indices(np.array([1, 2, 0, 3], np.uint8), 2).tolist() == [0b01100011]
    assert pack_indices(np.array([[5], [6], [7]], np.uint8), 3).tolist() == [0b10111011, 0b10000000]


@settings(derandomize=True, deadline=None)
@given(st.data(), st.integers(1, 8))
def test_packs_indices_like_a_string_of_bits(data, num_bits):
    indices = data.draw(st.lists(st.integers(0, 2**num_bits - 1), max_size=40))
    bits = "".join(f"{index:0{num_bits}b}" for index in indices)
    bits += "0" * (-len(bits) % 8)
    expected = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert pack_indices(np.array(indices, np.uint8), num_bits).tolist() == expected


def test_refuses_an_index_that_does_not_fit():
    with pytest.raises(ValueError, match="`indices` must fit 2 bits, got 4"):
        pack_indices(np.array([0, 4], np.uint8), 2)
