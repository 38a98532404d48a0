"""What a `RegionPrecision` takes, and what it refuses, by name."""

from __future__ import annotations

import pytest

from wrpn_tf import RegionPrecision
from wrpn_tf.regions import Entropy


@pytest.mark.parametrize(
    ("arguments", "kind", "values"),
    [
        ({}, "kept", (0.5,)),
        ({"bits": (8, 4, 2)}, "kept", (2 / 3, 1 / 3)),
        ({"kept": 0.25}, "kept", (0.25,)),
        ({"bits": (8, 4, 0), "kept": (0.2, 0.7)}, "kept", (0.7, 0.2)),
        ({"bits": (8, 4, 0), "threshold": (3, 1)}, "threshold", (1.0, 3.0)),
        ({"target_bits": 6}, "target_bits", (6.0,)),
    ],
)
def test_rules_go_from_the_least_important_rank_up(arguments, kind, values):
    rule = RegionPrecision(**arguments).rule
    assert rule.kind == kind
    assert rule.values == pytest.approx(values)


def test_metrics_go_by_name():
    assert RegionPrecision("entropy").metric == Entropy()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bits": (8, 3)}, ValueError, r"`bits` must be among 8, 4, 2, 1, 0, got 3. Only these"),
        ({"bits": (4, 8)}, ValueError, r"`bits` must fall, .* got \(4, 8\)"),
        ({"bits": (8, 8)}, ValueError, "`bits` must fall"),
        ({"bits": (8,)}, ValueError, "`bits` must have at least two entries"),
        ({"bits": 8}, TypeError, "`bits` must be a tuple of whole numbers, got 8"),
        ({"bits": (8, 4.0)}, TypeError, "`bits` must be a tuple of whole numbers"),
        ({"bits": (8, 4, 2), "kept": 0.5}, ValueError, "`kept` must hold 2 numbers .* got 1"),
        ({"kept": (0.5, 0.7)}, ValueError, "`kept` must hold 1 number for .* got 2"),
        ({"bits": (8, 4, 2), "kept": (0.7, 0.5)}, ValueError, "`kept` must be .* rising, got"),
        ({"kept": 1.5}, ValueError, "`kept` must be 0 <= share <= 1"),
        ({"kept": float("nan")}, TypeError, "`kept` must hold numbers"),
        ({"kept": "half"}, TypeError, "`kept` must hold numbers, got 'half'"),
        ({"bits": (8, 4, 2), "threshold": (1, 3)}, ValueError, "`threshold` must be falling"),
        ({"kept": 0.5, "threshold": 1.0}, ValueError, "At most one .* got kept and threshold"),
        ({"target_bits": 9}, ValueError, r"`target_bits` must be in \(0, 8\], got 9"),
        ({"metric": "entropie"}, ValueError, "`metric` must be one of 'entropy', 'gradient'"),
        ({"metric": Entropy}, ValueError, "`metric` must be one of"),
        ({"final_bits": (8, 4, 2)}, ValueError, "`final_bits` must have 2 entries, as `bits`"),
        ({"input_bits": (8, 5)}, ValueError, "`input_bits` must be among"),
        ({"overrides": {"a": (8, 5)}}, ValueError, r"`overrides\['a'\]` must be among"),
        ({"overrides": {"(": (8, 4)}}, ValueError, r"regular expressions as keys, got '\('"),
        ({"overrides": ("a", 4)}, TypeError, "`overrides` must be a dictionary"),
        ({"value_range": (1, 0)}, ValueError, '`value_range` must be "auto" or .* rise'),
        ({"value_range": "0..1"}, TypeError, "`value_range` must hold numbers"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        RegionPrecision(**arguments)
