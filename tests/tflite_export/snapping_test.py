"""Scales and biases at which all kernels round alike."""

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_export.requantization import ALL_KERNELS, KERNELS, exact_levels, requantize
from tflite_export.snapping import Channels, Rounding, snap_channels, snap_output_scale
from tflite_export.snapping_check import check

FAN_INS = (9, 27, 144, 576, 4608)
BITS = range(1, 9)


def largest_weight(num_bits):
    return max(1, 2 ** (num_bits - 1) - 1)


def problem(weight_bits, level_bits, fan_in, *, signed=False, limit=127, num_channels=12, seed=0):
    """Channels of random weights whose results spread over the output's grid, as a batch norm's."""
    random = np.random.default_rng([weight_bits, level_bits, fan_in, signed, limit, seed])
    largest = largest_weight(weight_bits)
    weights = random.normal(size=(num_channels, fan_in)) * largest / 2.5
    n = np.clip(np.round(weights), -largest, largest) if weight_bits > 1 else np.sign(weights)
    high = 2**level_bits - 1
    low, top = (-(2 ** (level_bits - 1)), 2 ** (level_bits - 1) - 1) if signed else (0, high)
    deviation = np.sqrt((n**2).sum(1) * (high**2 / 8) + 1)
    scale = high / (deviation * random.uniform(2, 6, num_channels))
    offset = random.uniform(-0.5, 0.5, num_channels) * high * (0.2 if signed else 1)
    channels = Channels(
        (np.minimum(n, 0).sum(1) * high).astype(np.int64),
        (np.maximum(n, 0).sum(1) * high).astype(np.int64),
        scale,
        offset,
    )
    source, target = random.uniform(0.001, 0.05, 2).astype(np.float32)
    return channels, Rounding(source, target, low, top, limit // largest)


def adopted(channels, snapped, factor=1.0):
    return dataclasses.replace(
        channels, scale=snapped.scale * factor, offset=snapped.offset * factor
    )


def assert_same_file(first, second):
    for name in ("multiplier", "weight_scale", "bias"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)


def wrong_levels(channels, rounding, snapped, kernels=KERNELS):
    """Counts, one by one over all accumulators, where a kernel differs from the rule."""
    wrong = np.zeros(channels.scale.size, np.int64)
    for c in range(wrong.size):
        a = np.arange(channels.smallest[c], channels.largest[c] + 1)
        rule = np.clip(
            exact_levels(a, snapped.scale[c], snapped.offset[c]), rounding.low, rounding.high
        )
        for kernel in kernels:
            level = requantize(
                kernel,
                rounding.kind,
                snapped.multiplier[c] * a + snapped.bias[c],
                rounding.input_scale,
                snapped.weight_scale[c],
                rounding.output_scale,
            )
            wrong[c] += np.count_nonzero(np.clip(level, rounding.low, rounding.high) != rule)
    return wrong


# M is 127 // L, or 7 // L in four bits; signed outputs need M > 1.
SOLVABLE = [
    (weight_bits, signed, limit)
    for limit in (127, 7)
    for signed in (False, True)
    for weight_bits in BITS
    if limit // largest_weight(weight_bits) >= 1 + signed
]


@pytest.mark.parametrize(("weight_bits", "signed", "limit"), SOLVABLE)
def test_all_channels_are_exact_and_stay_where_they_are(weight_bits, signed, limit):
    random = np.random.default_rng(weight_bits)
    for level_bits in range(2 if signed else 1, 9):
        for fan_in in FAN_INS:
            channels, rounding = problem(
                weight_bits, level_bits, fan_in, signed=signed, limit=limit
            )
            snapped = snap_channels(channels, rounding)
            if not snapped.exact.all():
                assert limit == 7, (level_bits, fan_in)
                assert fan_in < 144, (level_bits, fan_in)
                # One level is a few units only: the nearest good scale may be too far away.
                assert np.abs(snapped.scale_move).max() < 0.18  # 1 / 0.85
                assert (np.abs(snapped.scale_move[~snapped.exact]) < 1e-3).all()  # ten bits of D
                continue
            if limit == 127 or fan_in >= 144:
                assert np.abs(snapped.scale_move).max() < 0.07
            # What float32's gamma and beta, and folding them, may change.
            noise = 1 + random.uniform(-1e-7, 1e-7, channels.scale.size)
            again = snap_channels(adopted(channels, snapped, noise), rounding)
            assert_same_file(again, snapped)
            # A file is written from the model's own, slightly different, values.
            written = snap_channels(
                adopted(channels, snapped, noise),
                rounding,
                scale_is_free=False,
                offset_is_free=False,
            )
            assert_same_file(written, snapped)
            assert written.exact.all()
            np.testing.assert_array_equal(written.offset, snapped.offset * noise)


@pytest.mark.parametrize(
    ("weight_bits", "level_bits", "median_move", "least_margin"),
    [
        (2, 2, 0.0005, 1e-4),
        (2, 4, 0.001, 2e-5),
        (2, 8, 0.001, 2e-6),
        (3, 3, 0.001, 2e-5),
        (4, 4, 0.001, 1e-5),
        (4, 8, 0.002, 3e-7),
        (6, 6, 0.002, 1e-6),
        (7, 7, 0.002, 4e-7),
        (8, 8, 0.002, 1e-7),
    ],
)
def test_moves_are_small_and_margins_wide(weight_bits, level_bits, median_move, least_margin):
    results = [
        snap_channels(*problem(weight_bits, level_bits, fan_in, num_channels=60))
        for fan_in in FAN_INS
    ]
    moves = np.abs(np.concatenate([r.scale_move for r in results]))
    assert np.median(moves) < median_move
    assert np.mean(moves > 0.03) < 0.01
    assert min(r.relative_margin.min() for r in results) > least_margin


@pytest.mark.parametrize("kind", ["conv", "fully_connected", "fully_connected_per_tensor"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("weight_bits", [1, 2, 3, 4, 7, 8])
def test_exact_is_what_all_accumulators_one_by_one_say(weight_bits, signed, kind):
    for level_bits in (2, 4, 8):
        channels, rounding = problem(weight_bits, level_bits, 18, signed=signed, num_channels=4)
        rounding = dataclasses.replace(rounding, kind=kind, kernels=ALL_KERNELS)
        snapped = snap_channels(channels, rounding)
        wrong = wrong_levels(channels, rounding, snapped, ALL_KERNELS)
        np.testing.assert_array_equal(wrong == 0, snapped.exact)
        assert snapped.exact.all() or (signed and weight_bits == 8)


def test_the_file_s_own_scale_and_bias_follow_the_rule_too():
    """Rounding the adopted offset gives B, and the rule with B itself gives the same levels."""
    for weight_bits in BITS:
        channels, rounding = problem(weight_bits, 8, 9)
        snapped = snap_channels(channels, rounding)
        level = np.float64(rounding.input_scale) * snapped.weight_scale.astype(np.float64)
        level /= np.float64(rounding.output_scale)
        moving = snapped.multiplier > 0
        bias = np.floor(snapped.offset / level + 0.5)
        np.testing.assert_array_equal(bias[moving], snapped.bias[moving])
        own = dataclasses.replace(
            channels,
            scale=np.where(moving, snapped.multiplier * level, snapped.scale),
            offset=np.where(moving, snapped.bias * level, snapped.offset),
        )
        found = check(own, rounding, snapped.multiplier, snapped.weight_scale, snapped.bias)
        assert found.exact.all()


def test_plainly_rounded_scales_are_not_exact():
    """The solver is needed: without it, the kernels differ in most channels of 8-bit levels."""
    channels, rounding = problem(2, 8, 144, num_channels=40)
    unit = rounding.multiplier / channels.scale
    scale = (rounding.output_scale / (rounding.input_scale * unit)).astype(np.float32)
    multiplier = np.full(40, rounding.multiplier)
    found = check(
        channels, rounding, multiplier, scale, np.round(channels.offset * unit).astype(np.int64)
    )
    assert np.count_nonzero(found.exact) < 10


@pytest.mark.parametrize(
    "corruption",
    [
        {"bias": lambda x, m: x + m},
        {"bias": lambda x, m: x - m},
        {"weight_scale": lambda x, m: (x * 1.01).astype(np.float32)},
        {"multiplier": lambda x, m: x + 1},
        {"scale": lambda x, m: x * 0.99},
        {"offset": lambda x, m: x + 0.1},
    ],
)
@pytest.mark.parametrize("weight_bits", [2, 4, 7, 8])
def test_the_check_notices_a_change_of_any_quantity(weight_bits, corruption):
    channels, rounding = problem(weight_bits, 8, 144)
    snapped = snap_channels(channels, rounding)
    ((name, change),) = corruption.items()
    changed = dataclasses.replace(
        snapped, **{name: change(getattr(snapped, name), snapped.multiplier)}
    )
    found = check(
        adopted(channels, changed),
        rounding,
        changed.multiplier,
        changed.weight_scale,
        changed.bias,
    )
    assert snapped.exact.all()
    assert not found.exact.any()


def test_signed_outputs_of_eight_bit_weights_are_reported():
    """REF rounds halves away from zero, OPT up: with M = 1 no channel serves both."""
    channels, rounding = problem(8, 8, 144, signed=True)
    for kind in ("conv", "fully_connected"):
        snapped = snap_channels(channels, dataclasses.replace(rounding, kind=kind))
        assert not snapped.exact.any()
        assert np.abs(snapped.scale_move).max() < 0.01
    # Where only levels above 0 can be reached, they agree.
    positive = dataclasses.replace(
        channels, smallest=np.zeros_like(channels.smallest), offset=np.ones(12)
    )
    assert snap_channels(positive, rounding).exact.all()


def test_constant_channels():
    """No weights; a scale of 0; a scale so small that no level is reached, with any offset."""
    channels = Channels(
        smallest=[0, -500, -500, -500, 0],
        largest=[0, 500, 500, 500, 0],
        scale=[0.3, 0.0, 1e-12, 0.0, 0.0],
        offset=[3.3, 7.5, -1e9, 1e6, -0.5],
    )
    rounding = Rounding(np.float32(0.01), np.float32(0.02), 0, 255, 127)
    snapped = snap_channels(channels, rounding)
    assert snapped.exact.all()
    assert snapped.multiplier.tolist() == [0, 0, 0, 0, 0]
    np.testing.assert_array_equal(snapped.scale, channels.scale)
    level = exact_levels(0, snapped.scale, snapped.offset)
    assert np.clip(level, 0, 255).tolist() == [3, 8, 0, 255, 0]
    assert np.abs(snapped.offset_move).max() < 2e-4
    assert (wrong_levels(channels, rounding, snapped) == 0).all()
    assert_same_file(snap_channels(adopted(channels, snapped), rounding), snapped)


def test_channels_that_reach_no_threshold():
    channels = Channels([-10, -10], [10, 10], [0.01, 0.01], [3.0, -40.0])
    rounding = Rounding(np.float32(0.01), np.float32(0.02), 0, 15, 127)
    snapped = snap_channels(channels, rounding)
    assert snapped.exact.all()
    assert snapped.multiplier.tolist() == [127, 127]
    # The next thresholds are 2.5 and 0.5, half a level and 40.5 from the offsets.
    levels = snapped.margin * snapped.scale / 127
    np.testing.assert_allclose(levels, [0.5 - 0.1, 40.5 - 0.1], atol=0.02)  # what may move


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    smallest=st.integers(-(10**7), 0),
    largest=st.integers(0, 10**7),
    scale=st.floats(1e-9, 5),
    offset=st.floats(-1e4, 1e4),
    low=st.sampled_from([0, 0, -2, -8, -128]),
    levels=st.sampled_from([1, 3, 15, 255]),
    limit=st.sampled_from([1, 2, 4, 8, 18, 42, 127]),
)
def test_any_channel_is_solved_or_reported(smallest, largest, scale, offset, low, levels, limit):
    channels = Channels([smallest], [largest], [scale], [offset])
    rounding = Rounding(np.float32(0.013), np.float32(0.017), low, max(low + levels, 1), limit)
    snapped = snap_channels(channels, rounding)
    assert np.abs(snapped.bias).max() < 2**31
    if snapped.exact.all():
        again = snap_channels(adopted(channels, snapped), rounding)
        assert_same_file(again, snapped)


@pytest.mark.parametrize("offset_is_free", [True, False])
@pytest.mark.parametrize(("weight_bits", "level_bits"), [(2, 8), (4, 4), (7, 8), (8, 8)])
def test_one_output_scale_for_all_channels(weight_bits, level_bits, offset_is_free):
    channels, rounding = problem(weight_bits, level_bits, 144)
    channels = dataclasses.replace(
        channels,
        scale=np.full(12, channels.scale[0]),
        offset=channels.offset * offset_is_free,
    )
    scale, snapped = snap_output_scale(channels, rounding, offset_is_free=offset_is_free)
    moved = dataclasses.replace(rounding, output_scale=scale)
    assert snapped.exact.all()
    assert len(set(snapped.weight_scale)) == 1
    assert abs(float(scale) / float(rounding.output_scale) - 1) < 0.01
    if weight_bits < 8:
        assert (wrong_levels(channels, moved, snapped) == 0).all()
    if not offset_is_free:
        np.testing.assert_array_equal(snapped.offset, 0)
    real = channels.scale * (float(rounding.output_scale) / float(scale))
    again = dataclasses.replace(channels, scale=real, offset=snapped.offset)
    same, second = snap_output_scale(again, moved, offset_is_free=offset_is_free)
    assert same == scale
    assert_same_file(second, snapped)


def test_a_filter_of_zeros_leaves_the_others_their_multiplier():
    channels, rounding = problem(2, 8, 144, signed=True)
    smallest, largest = channels.smallest.copy(), channels.largest.copy()
    smallest[0] = largest[0] = 0
    channels = dataclasses.replace(
        channels, smallest=smallest, largest=largest, scale=np.full(12, channels.scale[0])
    )
    _, snapped = snap_output_scale(channels, rounding)
    assert snapped.exact.all()
    assert (snapped.multiplier == rounding.multiplier).all()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("weight_bits", [2, 4, 8])
def test_the_output_scale_stays_below_the_largest(weight_bits, seed):
    channels, rounding = problem(weight_bits, 8, 27, seed=seed)
    channels = dataclasses.replace(channels, scale=np.full(12, channels.scale[0]))
    scale, snapped = snap_output_scale(channels, rounding, largest=float(rounding.output_scale))
    assert snapped.exact.all()
    assert 0.9 < float(scale) / float(rounding.output_scale) <= 1


@pytest.mark.parametrize("fan_in", [9, 16])
def test_scales_move_about_the_real_zero(fan_in):
    """Of levels from 0 on that a shift will lower by 100: it stays within a unit's level or two."""
    channels, rounding = problem(8, 8, fan_in)
    zero = np.full_like(channels.offset, 100.0)
    channels = dataclasses.replace(channels, offset=zero)
    rounding = dataclasses.replace(rounding, zero=100)
    snapped = snap_channels(channels, rounding)
    assert np.abs(snapped.scale_move).max() > 1e-3
    assert (np.abs(snapped.offset - 100) <= 2 * snapped.scale).all()
    with_shift = dataclasses.replace(
        rounding, output_scale=np.float32(1.003) * rounding.output_scale
    )
    one = dataclasses.replace(channels, scale=np.full_like(zero, channels.scale.max()))
    _, moved = snap_output_scale(one, with_shift)
    assert (np.abs(moved.offset - 100) <= 2 * moved.scale).all()


@pytest.mark.parametrize("low", [0, -128])
@pytest.mark.parametrize("window", [4, 9, 16, 36, 49, 64])
def test_average_pooling(window, low):
    """Weights 1, no offset: exact at the input's own scale, and with a margin at one nearby."""
    channels = Channels([window * low], [window * (low + 255)], [1 / window], [0.0])
    rounding = Rounding(np.float32(0.0123), np.float32(0.0123), low, low + 255, 127)
    fixed = snap_channels(channels, rounding, scale_is_free=False, offset_is_free=False)
    assert fixed.exact.all()
    assert (wrong_levels(channels, rounding, fixed) == 0).all()
    assert (fixed.scale, fixed.offset) == (1 / window, 0)
    # A mean of an even number of levels can be a tie.
    assert (fixed.margin[0] > 0) == (window % 2 == 1)

    scale, free = snap_output_scale(channels, rounding, offset_is_free=False)
    assert free.exact.all()
    assert free.relative_margin[0] > 1.5e-6
    assert abs(float(scale) / 0.0123 - 1) < 0.02


@pytest.mark.parametrize("levels_of_one", [70.4, 91.74, 126.6, 150.2])
def test_few_levels_rounded_to_many_keep_their_scale(levels_of_one):
    """As where a concatenation joins a 2-bit tensor with one of 8 bits; 64 is the spread."""
    channels = Channels([-1], [2], [levels_of_one], [0.0])
    rounding = Rounding(np.float32(0.75), np.float32(0.0082), -65, 190, 127 * 64, spread=64)
    scale, snapped = snap_output_scale(channels, rounding, offset_is_free=False)
    assert snapped.exact.all()
    # The nearest scale of a whole number of levels.
    assert abs(float(scale) / 0.0082 - 1) < 0.6 / levels_of_one
    moved = dataclasses.replace(rounding, output_scale=scale)
    assert wrong_levels(channels, moved, snapped) == 0


def test_fixed_scales_with_few_levels():
    channels, rounding = problem(2, 2, 144)
    snapped = snap_channels(channels, rounding, scale_is_free=False)
    assert snapped.exact.all()
    np.testing.assert_array_equal(snapped.scale, channels.scale)
    assert np.abs(snapped.offset_move).max() < 1
    again = snap_channels(adopted(channels, snapped), rounding, scale_is_free=False)
    assert_same_file(again, snapped)


@pytest.mark.parametrize(("weight_bits", "signed"), [(2, False), (8, False), (8, True)])
def test_a_large_layer_takes_less_than_three_seconds(weight_bits, signed):
    channels, rounding = problem(weight_bits, 8, 576, num_channels=700, signed=signed)
    one_scale = dataclasses.replace(channels, scale=np.full(700, channels.scale[0]))
    start = time.process_time()
    snapped = snap_channels(channels, rounding)
    snap_output_scale(one_scale, rounding)
    # 0.3 s on the machine on which this was written.
    assert time.process_time() - start < 3
    assert snapped.exact.all() != signed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0], [1], [-0.1], [0]), "`scale` must be finite and >= 0, got -0.1"),
        (([0], [1], [np.nan], [0]), "`scale` must be finite"),
        (([0], [1], [0.1], [np.inf]), "`offset` must be finite"),
        (([2], [1], [0.1], [0]), "`smallest` must not exceed `largest`"),
        (([0], [1], [0.1, 0.2], [0]), r"`scale` must have one value per channel, \(1,\), got"),
    ],
)
def test_bad_channels_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Channels(*arguments)


def test_bad_roundings_are_refused():
    channels, rounding = problem(2, 4, 9)
    with pytest.raises(ValueError, match="`rounding.multiplier` must be >= 1, got 0"):
        snap_channels(channels, dataclasses.replace(rounding, multiplier=0))
    with pytest.raises(ValueError, match="must be one positive number for all channels"):
        snap_output_scale(channels, rounding)
