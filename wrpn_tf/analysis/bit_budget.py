"""The multiple-choice knapsack behind `wrpn_tf.search`: options of least error within a budget.

There are knobs with options. Each option of a knob has an error, and errors add up. Prices add up,
too, of terms that depend on one knob, or on two: a multiply-accumulate priced by the product of its
bits.

States that are dearer than another and no better are dropped, knob by knob (Nemhauser and Ullmann,
"Discrete dynamic programming and capital allocation", 1969). That is exact. Where more than
`_MOST_STATES` are left, only the best of each of so many equal steps of the price is kept: the
result is then at least as good as the best for a budget smaller by one such step for each merge.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

_MOST_STATES = 50_000
# Prices are sums of floats: a budget that they meet exactly is not missed for the last digit.
_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class Term:
    """A part of the price.

    Attributes:
        knobs: Which knobs it depends on: none, one, or a pair of which the first decides. A knob
            that is first in one pair is second in none.
        prices: Its price for each option, with one axis for each of `knobs`.
    """

    knobs: tuple[int, ...]
    prices: Numbers

    def price(self, options: Sequence[int]) -> float:
        """Returns the price when each knob has an option."""
        return float(self.prices[tuple(options[knob] for knob in self.knobs)])


@dataclasses.dataclass(frozen=True)
class _States:
    """States in the order of their price, each better than the cheaper ones.

    Attributes:
        price: [states].
        error: [states].
        options: [states, knobs]; 0 for knobs that are not decided yet.
    """

    price: Numbers
    error: Numbers
    options: npt.NDArray[np.int8]


def total_price(terms: Sequence[Term], options: Sequence[int]) -> float:
    """Returns the sum of the terms when each knob has an option."""
    return sum(term.price(options) for term in terms)


def within(price: float, budget: float) -> bool:
    """Returns whether a price meets a budget, but for the rounding of the last digits."""
    return price <= budget * (1 + _TOLERANCE)


def least_price(errors: Sequence[Numbers], terms: Sequence[Term]) -> float:
    """Returns the least price that any options have; arguments as in `allocate`."""
    return sum(float(states.price[0]) for states in _parts(errors, terms))


def allocate(errors: Sequence[Numbers], terms: Sequence[Term], budget: float) -> tuple[int, ...]:
    """Returns an option for each knob: those of the least sum of errors within a budget.

    Args:
        errors: For each knob, the error of each option.
        terms: The price is their sum.
        budget: What the price may be.

    Raises:
        ValueError: If the least price is above the budget.
    """
    parts = _parts(errors, terms)
    least = [float(states.price[0]) for states in parts]
    if not within(sum(least), budget):
        raise ValueError(f"`budget` must be at least {sum(least)!r}, got {budget!r}.")
    limit = budget * (1 + _TOLERANCE)
    found = _start(len(errors))
    for index, states in enumerate(parts):
        found = _merge(found, states, limit - sum(least[index + 1 :]))
    return tuple(int(option) for option in found.options[-1])


def _parts(errors: Sequence[Numbers], terms: Sequence[Term]) -> list[_States]:
    """The states of each set of knobs that pairs hold together; and what depends on none."""
    constant = sum(term.price(()) for term in terms if not term.knobs)
    start = _start(len(errors))
    parts = [dataclasses.replace(start, price=start.price + constant)]
    for members in _components(len(errors), terms):
        own = [term for term in terms if members.intersection(term.knobs)]
        states = list(_conditional_states(sorted(members), errors, own))
        parts.append(
            _best(
                np.concatenate([x.price for x in states]),
                np.concatenate([x.error for x in states]),
                np.concatenate([x.options for x in states]),
            )
        )
    return parts


def _components(num_knobs: int, terms: Sequence[Term]) -> list[set[int]]:
    component = {knob: {knob} for knob in range(num_knobs)}
    for term in terms:
        if len(term.knobs) == 2:
            first, second = (component[knob] for knob in term.knobs)
            if first is not second:
                first |= second
                component.update(dict.fromkeys(second, first))
    return list({id(members): members for members in component.values()}.values())


def _conditional_states(
    members: Sequence[int], errors: Sequence[Numbers], terms: Sequence[Term]
) -> Iterator[_States]:
    """Yields, for each choice of the knobs that decide, the states of the others."""
    leaders = sorted({term.knobs[0] for term in terms if len(term.knobs) == 2})
    for picks in itertools.product(*(range(len(errors[knob])) for knob in leaders)):
        decided = dict(zip(leaders, picks, strict=True))
        states = _start(len(errors))
        for knob in members:
            price = np.zeros(len(errors[knob]))
            for term in terms:
                if term.knobs == (knob,):
                    price = price + term.prices
                elif len(term.knobs) == 2 and term.knobs[1] == knob:
                    price = price + term.prices[decided[term.knobs[0]]]
            tried = np.array([decided[knob]]) if knob in decided else np.arange(len(price))
            options = np.zeros((len(tried), len(errors)), np.int8)
            options[:, knob] = tried
            states = _merge(states, _best(price[tried], errors[knob][tried], options), np.inf)
        yield states


def _start(num_knobs: int) -> _States:
    return _States(np.zeros(1), np.zeros(1), np.zeros((1, num_knobs), np.int8))


def _merge(left: _States, right: _States, limit: float) -> _States:
    """All pairs of states within a price, without those that another makes useless."""
    price = np.add.outer(left.price, right.price).ravel()
    error = np.add.outer(left.error, right.error).ravel()
    allowed = np.flatnonzero(price <= limit)
    chosen = _thinned(allowed[_useful(price[allowed], error[allowed])], price)
    first, second = np.divmod(chosen, len(right.price))
    return _States(price[chosen], error[chosen], left.options[first] + right.options[second])


def _best(price: Numbers, error: Numbers, options: npt.NDArray[np.int8]) -> _States:
    chosen = _useful(price, error)
    return _States(price[chosen], error[chosen], options[chosen])


def _useful(price: Numbers, error: Numbers) -> npt.NDArray[np.intp]:
    """Where a state is better than all that cost no more, in the order of the price."""
    order = np.lexsort((error, price))
    best = np.minimum.accumulate(error[order])
    return order[np.concatenate(([True], error[order][1:] < best[:-1]))]


def _thinned(chosen: npt.NDArray[np.intp], price: Numbers) -> npt.NDArray[np.intp]:
    """The cheapest state, and the best of each step of the price."""
    if len(chosen) <= _MOST_STATES:
        return chosen
    low, high = price[chosen[0]], price[chosen[-1]]
    step = np.floor((price[chosen] - low) / (high - low) * (_MOST_STATES - 2))
    is_last = np.concatenate((step[1:] > step[:-1], [True]))
    is_last[0] = True
    return chosen[is_last]
