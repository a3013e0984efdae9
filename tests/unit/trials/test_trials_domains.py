"""Every kind of domain in a search and in tuning: drawn between its ends, spread by its rule, replayed as it was."""

from __future__ import annotations

import math
import statistics
from typing import Any

import optuna
import pytest

from stackwise_ray.config.space.domains import (
    Choice,
    Domain,
    Factor,
    IntRange,
    LogIntRange,
    LogUniform,
    Normal,
    Subsets,
    Uniform,
)
from stackwise_ray.trials.search import parameters, suggest
from stackwise_ray.trials.tuning import quantile

RANGES: dict[str, tuple[Domain, float]] = {
    "uniform": (Uniform(1.0, 101.0), 51.0),
    "log_uniform": (LogUniform(1.0, 10_000.0), 100.0),
    "int": (IntRange(1, 101), 51),
    "log_int": (LogIntRange(1, 10_000), 100),
}
"""A range and its median."""
ALL: dict[str, Domain] = {name: domain for name, (domain, _) in RANGES.items()} | {
    "choice": Choice(("a", {"b": 1}, 3)),
    "normal": Normal(5.0, 2.0),
    "subsets_of": Subsets(("x", "y", "z")),
}


def study(seed: int = 0) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))


def drawn(domain: Domain, n: int) -> list[Any]:
    asked = study()
    return [suggest(asked.ask(), Factor("x", domain)) for _ in range(n)]


@pytest.mark.parametrize("name", RANGES)
def test_draws_of_a_range_lie_between_its_ends_and_half_of_them_below_its_median(name: str) -> None:
    domain, median = RANGES[name]
    values = drawn(domain, 300)
    assert domain.low <= min(values) <= max(values) <= domain.high  # type: ignore[union-attr]
    below = sum(value < median for value in values) / 300
    assert below == pytest.approx(0.5, abs=0.12)  # four standard deviations of 300 draws


def test_draws_of_a_normal_domain_have_its_mean_and_deviation() -> None:
    values = drawn(Normal(5.0, 2.0), 300)
    assert statistics.fmean(values) == pytest.approx(5.0, abs=4 * 2 / math.sqrt(300))
    assert statistics.stdev(values) == pytest.approx(2.0, rel=0.2)


def test_every_subset_and_every_choice_is_drawn() -> None:
    assert {tuple(value) for value in drawn(Subsets(("x", "y")), 60)} == {(), ("x",), ("y",), ("x", "y")}
    assert {str(value) for value in drawn(ALL["choice"], 60)} == {"a", "{'b': 1}", "3"}


@pytest.mark.parametrize("name", ALL)
def test_a_drawn_value_is_given_again_from_its_parameters(name: str) -> None:
    factor, again = Factor("x", ALL[name]), study(seed=1)
    for value in drawn(factor.domain, 5):
        again.enqueue_trial(parameters(factor, value))
        replayed = suggest(again.ask(), factor)
        assert replayed == (pytest.approx(value) if name == "normal" else value)


@pytest.mark.parametrize("name", RANGES)
def test_a_range_holds_both_its_ends_and_nothing_beyond_them(name: str) -> None:
    domain: Any = RANGES[name][0]
    for end, beyond in ((domain.low, domain.low - 1), (domain.high, domain.high + 1)):
        assert parameters(Factor("x", domain), end) == {"x": end}
        with pytest.raises(ValueError, match=str(beyond)):
            parameters(Factor("x", domain), beyond)


def test_a_list_of_choices_or_subsets_holds_nothing_that_is_not_in_it() -> None:
    for name, value in (("choice", "b"), ("subsets_of", ["x", "w"])):
        with pytest.raises(ValueError, match=r".+"):
            parameters(Factor("x", ALL[name]), value)


@pytest.mark.parametrize("name", RANGES)
def test_tuning_reaches_from_one_end_of_a_range_over_its_median_to_the_other(name: str) -> None:
    domain: Any = RANGES[name][0]
    assert quantile(domain, 0.0) == domain.low
    assert quantile(domain, 0.5) == pytest.approx(RANGES[name][1], rel=0.02)
    assert quantile(domain, 1.0) == domain.high


def test_tuning_reaches_the_first_choice_and_both_sides_of_a_normal_domain() -> None:
    assert quantile(Choice(("a", "b", "c")), 0.0) == "a"
    assert quantile(Normal(5.0, 2.0), 0.8413447) == pytest.approx(7.0, abs=1e-5)  # one deviation, the normal table
    assert quantile(Normal(5.0, 2.0), 0.1586553) == pytest.approx(3.0, abs=1e-5)
