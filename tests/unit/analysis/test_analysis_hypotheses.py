"""One side, a target and non-inferiority: against scipy and by hand, their error, their words and their refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from synthetic_sweeps import table

from analysis import AnalysisError, compare
from analysis.paired.deciding_tests import paired_t, wilcoxon_p
from analysis.paired.hypotheses import Asked
from analysis.paired.power import minimum_detectable_effect, power, seeds_needed
from analysis.paired.power_table import power_table

BASE = [2.0, 2.1, 2.2, 2.05, 2.15]
NEAR = [2.004, 2.103, 2.199, 2.056, 2.151]
RUNS = {"a": BASE, "near": NEAR, "far": [value + 0.2 + 0.001 * k for k, value in enumerate(BASE)]}


def ends(result):
    return (result.interval.low, result.interval.high)


def found(values=RUNS, arm="near", **options):
    return compare(table(values), "loss", equal=None, **options)[arm]


# -------------------------------------------------------------------------------------------------- a target


def test_against_a_target_every_arm_has_the_one_sample_test_of_scipy():
    result = compare(table(RUNS), "loss", target=2.3, correction=None)
    assert (result.baseline, result.target, result.family) == (None, 2.3, 3)
    for arm, values in RUNS.items():
        reference = scipy.stats.ttest_1samp(values, 2.3)
        low, high = reference.confidence_interval(0.95)
        assert result[arm].p == pytest.approx(reference.pvalue)
        assert (result[arm].interval.low, result[arm].interval.high) == (
            pytest.approx(low - 2.3),
            pytest.approx(high - 2.3),
        )
        assert result[arm].difference == pytest.approx(np.mean(values) - 2.3)
    assert {arm: result[arm].verdict for arm in RUNS} == {"a": "better", "near": "better", "far": "undecided"}
    assert "than the target 2.3;" in result.sentence


def test_a_target_needs_no_pairs_no_seeds_and_no_arms():
    uneven = pd.concat([table({"a": BASE}), table({"b": NEAR[:3]}).assign(seed=[7, 8, 9])])
    result = compare(uneven, "loss", target=2.0)
    assert (result["a"].n, result["b"].n, result.missing) == (5, 3, ())
    bare = compare(pd.DataFrame({"loss": NEAR}), "loss", target=2.0)
    assert bare["the only arm"].p == pytest.approx(scipy.stats.ttest_1samp(NEAR, 2.0).pvalue)
    assert "every row counts as a run of its own" in " ".join(bare.remarks())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": 2.0, "baseline": "a"}, "compare with one of them"),
        ({}, "neither a baseline nor a target"),
        ({"target": float("nan")}, "must be finite"),
        ({"baseline": "a", "side": "less"}, "side = 'less' is not known; choose one of better, both, worse"),
        ({"baseline": "a", "hypothesis": "noninferior", "margin": 0.1}, "did you mean 'non_inferior'"),
        ({"baseline": "a", "hypothesis": "non_inferior"}, "needs a margin"),
        ({"baseline": "a", "hypothesis": "non_inferior", "margin": 0.1, "side": "better"}, "one-sided by itself"),
        ({"baseline": "a", "side": "better", "margin": 0.1}, "a margin on one side is non-inferiority"),
    ],
)
def test_a_question_whose_parts_exclude_each_other_is_refused(options, words):
    with pytest.raises(AnalysisError, match=words):
        compare(table(RUNS), "loss", **options)


# --------------------------------------------------------------------------------------------------- one side


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("side", ["better", "worse"])
def test_one_side_is_scipys_one_sided_test_and_interval(side, direction):
    result = found(baseline="a", side=side, direction=direction)
    alternative = "less" if (side == "better") == (direction == "minimize") else "greater"
    reference = scipy.stats.ttest_rel(NEAR, BASE, alternative=alternative)
    low, high = reference.confidence_interval(0.95)
    assert result.p == pytest.approx(reference.pvalue)
    assert (result.interval.low, result.interval.high) == (pytest.approx(low), pytest.approx(high))
    assert result.minimum_detectable_effect < found(baseline="a").minimum_detectable_effect
    assert result.bca is None


def test_what_lies_on_the_other_side_is_undecided_and_no_seeds_are_asked_for():
    result = compare(table(RUNS), "loss", baseline="a", equal=None, side="better")
    assert {arm.verdict for arm in result.arms} == {"undecided"}
    assert result["far"].more_seeds is None
    assert "not on the side that is asked for (better)" in " ".join(result["far"].notes)
    assert result.sentence.endswith("; one-sided: only whether an arm is better was tested.")
    assert "[−∞, " in result.to_markdown()
    worse = compare(table(RUNS), "loss", baseline="a", equal=None, side="worse", test="wilcoxon")["far"]
    assert (worse.p, worse.verdict) == (1 / 32, "undecided")  # Holm over two arms
    alone = found({"a": BASE, "far": RUNS["far"]}, "far", baseline="a", side="worse", test="sign_flip")
    assert (alone.p, alone.verdict) == (1 / 32, "worse")


# --------------------------------------------------------------------------------------------- non-inferiority


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_non_inferiority_is_the_shifted_one_sided_test(direction, sign):
    values = {"a": BASE, "b": [a + sign * (n - a) for a, n in zip(BASE, NEAR, strict=True)]}
    result = found(values, "b", baseline="a", hypothesis="non_inferior", margin=0.01, direction=direction)
    shifted = np.subtract(values["b"], BASE) - sign * 0.01
    alternative = "less" if sign == 1 else "greater"
    assert result.p == pytest.approx(scipy.stats.ttest_1samp(shifted, 0, alternative=alternative).pvalue)
    low, high = scipy.stats.ttest_rel(values["b"], BASE).confidence_interval(0.90)
    assert (result.interval.low, result.interval.high) == (pytest.approx(low), pytest.approx(high))
    assert result.interval.level == pytest.approx(0.9)
    assert result.verdict == "non_inferior"
    assert [claim.decision for claim in result.claims] == ["better", "non_inferior", "inferior"]


def test_the_verdict_follows_the_bounds_of_the_interval():
    options = {"baseline": "a", "hypothesis": "non_inferior", "correction": None}
    edge = found(margin=1.0, **options).interval.high
    assert found(margin=edge * 0.999, **options).verdict == "undecided"
    assert found(margin=edge * 1.001, **options).verdict == "non_inferior"
    far = found(arm="far", baseline="a", hypothesis="non_inferior", margin=0.1)
    assert far.verdict == "inferior"
    assert found({"b": BASE, "a": RUNS["far"]}, "b", margin=0.1, **options).verdict == "better"
    worse = found(arm="far", baseline="a", hypothesis="non_inferior", margin=0.3)
    assert (worse.verdict, worse.yet_different) == ("non_inferior", True)
    assert "within the margin, yet worse" in worse.notes
    same = found({"a": BASE, "b": BASE}, "b", baseline="a", hypothesis="non_inferior", margin=0.1)
    assert (same.verdict, same.p) == ("non_inferior", None)


def test_wilcoxon_and_sign_flips_decide_non_inferiority_by_their_own_bounds():
    rng = np.random.default_rng(0)
    base = rng.normal(2, 0.1, 8)
    values = {"a": base, "b": base + rng.normal(0.003, 0.004, 8)}
    by_ranks = found(values, "b", baseline="a", hypothesis="non_inferior", margin=0.01, test="wilcoxon")
    assert by_ranks.p == wilcoxon_p(np.subtract(values["b"], base) - 0.01, "less")
    assert (by_ranks.verdict == "non_inferior") == (by_ranks.interval.high < 0.01)
    by_signs = found(values, "b", baseline="a", hypothesis="non_inferior", margin=0.01, test="sign_flip")
    assert (by_signs.verdict == "non_inferior") == (by_signs.interval.high < 0.01)
    assert by_signs.p == by_signs.p_sign_flip


def test_at_the_margin_an_arm_is_called_non_inferior_in_one_of_twenty_and_so_inferior():
    draws = np.random.default_rng(1).normal(0.5, 1.0, size=(8000, 4))
    for claim in Asked(direction="minimize", hypothesis="non_inferior", margin=0.5).claims:
        share = np.mean(paired_t(draws - claim.threshold, claim.alternative) <= 0.05)
        at_most = 0.05 if claim.decision != "better" else 0.02  # its null, 0 or worse, holds by far
        assert share <= at_most + 3.3 * np.sqrt(0.05 * 0.95 / 8000)
        assert claim.decision == "better" or share > 0.04


def test_holm_corrects_each_kind_of_claim_over_the_arms():
    result = compare(table(RUNS), "loss", baseline="a", equal=None, hypothesis="non_inferior", margin=0.006)
    for place in range(3):
        raw = [arm.claims[place].p for arm in result.arms]
        low, high = sorted(raw)
        expected = {low: min(1, 2 * low), high: min(1, max(2 * low, high))}
        assert [arm.claims[place].p_adjusted for arm in result.arms] == pytest.approx([expected[p] for p in raw])
    assert result["near"].p_adjusted == result["near"].claims[1].p_adjusted


def test_the_sentence_says_by_which_margin():
    alone = {"a": BASE, "near": NEAR}

    def sentence(values, margin):
        return compare(
            table(values), "loss", baseline="a", equal=None, hypothesis="non_inferior", margin=margin
        ).sentence

    assert (
        sentence(alone, 0.01) == "near is non-inferior to a in loss (budgets not checked), by the margin of 0.010 nats."
    )
    assert sentence(alone, 0.003).startswith("It is undecided whether near is non-inferior to a in loss")
    far = {"a": BASE, "far": RUNS["far"]}
    assert sentence(far, 0.1).startswith("far is inferior to a in loss (budgets not checked), by the margin of 0.10")
    assert "(one non-inferior, one inferior)" in sentence(RUNS, 0.02)


# ------------------------------------------------------------------------------------------------------- power


def test_one_sided_power_is_that_of_statsmodels():
    from statsmodels.stats.power import TTestPower

    for n, size in ((5, 1.0), (12, 0.7)):
        expected = TTestPower().power(size, n, 0.05, alternative="larger")
        assert power(1.0, effect=size, n=n, sides=1) == pytest.approx(expected, abs=1e-9)
        assert power(1.0, effect=0.5 - size, n=n, margin=0.5) == pytest.approx(expected, abs=1e-9)


def test_seeds_for_non_inferiority_reach_the_power_and_one_fewer_does_not():
    needed = seeds_needed(0.01, effect=0.002, margin=0.012)
    assert (
        power(0.01, effect=0.002, n=needed, margin=0.012) >= 0.8 > power(0.01, effect=0.002, n=needed - 1, margin=0.012)
    )
    least = minimum_detectable_effect(0.01, n=needed, sides=1)
    assert least <= 0.010 < minimum_detectable_effect(0.01, n=needed - 1, sides=1)
    with pytest.raises(AnalysisError, match="the arm is inferior, and no number of seeds shows otherwise"):
        seeds_needed(1.0, effect=0.5, margin=0.5)


def test_at_the_margin_the_power_is_the_level_and_beyond_it_less():
    assert power(1.0, effect=0.5, n=8, margin=0.5) == pytest.approx(0.05, abs=1e-9)
    assert 0 < power(1.0, effect=0.8, n=8, margin=0.5) < 0.02


def test_the_power_table_asks_for_a_hypothesis_beside_a_margin():
    found = power_table(0.01, effect=None, n=5, hypothesis="non_inferior", margin=0.01)
    assert found.facts["seeds_needed"] == seeds_needed(0.01, effect=0.0, margin=0.01)
    assert "is not inferior by a margin of 0.01 needs 8 seeds" in " ".join(found.lines)
    with pytest.raises(AnalysisError, match="add --hypothesis non_inferior"):
        power_table(0.01, effect=0.1, n=None, margin=0.01)
    with pytest.raises(AnalysisError, match="say what to find"):
        power_table(0.01, effect=None, n=None)
