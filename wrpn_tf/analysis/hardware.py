"""What low precision gains on hardware, to first order: throughput in inverse proportion to bits.

Source: Mishra et al., "WRPN" (arXiv 1709.01134), the section on speed-ups: hardware that computes
with a-bit activations and w-bit weights moves and multiplies (a + w) bits where float32 takes 64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from wrpn_tf.analysis.cost import mac_cost, relative_cost, with_bits
from wrpn_tf.analysis.profile import ModelProfile

# The papers' pairs, (weight bits, activation bits).
PAPER_BITS = ((32, 32), (8, 8), (4, 8), (2, 8), (4, 4), (2, 4), (2, 2), (1, 1))


@dataclasses.dataclass(frozen=True)
class SpeedUp:
    """The gain of one pair of bits.

    Attributes:
        num_bits_weight: Bits of weights; 32 is float.
        num_bits_activation: Bits of activations; 32 is float.
        per_operation: Multiply-accumulates per time, relative to float32.
        per_network: The same per example, relative to the baseline in float32: less than
            `per_operation` where the network has been widened; None without networks.
    """

    num_bits_weight: int
    num_bits_activation: int
    per_operation: float
    per_network: float | None = None


def speed_up(num_bits_weight: int, num_bits_activation: int) -> float:
    """Returns 64 / (a + w): the first-order gain of one multiply-accumulate over float32.

    An upper bound for an accelerator built for these bits; a CPU's or GPU's instructions gain less,
    and nothing below the narrowest type that they know.

    Raises:
        TypeError, ValueError: If bits are no integers in 1..32.
    """
    return 1 / mac_cost(num_bits_activation, num_bits_weight)


def speed_up_table(
    num_bits: Sequence[tuple[int, int]] = PAPER_BITS,
    *,
    profile: ModelProfile | None = None,
    baseline: ModelProfile | None = None,
) -> tuple[SpeedUp, ...]:
    """Returns the first-order gain of each pair of bits.

    Args:
        num_bits: Pairs (weight bits, activation bits).
        profile: A network, counted as if all of it had these bits; usually a widened one.
        baseline: The network that it is compared with, in float32; `profile` itself by default.

    Raises:
        TypeError, ValueError: As `speed_up` and `relative_cost`; if there is a baseline and no
            profile.
    """
    if profile is None and baseline is not None:
        raise ValueError("`profile` must be given with `baseline`, got None.")
    rows = []
    for weight, activation in num_bits:
        gain = None
        if profile is not None:
            low = with_bits(profile, num_bits_weight=weight, num_bits_activation=activation)
            gain = 1 / relative_cost(low, profile if baseline is None else baseline)
        rows.append(SpeedUp(weight, activation, speed_up(weight, activation), gain))
    return tuple(rows)
