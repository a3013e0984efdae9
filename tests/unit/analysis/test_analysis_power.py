"""Power of the paired t test against published sample sizes, statsmodels and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.anytime.simulation import sequential_seeds, simulated_power
from analysis.paired.deciding_tests import paired_t
from analysis.paired.power import equivalence_power, minimum_detectable_effect, power, seeds_needed
from stackwise_ray.core.errors import AnalysisError


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_are_those_of_the_published_tables(effect, n):
    """G*Power 3, paired t test, two-sided α = .05, power .8, for Cohen's small, medium and large effect."""
    assert seeds_needed(1.0, effect=effect) == n


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 3.0), st.integers(2, 60), st.sampled_from([0.01, 0.05, 0.1]))
def test_power_agrees_with_statsmodels(effect, n, alpha):
    from statsmodels.stats.power import TTestPower

    if effect * n**0.5 > 5:  # statsmodels' two-sided power is nan there: one side at half the level is the same
        reference = TTestPower().power(effect, n, alpha / 2, alternative="larger")
    else:
        reference = TTestPower().power(effect, n, alpha)
    assert power(2.0, effect=2.0 * effect, n=n, alpha=alpha) == pytest.approx(reference, abs=1e-6)


def test_power_at_three_seeds_is_what_a_simulation_finds():
    draws = np.random.default_rng(0).normal(1.5, 1.0, size=(40_000, 3))
    found = np.mean(paired_t(draws) <= 0.05)
    assert power(1.0, effect=1.5, n=3) == pytest.approx(found, abs=0.0075)  # three binomial standard errors


def test_power_without_an_effect_is_the_level_and_with_a_huge_one_is_one():
    assert power(1.0, effect=0.0, n=5, alpha=0.03) == pytest.approx(0.03)
    assert power(1.0, effect=1e4, n=3) == pytest.approx(1.0)
    assert power(0.01, effect=-0.02, n=5) == power(0.01, effect=0.02, n=5)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 10.0), st.floats(0.5, 0.95))
def test_seeds_needed_is_the_least_count_that_reaches_the_power(effect, target):
    n = seeds_needed(1.0, effect=effect, power=target)
    assert power(1.0, effect=effect, n=n) >= target
    assert n == 2 or power(1.0, effect=effect, n=n - 1) < target


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_minimum_detectable_effect_has_exactly_the_power_asked_for(n):
    effect = minimum_detectable_effect(0.02, n=n, power=0.9)
    assert power(0.02, effect=effect, n=n) == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize(("effect", "n"), [(0.0, 5), (0.3, 12), (0.0, 40)])
def test_equivalence_power_is_what_a_simulation_of_two_one_sided_tests_finds(effect, n):
    from scipy.stats import t

    draws = np.random.default_rng(1).normal(effect, 1.0, size=(40_000, n))
    half = t.ppf(0.95, n - 1) * draws.std(axis=1, ddof=1) / np.sqrt(n)
    found = np.mean(np.abs(draws.mean(axis=1)) + half < 0.8)
    assert equivalence_power(1.0, effect=effect, margin=0.8, n=n) == pytest.approx(found, abs=0.0085)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: power(0.0, effect=1.0, n=3), "sd_difference = 0"),
        (lambda: power(1.0, effect=1.0, n=1), "n = 1"),
        (lambda: minimum_detectable_effect(1.0, n=1), "n = 1"),
        (lambda: power(1.0, effect=float("nan"), n=3), "effect = nan"),
        (lambda: power(1.0, effect=1.0, n=3, alpha=5), "alpha = 5"),
        (lambda: seeds_needed(1.0, effect=0.0), "effect = 0"),
        (lambda: seeds_needed(1.0, effect=1e-6), "more than 100,000 seeds"),
        (lambda: seeds_needed(1.0, effect=1.0, power=1.0), "power = 1"),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(call, words):
    with pytest.raises(AnalysisError, match=words):
        call()


def test_the_package_offers_the_function_under_the_name_that_its_module_has_too():
    import analysis
    import analysis.paired.power

    assert analysis.power(1.0, effect=0.5, n=34) == pytest.approx(0.8078, abs=5e-5)


def test_the_simulated_power_of_permutation_tests_is_a_little_below_that_of_the_t_test():
    for test, n in (("sign_flip", 12), ("sign_flip", 20), ("wilcoxon", 12)):
        exact = power(1.0, effect=0.9, n=n)
        found = simulated_power(0.1, effect=0.09, n=n, test=test, replays=1500)
        assert exact - 0.09 < found.estimate < exact + 0.03
        assert found.low < found.estimate < found.high
        assert found == simulated_power(0.1, effect=0.09, n=n, test=test, replays=1500)
    assert simulated_power(1.0, effect=9.0, n=5, test="sign_flip").estimate == 0.0  # p cannot fall below 2/2^5


def test_the_seeds_of_a_design_that_looks_are_those_that_a_replay_of_verdicts_needs():
    from analysis import sequential_verdict

    plan = sequential_seeds(0.02, effect=-0.024, power=0.8, replays=1000)
    draws = np.random.default_rng(3).normal(-0.024, 0.02, size=(300, plan.seeds_needed))
    decided = [sequential_verdict(row).decided_at for row in draws]
    assert np.mean([at is not None for at in decided]) == pytest.approx(0.8, abs=0.08)
    assert plan.seeds_possible == 3
    assert plan.median <= plan.seeds_needed
    assert plan.mean <= plan.seeds_needed
    assert plan.fixed == seeds_needed(0.02, effect=0.024) < plan.seeds_needed
    by_then = simulated_power(0.02, effect=-0.024, n=plan.seeds_needed, test="sequential")
    assert by_then.low < 0.8 + 0.03
    assert by_then.high > 0.8 - 0.03


def test_equivalence_can_be_planned_where_there_is_no_effect():
    plan = sequential_seeds(1.0, effect=0.0, margin=1.5, replays=300)
    assert plan.fixed is None
    assert plan.seeds_needed < 40
    assert "fixed design" not in str(plan)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: simulated_power(1.0, effect=1.0, n=5, test="t"), "power\\(\\) has it exactly"),
        (lambda: simulated_power(1.0, effect=1.0, n=5, test="wilcox"), "did you mean 'wilcoxon'"),
        (lambda: simulated_power(1.0, effect=1.0, n=1, test="sign_flip"), "n = 1"),
        (lambda: simulated_power(1.0, effect=1.0, n=5, test="sign_flip", replays=5), "replays = 5"),
        (lambda: sequential_seeds(1.0, effect=0.0), "with a margin, equivalence"),
        (lambda: sequential_seeds(1.0, effect=0.01, replays=100), "more than anybody trains"),
        (lambda: sequential_seeds(1.0, effect=1.0, power=1.0), "power = 1"),
    ],
)
def test_what_cannot_be_simulated_is_refused_by_name(call, words):
    with pytest.raises(AnalysisError, match=words):
        call()
