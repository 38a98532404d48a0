"""Channel groups against a reference that keeps a partner list for every single channel."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from wrpn_tf.widening import channel_groups


def test_tying_equal_groups_leaves_one_atom():
    groups = channel_groups.ChannelGroups()
    first, second = groups.new(8), groups.new(8)
    groups.tie([first], [second])
    assert groups.atoms([second]) == (first,)


def test_tying_a_concatenation_splits_the_whole():
    groups = channel_groups.ChannelGroups()
    left, right, whole = groups.new(24), groups.new(8), groups.new(32)
    groups.tie([left, right], [whole])
    assert groups.atoms([whole]) == (left, right)


def test_tying_overlapping_runs_splits_both():
    groups = channel_groups.ChannelGroups()
    a, b, c, d = groups.new(24), groups.new(8), groups.new(16), groups.new(16)
    groups.tie([a, b], [c, d])
    assert groups.atoms([a, b]) == groups.atoms([c, d])
    assert [groups.size(atom) for atom in groups.atoms([a, b])] == [16, 8, 8]


def test_tying_a_group_with_its_own_halves_terminates():
    groups = channel_groups.ChannelGroups()
    whole, rest = groups.new(64), groups.new(16)
    head = groups.new(48)
    tail = groups.new(16)
    groups.tie([head, tail], [whole])
    groups.tie([rest, head], [whole])  # Channel 16 + i partners channel i: one atom of 16.
    assert groups.atoms([whole]) == groups.atoms([rest]) * 4


def test_tying_runs_of_other_length_is_refused():
    groups = channel_groups.ChannelGroups()
    with pytest.raises(ValueError, match="got 3 and 4 channels"):
        groups.tie([groups.new(3)], [groups.new(4)])


def test_splitting_gives_equal_blocks():
    groups = channel_groups.ChannelGroups()
    a, b = groups.new(4), groups.new(8)
    blocks = groups.split([a, b], 3)
    assert [groups.total(block) for block in blocks] == [4, 4, 4]
    assert groups.atoms([a, b]) == sum(blocks, ())


def test_splitting_into_unequal_blocks_is_refused():
    groups = channel_groups.ChannelGroups()
    with pytest.raises(ValueError, match="10 channels cannot be split into 4"):
        groups.split([groups.new(10)], 4)


def test_splitting_into_single_channels_needs_no_recursion():
    groups = channel_groups.ChannelGroups()
    assert len(groups.split([groups.new(1100)], 1100)) == 1100


@pytest.mark.parametrize("tie_first", [True, False])
def test_a_fixed_group_fixes_its_partner(tie_first):
    groups = channel_groups.ChannelGroups()
    first, second = groups.new(8), groups.new(8)
    if tie_first:
        groups.tie([first], [second])
    groups.freeze([second], "the reason")
    if not tie_first:
        groups.tie([first], [second])
    assert groups.frozen_because(groups.atoms([first])[0]) == "the reason"


def test_the_parts_of_a_fixed_group_are_fixed():
    groups = channel_groups.ChannelGroups()
    whole = groups.new(8)
    groups.freeze([whole], "the reason")
    for block in groups.split([whole], 2):
        assert groups.frozen_because(block[0]) == "the reason"


@hypothesis.given(data=strategies.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_atoms_are_the_partners_of_each_channel(data):
    sizes = data.draw(strategies.lists(strategies.integers(1, 6), min_size=2, max_size=7))
    groups = channel_groups.ChannelGroups()
    names = [groups.new(size) for size in sizes]
    channels = [[(name, i) for i in range(size)] for name, size in zip(names, sizes, strict=True)]
    partner_sets = {channel: {channel} for run in channels for channel in run}
    for _ in range(data.draw(strategies.integers(1, 5))):
        runs = [data.draw(strategies.permutations(range(len(names))))[:2] for _ in range(2)]
        totals = [sum(sizes[i] for i in run) for run in runs]
        if totals[0] != totals[1]:
            continue
        groups.tie([names[i] for i in runs[0]], [names[i] for i in runs[1]])
        flat = [[channel for i in run for channel in channels[i]] for run in runs]
        for left, right in zip(*flat, strict=True):
            union = partner_sets[left] | partner_sets[right]
            partner_sets.update(dict.fromkeys(union, union))
    expanded = {
        (name, i): position
        for name, size in zip(names, sizes, strict=True)
        for i, position in enumerate(_positions(groups, name))
        if i < size
    }
    for channel, position in expanded.items():
        for other, other_position in expanded.items():
            if other in partner_sets[channel]:
                assert position == other_position


def _positions(groups, name):
    """(atom, offset in it) of each channel of a group."""
    return [(atom, i) for atom in groups.atoms([name]) for i in range(groups.size(atom))]
