"""The first-order speed-up of low bits."""

from __future__ import annotations

import pytest

from wrpn_tf import applications
from wrpn_tf.analysis import ModelProfile, SpeedUp, speed_up, speed_up_table, widened_profile


@pytest.mark.parametrize(
    ("weight", "activation", "expected"),
    [(32, 32, 1.0), (8, 8, 4.0), (2, 8, 6.4), (4, 4, 8.0), (2, 2, 16.0), (1, 1, 32.0)],
)
def test_throughput_goes_as_the_bits(weight, activation, expected):
    assert speed_up(weight, activation) == expected


def test_a_wider_network_gains_less_by_its_multiply_accumulates(flavor):
    model = applications.ResNet8(input_shape=(8, 8, 1), keras_flavor=flavor.name)
    baseline, wide = ModelProfile(model), widened_profile(model)
    ratio = wide.num_macs / baseline.num_macs
    assert speed_up_table([(2, 8)]) == (SpeedUp(2, 8, 6.4),)
    assert speed_up_table([(2, 8)], profile=wide)[0].per_network == 6.4
    (gain,) = speed_up_table([(4, 4)], profile=wide, baseline=baseline)
    # The divisions stand in another order: one rounding apart.
    assert gain.per_network == pytest.approx(8 / ratio, rel=1e-15)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="`num_bits_weight` must be in 1..32"):
        speed_up(0, 8)
    with pytest.raises(ValueError, match="`profile` must be given with `baseline`"):
        speed_up_table(baseline=ModelProfile(applications.ResNet8(input_shape=(8, 8, 1))))
