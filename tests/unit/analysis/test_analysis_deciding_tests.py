"""The tests that decide, one-sided and with ties: against all sign patterns, against scipy, and under the null."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import scipy.stats

from analysis.paired.deciding_tests import (
    fewest_to_reject,
    paired_t,
    ranked_differences,
    sign_flip_p,
    smallest_sign_flip_p,
    wilcoxon_p,
)
from analysis.paired.effect_sizes import cliffs_delta
from analysis.paired.intervals import sign_flip_interval, sign_patterns, signed_rank_probabilities, walsh_interval

TIED = [3.0, -1.0, 2.0, 2.0, 0.0, -3.0, 3.0, 5.0, 1.0, 0.0, 4.0]
ALTERNATIVES = ("two-sided", "less", "greater")


def by_enumeration(values, alternative):
    """Of the signed-rank statistic over every sign pattern of the mean ranks, zeros dropped."""
    kept = np.array([value for value in values if value != 0])
    ranks = scipy.stats.rankdata(np.abs(kept))
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(kept))))
    sums, observed = signs @ ranks, float(np.sign(kept) @ ranks)
    if alternative == "two-sided":
        return float((np.abs(sums) >= abs(observed) - 1e-9).mean())
    return float((sums <= observed + 1e-9).mean() if alternative == "less" else (sums >= observed - 1e-9).mean())


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("values", [TIED, [1.0, 1.0, 1.0, -1.0], [0.5, -0.25, 2.0, 0.75, 1.5, -0.1], [2.0, 2.0]])
def test_the_signed_rank_test_with_ties_is_the_enumeration_of_all_signs(values, alternative):
    assert wilcoxon_p(values, alternative) == pytest.approx(by_enumeration(values, alternative), abs=1e-12)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("n", [8, 60, 300])
def test_the_signed_rank_test_without_ties_is_scipys_exact_one(n, alternative):
    values = np.random.default_rng(n).normal(0.1, 1.0, n)
    expected = scipy.stats.wilcoxon(values, alternative=alternative, method="exact").pvalue
    assert wilcoxon_p(values, alternative) == pytest.approx(expected, rel=1e-9)


def test_beyond_the_exact_range_the_normal_form_takes_over_without_a_step():
    values = np.round(np.random.default_rng(1).normal(0.08, 1.0, 501), 1)  # many ties and some zeros
    kept = values[values != 0]
    assert wilcoxon_p(kept[:400]) == pytest.approx(scipy.stats.wilcoxon(kept[:400], method="approx").pvalue, rel=0.01)
    wide = np.random.default_rng(2).normal(0.08, 1.0, 3000)
    assert wilcoxon_p(wide) == pytest.approx(scipy.stats.wilcoxon(wide, method="approx").pvalue)
    interval = walsh_interval(wide)
    assert interval.estimate == pytest.approx(np.median((wide[:, None] + wide)[np.triu_indices(3000)] / 2), abs=1e-9)
    assert wilcoxon_p(wide - interval.low + 1e-3) < 0.05 < wilcoxon_p(wide - interval.low - 1e-3)
    assert wilcoxon_p(wide - interval.high - 1e-3) < 0.05 < wilcoxon_p(wide - interval.high + 1e-3)


def test_five_hundred_tied_differences_are_counted_out_in_a_moment():
    values = np.random.default_rng(3).integers(-4, 6, 560).astype(float)
    began = time.process_time()
    exact = wilcoxon_p(values[values != 0][:500])
    assert time.process_time() - began < 1.0
    assert exact == pytest.approx(scipy.stats.wilcoxon(values[values != 0][:500], method="approx").pvalue, rel=0.06)
    assert signed_rank_probabilities(500).sum() == pytest.approx(1.0)


def test_zeros_are_dropped_ties_are_counted_and_rounding_makes_neither():
    ranked, zeros, tied = ranked_differences(TIED)
    assert (len(ranked), zeros, tied) == (9, 2, 7)  # two of 1, two of 2, three of 3
    assert ranked_differences([0.3 - 0.1 - 0.2, 0.1, 0.4 - 0.3])[1:] == (1, 2)
    assert wilcoxon_p([0.0, 0.0]) == 1.0


@pytest.mark.parametrize("alternative", ["less", "greater"])
def test_one_sided_p_values_are_those_of_scipy_and_by_hand(alternative):
    values = np.array([0.4, -0.1, 0.7, 0.3, 0.2])
    reference = scipy.stats.ttest_1samp(values, 0.0, alternative=alternative).pvalue
    assert paired_t(values, alternative) == pytest.approx(reference)
    # of the 32 sums, those of 1.5 and 1.7 reach the observed 1.5
    assert sign_flip_p(values, alternative=alternative) == pytest.approx(
        2 / 32 if alternative == "greater" else 31 / 32
    )
    assert smallest_sign_flip_p(5, sides=1) == sign_flip_p([1.0] * 5, alternative="greater") == 1 / 32
    assert fewest_to_reject(1 / 32, sides=1) == 5


def test_one_sided_p_values_are_uniform_under_the_null_and_too_large_beyond_it():
    draws = np.random.default_rng(5).normal(0.0, 0.02, size=(5000, 4))
    assert scipy.stats.kstest(paired_t(draws, "less"), "uniform").pvalue > 0.01
    assert np.mean(paired_t(draws + 0.01, "less") <= 0.05) < 0.01
    flips = np.array([sign_flip_p(row, alternative="less") for row in draws[:1500, :]])
    ranks = np.array([wilcoxon_p(row, "less") for row in draws[:800]])
    for p, levels in ((flips, (1, 4, 8)), (ranks, (1, 2, 7))):  # exact: P(p ≤ k/16) = k/16 where k/16 is a p
        for k in levels:
            assert np.mean(p <= k / 16) == pytest.approx(k / 16, abs=3.5 * np.sqrt(k / 16 * (1 - k / 16) / len(p)))


def test_ten_thousand_differences_need_neither_gigabytes_nor_minutes():
    values = np.random.default_rng(6).normal(0.02, 1.0, 3000)
    assert sign_patterns(10_000) * 10_000 <= 2**26
    assert sign_flip_p(values[:200]) == pytest.approx(float(paired_t(values[:200])), abs=0.01)
    assert sign_flip_interval(values[:60]) is not None
    rng = np.random.default_rng(7)
    ours, theirs = rng.integers(0, 5, 40).astype(float), rng.integers(0, 6, 30).astype(float)
    assert cliffs_delta(ours, theirs) == pytest.approx(float(np.sign(ours[:, None] - theirs).mean()))
