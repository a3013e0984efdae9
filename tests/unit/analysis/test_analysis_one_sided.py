"""One-sided verdicts at any time: the e-process against its definition, its error at any stop, and its decisions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.stats
from synthetic_sweeps import table

from analysis import AnalysisError, compare_sequentially, sequential_seeds, sequential_verdict
from analysis.anytime.one_sided import critical_shares, first_claims, one_sided_seeds_possible, one_sided_sequence
from analysis.anytime.simulation import simulated_power
from analysis.paired.hypotheses import Asked, Claim

NOISY = np.array([0.31, -0.12, 0.55, 0.40, 0.08, 0.73, 0.22])
BELOW, ABOVE = Claim("better", 0.0, "less"), Claim("worse", 0.0, "greater")
SHIFTED = Asked(direction="minimize", hypothesis="non_inferior", margin=0.5)


def bayes_factor(values, prior_variance):
    """By quadrature over positive effects with a half-normal prior: non-central t against central t."""
    n, t = len(values), float(scipy.stats.ttest_1samp(values, 0.0).statistic)

    def density(effect):
        prior = 2 * scipy.stats.norm.pdf(effect, scale=math.sqrt(prior_variance))
        return scipy.stats.nct.pdf(t, n - 1, effect * math.sqrt(n)) * prior

    end = max(t / math.sqrt(n), 0) + 12 / math.sqrt(n)
    return scipy.integrate.quad(density, 0, end, limit=400)[0] / scipy.stats.t.pdf(t, n - 1)


@pytest.mark.parametrize("prior_variance", [0.5, 10.0])
def test_the_one_sided_e_value_is_the_bayes_factor_with_half_a_normal_prior(prior_variance):
    for claim, values in ((ABOVE, NOISY), (BELOW, -NOISY)):
        log_e = one_sided_sequence(NOISY, claim, prior_variance=prior_variance).log_e
        for n in (3, 5, 7):
            assert math.exp(log_e[n - 1]) == pytest.approx(bayes_factor(values[:n], prior_variance), rel=1e-6)


def test_each_bound_is_where_the_e_value_of_a_shifted_claim_reaches_its_limit():
    sequence = one_sided_sequence(NOISY, BELOW)
    place = int(np.argmin(sequence.high))
    for shift, reached in ((1e-6, True), (-1e-6, False)):
        claim = Claim("non_inferior", float(sequence.high[place]) + shift, "less")
        assert bool(np.any(one_sided_sequence(NOISY, claim).log_e >= math.log(20))) is reached
    assert np.all(critical_shares(3, 0.05)[:2] == 1)  # with one or two differences nothing is decided


def test_at_any_stop_a_false_claim_is_made_no_more_often_than_alpha():
    rng = np.random.default_rng(21)
    at_margin = rng.normal(0.5, 1.0, size=(2500, 150))
    _, kinds = first_claims(one_sided_sequence(at_margin, SHIFTED.main), SHIFTED.claims)
    for claim in (1, 2):  # non_inferior and inferior, each with a null of its own
        assert 0.01 < np.mean(kinds == claim) <= 0.05
    inferior = rng.normal(0.7, 0.3, size=(1500, 100))
    _, kinds = first_claims(one_sided_sequence(inferior, SHIFTED.main), SHIFTED.claims)
    assert np.mean((kinds == 0) | (kinds == 1)) <= 0.05
    null = rng.normal(0.0, 2.0, size=(2500, 150))
    at, _ = first_claims(one_sided_sequence(null, BELOW), (BELOW,))
    assert 0.01 < np.mean(at > 0) <= 0.05


def test_an_arm_that_is_as_good_is_found_sooner_with_one_side_than_with_two():
    rng = np.random.default_rng(22)
    draws = rng.normal(0.0, 0.4, size=(600, 60))
    _, kinds = first_claims(one_sided_sequence(draws, SHIFTED.main), SHIFTED.claims)
    assert np.mean((kinds == 0) | (kinds == 1)) >= 0.95
    one = simulated_power(1.0, effect=1.0, n=12, test="sequential", sides=1, replays=600)
    two = simulated_power(1.0, effect=1.0, n=12, test="sequential", replays=600)
    assert one.estimate > two.estimate + 0.03
    flips = simulated_power(1.0, effect=1.0, n=6, test="sign_flip", sides=1, replays=400)
    assert flips.estimate > simulated_power(1.0, effect=1.0, n=6, test="sign_flip", replays=400).estimate


def test_the_first_possible_decision_is_that_of_differences_without_noise():
    for alpha in (0.05, 0.001):
        least = one_sided_seeds_possible(alpha)
        quiet = -1 - 1e-9 * np.arange(least)
        verdict = sequential_verdict(quiet, side="better", alpha=alpha)
        assert (verdict.decision, verdict.decided_at, verdict.seeds_possible) == ("better", least, least)
        assert sequential_verdict(quiet[:-1], side="better", alpha=alpha).decision == "undecided"


def test_verdicts_of_non_inferiority_and_what_later_blocks_add():
    rng = np.random.default_rng(3)
    options = {"hypothesis": "non_inferior", "margin": 0.05}
    good = sequential_verdict(rng.normal(0.0, 0.01, 12), **options)
    assert (good.decision, good.interval.high < 0.05) == ("non_inferior", True)
    assert good.interval.level == pytest.approx(0.9)
    assert good.sentence.startswith(f"non-inferior after {good.decided_at} of 12 differences (")
    assert sequential_verdict(rng.normal(-0.3, 0.01, 8), **options).decision == "better"
    assert sequential_verdict(rng.normal(0.3, 0.01, 8), **options).decision == "inferior"
    assert sequential_verdict(rng.normal(-0.3, 0.01, 8), **options, direction="maximize").decision == "inferior"
    later = sequential_verdict(rng.normal(-0.01, 0.01, 40), **options)
    assert later.decision == "better"
    [first] = [note for note in later.notes if note.startswith("non-inferior from n = ")]
    assert 3 <= int(first.split()[4]) < later.decided_at <= 40
    worse = sequential_verdict(rng.normal(0.02, 0.005, 20), **options)
    assert "within the margin, yet worse" in worse.notes
    with pytest.raises(AnalysisError, match="needs a margin"):
        sequential_verdict([0.1], hypothesis="non_inferior")


def test_several_arms_against_a_target_share_the_level_one_sided():
    rng = np.random.default_rng(4)
    values = {"a": rng.normal(3.2, 0.01, 8), "b": rng.normal(3.3, 0.01, 8)}
    found = compare_sequentially(table(values), "loss", target=3.28, side="better")
    assert (found.baseline, found.target, found.level) == (None, 3.28, 0.025)
    alone = sequential_verdict(values["a"] - 3.28, side="better", alpha=0.025)
    assert (found["a"].decision, found["a"].decided_at) == (alone.decision, alone.decided_at) == ("better", 4)
    assert found["a"].interval.low == -math.inf
    assert found["b"].decision == "undecided"
    assert "than the target 3.28;" in found.sentence
    assert "one-sided (better)" in found.to_markdown()


def test_rows_without_seeds_count_in_their_order_unless_they_are_sorted_by_the_metric():
    values = np.random.default_rng(5).normal(3.2, 0.01, 12)
    found = compare_sequentially(pd.DataFrame({"loss": values}), "loss", target=3.28)
    assert found["the only arm"].decided_at == sequential_verdict(values - 3.28).decided_at
    assert found.sentence.endswith("blocks count in the order of the rows, the only order that the table has.")
    with pytest.raises(AnalysisError, match="sorted by loss"):
        compare_sequentially(pd.DataFrame({"loss": np.sort(values)}), "loss", target=3.28)


def test_the_plan_of_a_non_inferiority_trial_counts_seeds_until_its_decision():
    plan = sequential_seeds(1.0, effect=0.0, margin=1.0, hypothesis="non_inferior", replays=500)
    assert plan.seeds_possible == 3
    assert plan.fixed == 8  # one-sided t test
    assert plan.fixed < plan.seeds_needed < 40
    with pytest.raises(AnalysisError, match="not on the side that is tested"):
        sequential_seeds(1.0, effect=0.5, side="better")
