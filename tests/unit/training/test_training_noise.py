"""The noise of depth-as-time by hand: levels, bands, and what is refused."""

from __future__ import annotations

import math

import pytest

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.training.growth_options import Noise
from stackwise_ray.training.noise import band_of, levels


def test_levels_fall_from_the_leftmost_to_the_rightmost_stack():
    assert levels(Noise(), 3) == pytest.approx((0.95, 0.55, 0.15))
    assert levels(Noise(schedule="cosine"), 3) == pytest.approx((0.95, 0.55, 0.15))
    quarter = 0.15 + 0.8 * (1 + math.cos(math.pi / 4)) / 2
    assert levels(Noise(schedule="cosine"), 5)[1] == pytest.approx(quarter)
    assert levels(Noise(schedule="exponential"), 3) == pytest.approx((0.95, math.sqrt(0.95 * 0.15), 0.15))
    assert levels(Noise(schedule=(0.8, 0.3)), 2) == (0.8, 0.3)


def test_a_single_stack_has_the_lightest_noise():
    assert levels(Noise(), 1) == (0.15,)


def test_bands_meet_at_the_midpoints_and_cumulative_ones_reach_down_to_the_lightest():
    r = (0.9, 0.5, 0.1)
    assert [band_of(Noise(kind="point"), r, k) for k in range(3)] == [(0.9, 0.9), (0.5, 0.5), (0.1, 0.1)]
    flat = [x for k in range(3) for x in band_of(Noise(kind="band"), r, k)]
    assert flat == pytest.approx([0.7, 0.9, 0.3, 0.7, 0.1, 0.3])
    assert [band_of(Noise(kind="cumulative"), r, k) for k in range(3)] == [(0.1, 0.9), (0.1, 0.5), (0.1, 0.1)]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (Noise(schedule=(0.9, 0.5)), r"training\.noise\.schedule = \[0\.9, 0\.5\] has 2 shares for 3 stacks; give 3"),
        (Noise(r_first=0.1, r_last=0.5), "the shares must fall from left to right"),
        (
            Noise(r_first=0.99),
            "r = 0.99, 0.57, 0.15: the shares must fall from left to right, and lie between 0 and 0.95",
        ),
        (Noise(schedule="exponential", r_last=0.0), "lie between 0 and"),
    ],
)
def test_levels_that_do_not_fall_or_are_too_many_are_refused(noise, message):
    with pytest.raises(ConfigError, match=message):
        levels(noise, 3)
