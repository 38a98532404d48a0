"""The candidates for a channel's scale and bias, and which are better; see `snapping`."""

from __future__ import annotations

import dataclasses

import numpy as np

from tflite_export.requantization import Floats
from tflite_export.snapping_families import (
    SAME,
    Family,
    Problem,
    anywhere,
    below_even,
    on_lattice,
    with_few_thresholds,
)

# Scores below this are of candidates on which the kernels cannot agree.
HOPELESS = -1e6
# Scores above this are of candidates that the channel stands on already.
STANDS = 1e5
_FAR_MOVE = 0.03
# Beyond it a channel computes something else, as the others and their output stay.
LARGEST_MOVE = 0.15
# Steps of a sum of weights and levels, per level of the output.
_FINEST = 0.25
# A margin e times as wide is worth this much relative scale, or offset in levels.
_SCALE_WORTH, _OFFSET_WORTH = 1e-3, 0.05
# Relative margins: more than the widest is worth nothing, less than the narrowest counts tenfold.
_WIDEST, NARROWEST = 1e-3, 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Some values of D and B per channel, best first.

    Attributes:
        unit: float64 [C, K], D.
        bias: float64 [C, K], whole numbers B.
        middle: float64 [C, K]; see `snapping_families.Family`.
        score: float64 [C, K]; below `HOPELESS` where the kernels cannot agree.
    """

    unit: Floats
    bias: Floats
    middle: Floats
    score: Floats


def candidates(problem: Problem) -> Candidates:
    """Returns the candidates around the wanted scales, best first.

    None moves a scale by more than `LARGEST_MOVE`: there the kernels had better not agree. Levels
    that are far finer than the sums are not held to it: a few sums can be had exact.
    """
    family = _all(problem)
    score = _score(problem, family)
    too_far = (problem.wanted >= _FINEST) & (_move(problem, family) > LARGEST_MOVE)
    score = np.where(too_far, 2 * HOPELESS, score)
    order = np.argsort(-score, axis=1, kind="stable")
    arrays = (family.unit, family.bias, family.middle, score)
    return Candidates(*(np.take_along_axis(a, order, axis=1) for a in arrays))


def shared_candidates(problem: Problem) -> Candidates:
    """Returns the candidates with one D for all channels, which are of one scale and M.

    A candidate is as good as its worst channel.
    """
    family = _all(problem)
    score = _score(problem, family)
    order = np.argsort(-score.min(axis=0), kind="stable")
    return Candidates(*(a[:, order] for a in (family.unit, family.bias, family.middle, score)))


def _all(problem: Problem) -> Family:
    """Returns the candidates of all families."""
    families = (on_lattice, with_few_thresholds, below_even, anywhere)
    found = [family for family in (each(problem) for each in families) if family is not None]
    return Family(*(np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True)))


def _move(problem: Problem, family: Family) -> Floats:
    """How far candidates are from the wanted scales, relatively."""
    return np.abs(family.unit / (problem.spacing * problem.wanted) - 1)


def _score(problem: Problem, family: Family) -> Floats:
    """Returns how good candidates are: the logarithm of the margin less the moves."""
    unit, _, middle, margin = family
    highest = max(problem.rounding.high, -problem.rounding.low) - 0.5
    move = _move(problem, family)
    size = np.maximum(highest * unit, np.abs(middle))
    relative = np.fmax(margin, 1e-12) / size
    gain = np.log(np.clip(relative, NARROWEST, _WIDEST))
    gain += 10 * np.log(np.minimum(relative / NARROWEST, 1))
    score = gain - move / _SCALE_WORTH - 1000.0 * (move > _FAR_MOVE)
    stands = (move < SAME) & (relative > 1e-8)
    if problem.offset_is_free:
        distance = np.abs(middle - problem.target(unit))
        score -= distance / unit / _OFFSET_WORTH
        precision = 0.05 + SAME * (np.abs(middle) + unit * problem.rounding.high)
        stands &= distance < np.minimum(precision, np.maximum(0.1 * problem.spacing, 0.45))
    score += 10 * STANDS * stands
    score = np.where(margin > -np.inf, score, 2 * HOPELESS)
    # The last one is of `anywhere`: what to do where no other is possible.
    score[:, -1] = 1.5 * HOPELESS
    return score
