"""Which channels must agree in number: union-find over groups that can also be split.

A layer that makes channels opens a group. Adding two tensors ties their groups; concatenating them
lines groups up. When a concatenation of 24 and 8 channels is added to a convolution's 32, that
convolution's group is split into 24 and 8 first, so every channel keeps one partner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Part:
    """A run of channels along a tensor's axis.

    Position `(tile * channels + channel) * inner + i`, so that `length == tiles * channels * inner`
    where `channels` is the groups' sizes added up.

    Attributes:
        groups: The groups whose channels stand one after the other.
        tiles: How often the run is repeated: a flattened 7x7 map has 49.
        inner: How often each channel is repeated on the spot: a depth multiplier of 2 has 2.
    """

    groups: tuple[int, ...]
    tiles: int = 1
    inner: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether each channel stands exactly once."""
        return self.tiles == 1 and self.inner == 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """The axis of a tensor along which channels stand, and which channels they are.

    Attributes:
        axis: The axis, counted from 0 with the batch.
        parts: The channels along it.
    """

    axis: int
    parts: tuple[Part, ...]

    @property
    def groups(self) -> tuple[int, ...]:
        """All groups in it."""
        return tuple(group for part in self.parts for group in part.groups)

    @property
    def is_plain(self) -> bool:
        """Whether every channel stands exactly once, so that it can be tied channel by channel."""
        return all(part.is_plain for part in self.parts)

    def moved(self, axis: int) -> Layout:
        """The same channels along another axis."""
        return Layout(axis, self.parts)


class ChannelGroups:
    """Union-find over channel groups that may be split.

    A group is named by an integer for good. What it consists of now are its *atoms*: groups that
    are neither tied into another nor split.
    """

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._tied_to: dict[int, int] = {}
        self._halves: dict[int, tuple[int, int]] = {}
        self._frozen: dict[int, str] = {}

    def new(self, size: int) -> int:
        """Opens a group of `size` channels."""
        self._sizes.append(size)
        return len(self._sizes) - 1

    def size(self, group: int) -> int:
        """The number of channels of a group, as the model has them."""
        return self._sizes[group]

    def atoms(self, groups: Iterable[int]) -> tuple[int, ...]:
        """The atoms that stand in the places of `groups`, in order."""
        found: list[int] = []
        waiting = list(groups)[::-1]
        while waiting:
            root = self._root(waiting.pop())
            if root in self._halves:
                waiting.extend(self._halves[root][::-1])
            else:
                found.append(root)
        return tuple(found)

    def total(self, groups: Iterable[int]) -> int:
        """The number of channels of several groups."""
        return sum(self.size(group) for group in groups)

    def tie(self, first: Sequence[int], second: Sequence[int]) -> None:
        """Makes two runs of groups agree channel by channel, splitting groups where they overlap.

        Raises:
            ValueError: If the runs differ in length.
        """
        if self.total(first) != self.total(second):
            raise ValueError(
                f"Runs of groups must be equally long, got {self.total(first)} and "
                f"{self.total(second)} channels."
            )
        position = 0
        while True:
            left, right = self.atoms(first), self.atoms(second)
            position = next(
                (i for i in range(position, len(left)) if left[i] != right[i]), len(left)
            )
            if position == len(left):
                return
            self._tie_or_split(left[position], right[position])

    def split(self, groups: Sequence[int], count: int) -> list[tuple[int, ...]]:
        """Splits a run of groups into `count` equally long blocks.

        Raises:
            ValueError: If the run's length is no multiple of `count`.
        """
        total = self.total(groups)
        if total % count:
            raise ValueError(f"{total} channels cannot be split into {count} equal blocks.")
        block = total // count
        template = [self.new(block) for _ in range(count)]
        self.tie(template, groups)
        return [self.atoms([group]) for group in template]

    def freeze(self, groups: Iterable[int], reason: str) -> None:
        """Fixes the widths of groups; the first reason given is kept."""
        for atom in self.atoms(groups):
            self._frozen.setdefault(atom, reason)

    def frozen_because(self, atom: int) -> str | None:
        """Why an atom's width is fixed; `None` if it is not."""
        return self._frozen.get(atom)

    def _root(self, group: int) -> int:
        while group in self._tied_to:
            group = self._tied_to[group]
        return group

    def _tie_or_split(self, left: int, right: int) -> None:
        if self.size(left) == self.size(right):
            # The older one stays, whatever the order, so that runs are reproducible.
            kept, gone = sorted((left, right))
            self._tied_to[gone] = kept
            if gone in self._frozen:
                self._frozen.setdefault(kept, self._frozen[gone])
        else:
            larger, smaller = (left, right) if self.size(left) > self.size(right) else (right, left)
            self._cut(larger, self.size(smaller))

    def _cut(self, atom: int, at: int) -> None:
        halves = (self.new(at), self.new(self.size(atom) - at))
        self._halves[atom] = halves
        if atom in self._frozen:
            self._frozen.update(dict.fromkeys(halves, self._frozen[atom]))
