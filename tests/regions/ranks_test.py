"""From importance to ranks at each resolution, against loops over positions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf.regions import RegionPlan, RegionRead, Resolution, ranks
from wrpn_tf.regions.region_plan import FixedRead, axis_uses, tile_size


def importance(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_rank_is_the_number_of_thresholds_reached():
    values = np.array([[[-1.0, 0.0, 0.5, 1.0, 7.0]]], np.float32)
    found = np.asarray(ranks.ranks_from_importance(values, np.float32([0.0, 1.0])))
    np.testing.assert_array_equal(found, [[[0, 1, 1, 2, 2]]])


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.1, 2), (0.5, 10), (0.52, 10), (1.0, 20)])
def test_a_share_of_each_image_is_kept(share, kept):
    values = importance((3, 4, 5))
    thresholds = np.asarray(ranks.kept_thresholds(values, (share,)))
    assert thresholds.shape == (3, 1)
    for image, (threshold,) in zip(values, thresholds, strict=True):
        assert (image >= threshold).sum() == kept


@pytest.mark.parametrize(
    ("values", "share", "kept"),
    [
        ([0, 0, 0, 0], 0.25, 4),  # a constant image is important
        ([0, 0, 0, 1], 0.25, 1),
        ([0, 0, 0, 1], 0.5, 1),  # 1 is nearer to 2 than 4 is
        ([0, 0, 1, 1], 0.75, 4),  # neither is nearer: kept
        ([0, 1, 1, 2], 0.5, 3),
        ([1, 1, 1, 0], 0.25, 3),  # nothing is greater
        ([0, 0, 0, 1], 0.0, 0),
        ([0, 0, 0, 1], 1.0, 4),
    ],
)
def test_equal_values_go_together_the_nearer_way(values, share, kept):
    image = np.float32(values).reshape(1, 2, 2)
    thresholds = ranks.kept_thresholds(image, (share,))
    assert np.asarray(ranks.ranks_from_importance(image, thresholds)).sum() == kept


def slow_resolution(values, tile, image_size, target):
    """The greatest rank under each position's stride, position by position."""
    height, width = target.size
    result = np.zeros((len(values), height, width), np.float32)
    for row, column in np.ndindex(height, width):
        covered = []
        for index, axis in ((row, 0), (column, 1)):
            start = target.offset[axis] + target.stride[axis] * index
            before, after = target.reach[axis]
            last = start + target.stride[axis] + after - 1e-6
            places = range(int(np.floor(start - before)), int(np.floor(last)) + 1)
            covered.append([p for p in places if 0 <= p < image_size[axis]])
        for y in covered[0]:
            for x in covered[1]:
                result[:, row, column] = np.maximum(
                    result[:, row, column], values[:, y // tile, x // tile]
                )
    return result


@pytest.mark.parametrize(
    ("image_size", "tile", "target"),
    [
        ((8, 8), 4, Resolution((1, 1), (0, 0), (8, 8))),
        ((9, 7), 4, Resolution((2, 2), (0, 0), (5, 4))),  # the last window sticks out
        ((9, 7), 2, Resolution((2, 1), (-1, 3), (5, 4))),
        ((8, 8), 1, Resolution((4, 4), (-1, -1), (3, 3))),
        ((8, 8), 2, Resolution((1, 1), (2, 3), (4, 4))),  # cropped
        ((8, 8), 4, Resolution((1, 1), (-2, -2), (12, 12))),  # padded
        ((8, 8), 2, Resolution((0.5, 0.5), (0, 0), (16, 16))),  # upsampled
        ((8, 8), 2, Resolution((0.5, 0.5), (-1, -0.5), (18, 17))),  # and padded
        ((4, 4), 4, Resolution((2, 2), (9, 0), (2, 2))),  # all beyond the image
        ((8, 8), 1, Resolution((2, 2), (0, 0), (4, 4), ((0, 1), (1, 2)))),  # windows overlap
        ((8, 8), 1, Resolution((1, 1), (-1, 1), (8, 7), ((1, 1), (2, 0)))),
        ((8, 8), 1, Resolution((0.5, 0.5), (0, 0), (16, 16), ((0.5, 0), (0, 0.5)))),
    ],
)
def test_the_greatest_rank_under_the_stride_counts(image_size, tile, target):
    rows, columns = (-(-size // tile) for size in image_size)
    values = np.random.default_rng(1).integers(0, 3, (5, rows, columns)).astype(np.float32)
    found = np.asarray(ranks.at_resolution(values, tile, image_size, target))
    np.testing.assert_array_equal(found[..., 0], slow_resolution(values, tile, image_size, target))


@given(
    length=st.integers(1, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["same", "valid"]),
)
@settings(max_examples=60, deadline=None)
def test_every_use_of_a_position_is_counted(length, kernel, stride, dilation, padding):
    reach = (kernel - 1) * dilation + 1
    if padding == "valid" and reach > length:
        return
    outputs = -(-length // stride) if padding == "same" else (length - reach) // stride + 1
    before = max((outputs - 1) * stride + reach - length, 0) // 2 if padding == "same" else 0
    expected = np.zeros(length, int)
    for output in range(outputs):
        for tap in range(kernel):
            expected[min(max(output * stride - before + tap * dilation, 0), length - 1)] += 1
    uses = axis_uses(length, kernel, stride, dilation, padding)
    np.testing.assert_array_equal(uses, expected)
    assert uses.sum() == outputs * kernel


def read(map_index, bits, **changes):
    settings_ = {
        "name": "conv",
        "source": "relu",
        "full_bits": 8,
        "kernel_size": (3, 3),
        "strides": (1, 1),
        "dilation": (1, 1),
        "padding": "same",
        "input_channels": 2,
        "output_channels": 5,
        "groups": 1,
        **changes,
    }
    return RegionRead(map_index=map_index, bits=bits, **settings_)


PLAN = RegionPlan(
    (4, 4),
    (Resolution((1, 1), (0, 0), (4, 4)), Resolution((2, 2), (0, 0), (2, 2))),
    (read(0, (2, 4, 8)), read(0, (4, 4, 8), padding="valid"), read(1, (0, 1, 2), full_bits=2)),
    (FixedRead("dense", 100, 8),),
)


def test_mean_bits_weigh_every_multiply_accumulate():
    maps = [importance((3, *x.size, 1)) for x in PLAN.resolutions]
    maps = [np.clip(np.round(m + 1), 0, 2) for m in maps]
    total, macs = np.full(3, 100 * 8.0), 100
    for entry in PLAN.reads:
        weights = PLAN.macs_at(entry)
        macs += weights.sum()
        bits = np.array(entry.bits)[maps[entry.map_index][..., 0].astype(int)]
        total += (bits * weights).sum((1, 2))
    # "same" of 4x4 and 2x2 positions, "valid" of 2x2 windows; 3 * 3 taps, 2 channels, 5 filters
    assert macs == PLAN.macs == (16 + 4 + 4) * 9 * 2 * 5 + 100
    found = np.asarray(ranks.mean_activation_bits(maps, PLAN))
    np.testing.assert_allclose(found, total / macs, rtol=1e-6)  # float32 sums


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_mean_bits_of_one_rank_everywhere(rank):
    maps = [np.full((1, *x.size, 1), rank, np.float32) for x in PLAN.resolutions]
    found = np.asarray(ranks.mean_activation_bits(maps, PLAN))
    np.testing.assert_allclose(found, [PLAN.mean_bits(rank)], rtol=1e-6)


def test_a_plan_survives_json():
    import json

    assert RegionPlan.from_config(json.loads(json.dumps(PLAN.get_config()))) == PLAN


@pytest.mark.parametrize(("size", "tile"), [((8, 8), 4), ((7, 8), 4), ((28, 28), 1), ((5, 2), 3)])
def test_tiles_are_found(size, tile):
    counts = tuple(-(-length // tile) for length in size)
    assert -(-size[0] // tile_size(size, counts)) == counts[0]


@pytest.mark.parametrize("counts", [(3, 8), (0, 0), (9, 9)])
def test_maps_of_other_shapes_are_refused(counts):
    with pytest.raises(ValueError, match="one value for each square tile of the 8x8 image, got"):
        tile_size((8, 8), counts)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("place", [0.01, 0.3, 0.5, 0.9])
def test_shares_have_the_mean_asked_for(count, place):
    shares = ranks.target_shares(4 + 4 * place, 4.0, 8.0, count)
    assert shares == sorted(shares)
    # The share at rank k or above is 1 - shares[k - 1]; each step is worth 1 / (count - 1).
    mean = sum(1 - share for share in shares) / (count - 1)
    assert mean == pytest.approx(place, abs=2e-3)  # shares keep 1/1000 away from 0 and 1
