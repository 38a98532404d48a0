"""Compute cost of a profile, by the two models in print, in float32 multiply-accumulates.

| model | one multiply-accumulate of a-bit activations and w-bit weights | in print |
|---|---|---|
| "sum" | (a + w) / 64 | WRPN, Tables 3-5 (arXiv 1709.01134); "WRPN & Apprentice", footnote 2 |
| "product" | a * w / 1024 | the WRPN workshop paper's 14 % and 15.1 % (arXiv 1704.03079) |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from wrpn_tf.analysis.precision import FLOAT_BITS
from wrpn_tf.analysis.profile import LayerProfile, MACProfile, ModelProfile

COST_MODELS = ("sum", "product")
# What one multiply-accumulate costs in bits, or in products of bits.
_BIT_COSTS: dict[str, Callable[[int, int], int]] = {
    "sum": lambda activation, weight: activation + weight,
    "product": lambda activation, weight: activation * weight,
}
_ENDS = ("as_is", "float")


def compute_cost(
    profile: ModelProfile, *, model: str = "sum", first_and_last: str = "as_is"
) -> float:
    """Returns what one example costs, in float32 multiply-accumulates.

    cost = sum of count * (a + w) / 64 for `model="sum"`, of count * a * w / 1024 for "product"

    Args:
        profile: A float or quantized model's profile, or a planned one.
        model: "sum" or "product".
        first_and_last: "as_is", or "float": the first and the last layers count as 32 x 32 bits,
            whatever they have.

    Raises:
        TypeError: If `profile` is no `ModelProfile`.
        ValueError: If an argument is none of the above, or a layer's multiply-accumulates are
            unknown; the message names the layers.
    """
    return sum(layer_costs(profile, model=model, first_and_last=first_and_last).values())


def relative_cost(
    profile: ModelProfile,
    baseline: ModelProfile,
    *,
    model: str = "sum",
    first_and_last: str = "as_is",
) -> float:
    """Returns a profile's cost relative to that of `baseline` computed in float32.

    Args:
        profile: As in `compute_cost`.
        baseline: Usually the profile of the float network before widening; its own bits count for
            nothing.
        model: As in `compute_cost`.
        first_and_last: As in `compute_cost`.

    Raises:
        TypeError, ValueError: As `compute_cost`; if `baseline` has no multiply-accumulates.
    """
    cost = compute_cost(profile, model=model, first_and_last=first_and_last)
    check_counted(baseline, "baseline")
    check_multiplies(baseline, "baseline")
    return cost / baseline.num_macs


def layer_costs(
    profile: ModelProfile, *, model: str = "sum", first_and_last: str = "as_is"
) -> dict[str, float]:
    """Returns path -> cost of each layer with multiply-accumulates; calls of one are added up.

    Args and raises: as `compute_cost`.
    """
    check_counted(profile, "profile")
    if first_and_last not in _ENDS:
        raise ValueError(f'`first_and_last` must be "as_is" or "float", got {first_and_last!r}.')
    costs: dict[str, float] = {}
    for layer in profile.layers:
        for mac in layer.macs:
            is_float = first_and_last == "float" and (mac.is_first or mac.is_last)
            bits = (FLOAT_BITS,) * 2 if is_float else (mac.num_bits_activation, mac.num_bits_weight)
            # The divisors are powers of two: each cost is exact, and so is a sum below 2**43.
            cost = mac.count * mac_cost(*bits, model=model)
            costs[layer.path] = costs.get(layer.path, 0.0) + cost
    return costs


def counted_cost(profile: ModelProfile, model: str) -> float:
    """Returns the cost of the layers whose multiply-accumulates are known, as `compute_cost`."""
    return sum(count * mac_cost(*bits, model=model) for bits, count in profile.macs_by_bits.items())


def mac_cost(num_bits_activation: int, num_bits_weight: int, *, model: str = "sum") -> float:
    """Returns the cost of one multiply-accumulate relative to float32: (a + w) / 64, a * w / 1024.

    Raises:
        TypeError, ValueError: If bits are no integers in 1..32, or `model` is unknown.
    """
    if model not in _BIT_COSTS:
        raise ValueError(f'`model` must be "sum" or "product", got {model!r}.')
    check_bits(num_bits_activation, "num_bits_activation")
    check_bits(num_bits_weight, "num_bits_weight")
    cost = _BIT_COSTS[model]
    return cost(num_bits_activation, num_bits_weight) / cost(FLOAT_BITS, FLOAT_BITS)


def uniform_cost(
    num_bits_activation: int,
    num_bits_weight: int,
    *,
    width_multiplier: float = 1.0,
    model: str = "sum",
) -> float:
    """Returns a network's relative cost with no network at hand: width**2 * `mac_cost`.

    As if each layer's inputs and outputs were widened; the first and the last layers' are not, so
    this is a little above what a network gives. It is how WRPN's figures for BN-Inception come out
    (Table 5: twice as wide, 4 * (a + w) / 64).

    Raises:
        TypeError, ValueError: As `mac_cost`; if `width_multiplier` is not a number above 0.
    """
    is_number = isinstance(width_multiplier, (int, float)) and not isinstance(
        width_multiplier, bool
    )
    if not is_number or not 0 < width_multiplier < float("inf"):
        raise ValueError(
            f"`width_multiplier` must be a finite number > 0, got {width_multiplier!r}."
        )
    return width_multiplier**2 * mac_cost(num_bits_activation, num_bits_weight, model=model)


def with_bits(
    profile: ModelProfile, *, num_bits_weight: int, num_bits_activation: int
) -> ModelProfile:
    """Returns a profile as if every kernel and every activation had the same bits.

    The papers' way of counting: first and last layers too (`compute_cost` can leave these out), and
    32 is float. Biases and normalizations keep their bits. What `quantize_model` makes of a
    model is `wrpn_tf.plan`'s.

    Raises:
        TypeError, ValueError: If bits are no integers in 1..32, or `profile` is no `ModelProfile`.
    """
    check_profile(profile, "profile")
    check_bits(num_bits_weight, "num_bits_weight")
    check_bits(num_bits_activation, "num_bits_activation")
    kernels = {(x.path, mac.weight) for x in profile.layers for mac in x.macs}

    def change(layer: LayerProfile) -> LayerProfile:
        return dataclasses.replace(
            layer,
            weights=tuple(
                dataclasses.replace(w, num_bits=num_bits_weight)
                if (layer.path, w.name) in kernels
                else w
                for w in layer.weights
            ),
            macs=tuple(_with_bits(mac, num_bits_activation, num_bits_weight) for mac in layer.macs),
            num_bits_input=(num_bits_activation,) * len(layer.num_bits_input),
            num_bits_output=(num_bits_activation,) * len(layer.num_bits_output),
        )

    return profile.with_layers(change(layer) for layer in profile.layers)


def check_counted(profile: ModelProfile, argument: str) -> None:
    """Checks that all multiply-accumulates of a profile are known.

    Raises:
        TypeError: If it is no `ModelProfile`.
        ValueError: If some are unknown; names the layers.
    """
    check_profile(profile, argument)
    if profile.uncounted:
        raise ValueError(
            f"`{argument}` must have known multiply-accumulates in every layer, got unknown ones "
            f"in {_uncounted(profile)}."
        )


def check_multiplies(profile: ModelProfile, argument: str) -> None:
    """Checks that some multiply-accumulates of a profile are known: a cost is relative to them.

    Raises:
        ValueError: If there are none; says where they are unknown.
    """
    if not profile.num_macs:
        unknown = f", unknown ones in {_uncounted(profile)}" if profile.uncounted else ""
        raise ValueError(
            f"`{argument}` must have multiply-accumulates, got {profile.name!r} without any"
            f"{unknown}."
        )


def check_profile(profile: ModelProfile, argument: str) -> None:
    """Raises a TypeError if `profile` is no `ModelProfile`."""
    if not isinstance(profile, ModelProfile):
        raise TypeError(
            f"`{argument}` must be a ModelProfile, as `ModelProfile(model)` makes it, got "
            f"{type(profile).__name__}."
        )


def check_bits(num_bits: int, argument: str) -> None:
    """Checks a number of bits of which 32 is float.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is outside 1..32.
    """
    if isinstance(num_bits, bool) or not isinstance(num_bits, int):
        raise TypeError(f"`{argument}` must be an integer, got {num_bits!r}.")
    if not 1 <= num_bits <= FLOAT_BITS:
        raise ValueError(f"`{argument}` must be in 1..{FLOAT_BITS} (32 is float), got {num_bits}.")


def _uncounted(profile: ModelProfile) -> str:
    return "; ".join(f"{path!r}: {reason}" for path, reason in profile.uncounted.items())


def _with_bits(mac: MACProfile, num_bits_activation: int, num_bits_weight: int) -> MACProfile:
    return dataclasses.replace(
        mac, num_bits_activation=num_bits_activation, num_bits_weight=num_bits_weight
    )
