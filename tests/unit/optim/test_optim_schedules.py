"""Learning-rate schedules against values worked out by hand, and properties that hold for all of them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackwise_ray.config.trial import Schedule
from stackwise_ray.optim import learning_rate
from stackwise_ray.optim.schedules import warmup_steps

KINDS = ["cosine", "wsd", "linear", "constant"]


def rates(total: int, schedule: Schedule, lr: float = 1.0) -> list[float]:
    return [learning_rate(step, total, lr, schedule) for step in range(total)]


def test_linear_falls_from_the_last_warm_up_step_to_the_final_share():
    # w = round(0.2·10) = 2; peak at step 1; 8 equal steps of 0.9/8 down to 0.1
    expected = [0.5, 1.0] + [1 - 0.9 * k / 8 for k in range(1, 9)]
    assert rates(10, Schedule(kind="linear", warmup=0.2, final=0.1)) == pytest.approx(expected, abs=1e-15)


def test_cosine_is_half_way_down_in_the_middle():
    # no warm-up, 5 steps: u = 0, 1/4, 1/2, 3/4, 1 and f = 0.2
    expected = [1.0, 0.6 + 0.4 * math.sqrt(0.5), 0.6, 0.6 - 0.4 * math.sqrt(0.5), 0.2]
    assert rates(5, Schedule(kind="cosine", warmup=0, final=0.2)) == pytest.approx(expected, abs=1e-15)


def test_wsd_is_flat_until_its_decay():
    # w = 1, d = round(0.3·10) = 3: the last three steps fall by 1/3 each to 0
    expected = [1.0] * 7 + [2 / 3, 1 / 3, 0.0]
    assert rates(10, Schedule(kind="wsd", warmup=0.1, decay=0.3, final=0.0)) == pytest.approx(expected, abs=1e-15)


def test_wsd_decay_does_not_reach_into_the_warm_up():
    # w = 5, d would be 10 but only 5 steps are left
    expected = [0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    assert rates(10, Schedule(kind="wsd", warmup=0.5, decay=1.0, final=0.0)) == pytest.approx(expected, abs=1e-15)


def test_constant_only_warms_up():
    assert rates(4, Schedule(kind="constant", warmup=0.5), lr=3.0) == [1.5, 3.0, 3.0, 3.0]


def test_a_tiny_share_of_warm_up_is_one_step_and_none_is_none():
    assert warmup_steps(10, Schedule(warmup=1e-6)) == 1
    assert warmup_steps(10, Schedule(warmup=0.0)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_one_step_takes_it_at_the_peak(kind):
    for warmup in (0.0, 0.05, 1.0):
        assert rates(1, Schedule(kind=kind, warmup=warmup), lr=2.0) == [2.0]


def test_a_step_outside_the_run_is_an_error():
    with pytest.raises(ValueError, match=r"step 10 is outside \[0, 10\)"):
        learning_rate(10, 10, 1.0, Schedule())


@given(
    kind=st.sampled_from(KINDS),
    total=st.integers(1, 200),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
    final=st.floats(0, 1),
)
def test_every_schedule_rises_to_the_peak_and_never_rises_again(kind, total, warmup, decay, final):
    schedule = Schedule(kind=kind, warmup=warmup, decay=decay, final=final)
    values = rates(total, schedule)
    top = max(warmup_steps(total, schedule) - 1, 0)
    assert values[top] == 1.0
    assert all(a <= b for a, b in pairwise(values[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in pairwise(values[top:]))
    assert min(values[top:]) >= (1.0 if kind == "constant" else final) - 1e-12
