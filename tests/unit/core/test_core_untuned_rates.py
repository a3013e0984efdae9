"""When a sweep says that its learning rate was not tuned."""

from __future__ import annotations

from stackwise_ray.core.untuned_rates import ONE_RATE, OWN_RATES, ArmRate, untuned_rate


def arms(*rates: float | None, **parameters: float) -> list[ArmRate]:
    return [ArmRate(rate=rate, parameters=dict(parameters)) for rate in rates]


def test_one_rate_for_arms_that_differ_in_something_else_is_said():
    assert untuned_rate(arms(0.01, 0.01), tuned=()) == ONE_RATE
    assert untuned_rate(arms(0.01, 0.01), tuned=["optimizer.weight_decay"]) == ONE_RATE


def test_a_tuned_rate_is_not_called_untuned():
    assert untuned_rate(arms(0.01, 0.01), tuned=["training.lr"]) is None
    assert untuned_rate(arms(0.01, 0.03), tuned=["training.lr"]) is None


def test_arms_that_are_learning_rates_are_not_called_untuned():
    rates = [ArmRate(rate=rate, parameters={"training.lr": rate}) for rate in (0.01, 0.03)]
    assert untuned_rate(rates, tuned=()) is None
    assert untuned_rate([*rates, ArmRate(rate=0.01)], tuned=()) is None  # the third keeps the base's


def test_rates_that_came_with_the_arms_presets_are_each_arms_own():
    assert untuned_rate(arms(0.01, 0.03), tuned=()) == OWN_RATES


def test_nothing_is_said_of_one_arm_or_of_a_rate_that_nobody_recorded():
    assert untuned_rate(arms(0.01), tuned=()) is None
    assert untuned_rate(arms(0.01, None), tuned=()) is None
    assert untuned_rate([], tuned=()) is None
