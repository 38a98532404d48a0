from __future__ import annotations

import numpy as np
import pytest

from tflite_export.integer_model import Conv2D, DepthwiseConv2D, FullyConnected, TransposeConv
from tflite_export.storage import (
    RUNTIMES,
    STORAGES,
    STORED,
    TABLE,
    UNPACKED,
    WeightStorage,
    channel_multipliers,
    check_storage,
    max_multiplier,
    multiplier,
    spread,
    weight_storage,
)

OPERATIONS = (Conv2D, DepthwiseConv2D, TransposeConv, FullyConnected)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("storage", "multipliers"),
    [
        ("int8", [127, 127, 42, 18, 8, 4, 2, 1]),
        ("int2", [127, 127, 42, 18, 8, 4, 2, 1]),
        ("tflm", [127, 127, 42, 18, 8, 4, 2, 1]),
    ],
)
def test_multipliers_fill_eight_bits(storage, multipliers, operation):
    assert [max_multiplier(storage, operation, bits) for bits in range(1, 9)] == multipliers


@pytest.mark.parametrize("operation", [Conv2D, DepthwiseConv2D, FullyConnected])
def test_multipliers_fill_four_bits_where_kernels_read_int4(operation):
    found = [max_multiplier("int4", operation, bits) for bits in range(1, 9)]
    assert found == [7, 7, 2, 1, 8, 4, 2, 1]


@pytest.mark.parametrize(
    ("room", "signed", "num_bits", "expected"),
    [
        (200, False, 2, 7),  # 1400 units per level
        (100, False, 2, 127),  # 700
        (2000, False, 4, 1),
        (2000, True, 4, 18),  # kernels round negative values differently with M = 1
        (200, True, 2, 7),
        (1, True, 8, 1),
    ],
)
def test_native_int4_gives_way_where_its_accumulators_are_coarse(room, signed, num_bits, expected):
    assert multiplier("int4", Conv2D, num_bits, room, signed) == expected
    assert multiplier("int8", Conv2D, num_bits, room, signed) == max_multiplier(
        "int8", Conv2D, num_bits
    )


@pytest.mark.parametrize(
    ("num_bits", "span", "room", "signed", "expected"),
    [
        (8, 3, 999, False, 64),
        (8, 3, 1000, False, 1),
        (8, 3, 5000, True, 64),  # kernels round negative values differently with M = 1
        (7, 3, 5000, True, 1),
        (7, 3, 499, True, 64),  # M = 2: 998 units per level
        (5, 3, 124, False, 64),  # M = 8
        (4, 3, 1, True, 1),  # has an M of its own, 18
        (4, 3, 0.2, True, 64),  # which is less than four units per level here
        (2, 3, 3 / 255, True, 64),  # 2-bit levels rounded to 8-bit ones
        (2, 3, 9 / 255, True, 1),
        (8, 255, 1, True, 1),
        (8, 127, 1, True, 2),
        (8, 128, 1, True, 1),
    ],
)
def test_few_levels_are_spread_where_accumulators_are_coarse(
    num_bits, span, room, signed, expected
):
    assert spread(num_bits, span, room, signed) == expected


def test_levels_are_spread_as_far_as_eight_bits_hold_them():
    for span in range(1, 256):
        found = spread(8, span, room=1, signed=True)
        assert found * span <= 255 < 2 * found * span
        assert found.bit_count() == 1


@pytest.mark.parametrize(
    ("storage", "operation", "num_bits", "expected"),
    [
        ("int8", Conv2D, 2, WeightStorage(8, STORED)),
        ("int4", Conv2D, 4, WeightStorage(4, STORED)),
        ("int4", Conv2D, 5, WeightStorage(8, STORED)),
        ("int4", TransposeConv, 4, WeightStorage(4, UNPACKED)),
        ("int2", FullyConnected, 1, WeightStorage(2, UNPACKED)),
        ("int2", DepthwiseConv2D, 2, WeightStorage(2, UNPACKED)),
        ("int2", Conv2D, 3, WeightStorage(4, UNPACKED)),
        ("int2", Conv2D, 5, WeightStorage(8, STORED)),
        ("tflm", Conv2D, 3, WeightStorage(3, TABLE)),
        ("tflm", Conv2D, 8, WeightStorage(8, STORED)),
    ],
)
def test_forms_of_weights(storage, operation, num_bits, expected):
    assert weight_storage(storage, operation, num_bits) == expected


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("num_bits", [0, 9])
def test_refuses_other_bits(storage, num_bits):
    with pytest.raises(ValueError, match=rf"`num_bits` must be in 1\.\.8, got {num_bits}"):
        max_multiplier(storage, Conv2D, num_bits)


def test_refuses_an_unknown_storage():
    for function in (check_storage, lambda storage: weight_storage(storage, Conv2D, 2)):
        with pytest.raises(ValueError, match="one of int8, int4, int2, tflm, got 'int3'"):
            function("int3")


def test_every_storage_has_a_runtime():
    assert STORAGES == ("int8", "int4", "int2", "tflm")
    assert all(RUNTIMES.values())


@pytest.mark.parametrize(
    ("storage", "num_bits", "expected"),
    [
        ("int8", 8, [63, 1, 1, 1]),
        ("int4", 8, [63, 1, 1, 1]),
        ("tflm", 8, [63, 1, 1, 1]),
        ("tflm", 7, [1, 1, 1, 1]),  # tables of all levels
        ("int2", 2, [1, 1, 1, 1]),  # unpacked with one M
    ],
)
def test_a_channel_of_small_weights_that_reaches_few_sums_gets_its_own(storage, num_bits, expected):
    largest, rooms = np.array([2, 2, 127, 0]), np.array([99.0, 100.0, 1.0, 0.0])
    found = channel_multipliers(storage, Conv2D, num_bits, 1, largest, rooms)
    assert found.tolist() == expected
