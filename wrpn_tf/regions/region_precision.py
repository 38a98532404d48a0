"""`RegionPrecision`: which parts of an image matter, and how many bits the others keep."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from wrpn_tf.name_rules import check_pattern
from wrpn_tf.regions.metrics import Metric, get_metric

NESTED_BITS = (8, 4, 2, 1, 0)
Bits = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class RegionPrecision:
    """Activation precision by region: what unimportant parts of an image are computed with.

    A metric gives each position of the input image an importance, and its position in that order a
    rank: important positions keep the bits that their layer has, the others get fewer. The ranks
    follow the data through the network: a position of a layer has the greatest rank of the input
    positions under its stride window.

    The idea, the metrics' kinds and the cropping are the paper's; maps of several levels, how
    values are rounded, and how thresholds are found are this project's.

    Args:
        metric: `"entropy"`, `"gradient"`, `"points_of_interest"`, `"border_crop"`, `"center"`,
            `"combined"` (entropy and center), a metric of `wrpn_tf.regions`, or any callable (also
            a Keras model, which is frozen): float32 images [batch, height, width, channels] in
            [0, 1] -> importance [batch, rows, columns], one value for each square tile of the
            image; greater is more important. A function of your own has to be registered with
            `keras.utils.register_keras_serializable` to be saved.
        bits: Bits of the ranks, the most important first, falling, at least two of 8, 4, 2, 1, 0. A
            layer never gets more bits than it has, and one whose values have signs or an observed
            range not 1 but 2. Only these divide one another, and so does 2^bits - 1: each level of
            a coarse grid is one of the finer grid.
        kept: The share of each image that has at least the rank of each entry of `bits` but the
            last, rising, in 0..1; a number where there are two ranks. Equal values go together, as
            near to the share as can be; a constant image is important everywhere.
        threshold: The least importance of each rank but the last, falling; a number where there
            are two ranks.
        target_bits: The mean activation bits to reach over the data, each multiply-accumulate
            counted; `wrpn_tf.calibrate_regions` and training find the thresholds. Until then
            everything is important. Give one of `kept`, `threshold`, `target_bits`; without any,
            ranks get equal shares of each image.
        final_bits: Bits of the ranks at the last layer that reads regions. From `bits` at the first
            on they fall evenly with the depth, in steps of the bits allowed. None: `bits`.
        input_bits: Bits of the ranks in the input image itself; None: it stays as it is. The
            paper's cropping is (8, 0).
        overrides: Regular expression on names of layers whose outputs are rounded (ReLUs) -> their
            bits by rank. Later rules win.
        value_range: The values (smallest, largest) of black and white in the images that the model
            reads, or `"auto"`: each image's own.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If bits are none of 8, 4, 2, 1, 0 or do not fall, shares or thresholds are out
            of range or not one fewer than `bits`, or a rule is no regular expression.

    Source: "A Case for Dynamic Activation Quantization in CNNs", EMC2 2018.
    """

    metric: str | Metric | Callable[[Any], Any] = "entropy"
    bits: Sequence[int] = (8, 4)
    _: dataclasses.KW_ONLY
    kept: float | Sequence[float] | None = None
    threshold: float | Sequence[float] | None = None
    target_bits: float | None = None
    final_bits: Sequence[int] | None = None
    input_bits: Sequence[int] | None = None
    overrides: Mapping[str, Sequence[int]] | None = None
    value_range: tuple[float, float] | Literal["auto"] = "auto"

    def __post_init__(self):
        bits = check_bits(self.bits, "bits")
        object.__setattr__(self, "bits", bits)
        object.__setattr__(self, "metric", get_metric(self.metric))
        for argument in ("final_bits", "input_bits"):
            value = getattr(self, argument)
            if value is not None:
                object.__setattr__(self, argument, check_bits(value, argument, len(bits)))
        if not isinstance(self.overrides, Mapping | None):
            raise TypeError(
                "`overrides` must be a dictionary {regular expression: bits by rank}, got "
                f"{self.overrides!r}."
            )
        overrides = {}
        for rule, value in (self.overrides or {}).items():
            check_pattern(rule)
            overrides[rule] = check_bits(value, f"overrides[{rule!r}]", len(bits))
        object.__setattr__(self, "overrides", overrides)
        self._check_rule()
        _check_value_range(self.value_range)

    @property
    def rule(self) -> Rule:
        """How importance becomes ranks."""
        steps = len(self.bits) - 1
        if self.threshold is not None:
            return Rule("threshold", tuple(reversed(_numbers(self.threshold))))
        if self.target_bits is not None:
            return Rule("target_bits", (float(self.target_bits),))
        if self.kept is not None:
            return Rule("kept", tuple(reversed(_numbers(self.kept))))
        return Rule("kept", tuple(1 - (rank + 1) / (steps + 1) for rank in range(steps)))

    def _check_rule(self) -> None:
        given = [n for n in ("kept", "threshold", "target_bits") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(
                "At most one of `kept`, `threshold` and `target_bits` must be given, got "
                f"{' and '.join(given)}."
            )
        for argument in given:
            values = _numbers(getattr(self, argument), argument)
            wanted = 1 if argument == "target_bits" else len(self.bits) - 1
            if len(values) != wanted:
                raise ValueError(
                    f"`{argument}` must hold {wanted} {'number' if wanted == 1 else 'numbers'} for "
                    f"`bits` = {self.bits}, got {len(values)}: {values}."
                )
        if self.kept is not None:
            _check_order(_numbers(self.kept), "kept", 1, "0 <= share <= 1, rising")
        if self.threshold is not None:
            _check_order([-x for x in _numbers(self.threshold)], "threshold", math.inf, "falling")
        if self.target_bits is not None and not 0 < self.target_bits <= NESTED_BITS[0]:
            raise ValueError(f"`target_bits` must be in (0, 8], got {self.target_bits}.")


@dataclasses.dataclass(frozen=True)
class Rule:
    """How importance becomes ranks.

    Attributes:
        kind: `"kept"`, `"threshold"` or `"target_bits"`.
        values: For rank 1, 2, ...: the share of an image that has at least this rank, or the least
            importance of it; for a target, the mean bits alone.
    """

    kind: str
    values: tuple[float, ...]


def check_region_precision(region_precision: Any) -> None:
    """Checks that an argument is None or a `RegionPrecision`.

    Raises:
        TypeError: If it is not.
    """
    if region_precision is not None and not isinstance(region_precision, RegionPrecision):
        raise TypeError(
            "`region_precision` must be a wrpn_tf.RegionPrecision, got "
            f"{type(region_precision).__name__} {region_precision!r:.80}."
        )


def check_bits(bits: Any, argument: str, count: int | None = None) -> Bits:
    """Returns bits by rank as a tuple.

    Args:
        bits: The most important rank's first.
        argument: What the caller's users know them as.
        count: How many there must be; None: at least two.

    Raises:
        TypeError: If it is no sequence of whole numbers.
        ValueError: If one is not allowed, they rise, or there are not `count`.
    """
    is_sequence = isinstance(bits, Sequence) and not isinstance(bits, str)
    if not is_sequence or not all(
        isinstance(b, numbers.Integral) and not isinstance(b, bool) for b in bits
    ):
        raise TypeError(f"`{argument}` must be a tuple of whole numbers, got {bits!r}.")
    unknown = [b for b in bits if b not in NESTED_BITS]
    if unknown:
        raise ValueError(
            f"`{argument}` must be among {', '.join(map(str, NESTED_BITS))}, got {unknown[0]}. "
            "Only these grids are nested, each level of a coarser one a level of the finer "
            "ones (2^bits - 1 divides 255)."
        )
    if len(bits) < 2 if count is None else len(bits) != count:
        wanted = "at least two entries" if count is None else f"{count} entries, as `bits`"
        raise ValueError(f"`{argument}` must have {wanted}, got {tuple(bits)}.")
    if list(bits) != sorted(bits, reverse=True) or (count is None and len(set(bits)) < len(bits)):
        raise ValueError(
            f"`{argument}` must fall, the most important rank's first, got {tuple(bits)}."
        )
    return tuple(int(b) for b in bits)


def _numbers(value: Any, argument: str = "") -> tuple[float, ...]:
    values = (
        tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    )
    for entry in values:
        if isinstance(entry, bool) or not isinstance(entry, numbers.Real) or math.isnan(entry):
            raise TypeError(f"`{argument}` must hold numbers, got {value!r}.")
    return tuple(float(entry) for entry in values)


def _check_order(values: Sequence[float], argument: str, limit: float, wanted: str) -> None:
    rising = all(a < b for a, b in zip(values, values[1:], strict=False))
    if not rising or (limit == 1 and not all(0 <= v <= 1 for v in values)):
        shown = values if limit == 1 else [-v for v in values]
        raise ValueError(f"`{argument}` must be {wanted}, got {tuple(shown)}.")


def _check_value_range(value_range: Any) -> None:
    if isinstance(value_range, str) and value_range == "auto":
        return
    ends = _numbers(value_range, "value_range")
    if len(ends) != 2 or not ends[0] < ends[1] or not all(map(math.isfinite, ends)):
        raise ValueError(
            '`value_range` must be "auto" or (smallest, largest), two finite numbers that rise, '
            f"got {value_range!r}."
        )
