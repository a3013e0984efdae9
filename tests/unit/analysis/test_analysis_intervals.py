"""Intervals against published values, scipy, brute-force inversion and their own promise of coverage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.paired.deciding_tests import sign_flip_p, wilcoxon_p
from analysis.paired.intervals import (
    Interval,
    bca_bounds,
    bca_interval,
    sign_flip_interval,
    signed_rank_probabilities,
    t_bounds,
    t_interval,
    walsh_interval,
)

# Student (1908), Cushny and Peebles' sleep data: extra hours, drug 2 minus drug 1
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
# Hollander, Wolfe and Chicken (2014), table 3.1: Hamilton depression scale, before minus after
HAMILTON = [0.952, -0.147, 1.022, 0.430, 0.620, 0.590, 0.490, -0.080, 0.010]

samples = st.lists(
    st.floats(-10, 10, allow_nan=False).map(lambda value: round(value, 3)), min_size=3, max_size=8
).filter(lambda values: len(set(values)) > 1)


def test_the_t_interval_of_the_sleep_data_is_the_published_one():
    interval = t_interval(SLEEP)
    assert interval is not None
    assert (interval.estimate, interval.n, interval.method, interval.level) == (pytest.approx(1.58), 10, "t", 0.95)
    assert (interval.low, interval.high) == (pytest.approx(0.7001, abs=5e-5), pytest.approx(2.4599, abs=5e-5))


@given(samples, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_the_t_interval_agrees_with_scipy(values, level):
    interval = t_interval(values, level)
    low, high = scipy.stats.t.interval(level, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert interval is not None
    assert interval.low == pytest.approx(low, rel=1e-9, abs=1e-12)
    assert interval.high == pytest.approx(high, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_95_percent_t_interval_covers_between_94_and_96_percent(n):
    draws = np.random.default_rng(n).normal(0.3, 2.0, size=(10_000, n))
    low, high = t_bounds(draws.mean(axis=1), draws.std(axis=1, ddof=1), n, 0.95)
    covered = np.mean((low <= 0.3) & (high >= 0.3))
    assert 0.94 <= covered <= 0.96  # binomial standard error .0022


def test_one_value_has_no_interval():
    assert t_interval([1.0]) is None
    assert sign_flip_interval([1.0]) is None
    assert walsh_interval([1.0]) is None


@settings(max_examples=60)
@given(samples, st.sampled_from([0.5, 0.75, 0.9]))
def test_the_sign_flip_interval_holds_exactly_the_means_that_its_test_accepts(values, level):
    interval = sign_flip_interval(values, level)
    sample, alpha = np.asarray(values), 1 - level
    ends = [] if interval is None else [interval.low, interval.high]
    width = np.ptp(sample) + 1.0
    for candidate in [*np.linspace(sample.min() - width, sample.max() + width, 23), *ends]:
        if interval is not None and min(abs(candidate - end) for end in ends) < 1e-6:
            continue  # at an end the test's p jumps
        accepted = sign_flip_p(sample - candidate) > alpha
        inside = interval is None or interval.low <= candidate <= interval.high
        assert accepted == inside


def test_six_blocks_are_the_fewest_with_a_95_percent_sign_flip_interval_and_it_is_their_range():
    values = [0.3, -0.1, 0.8, 0.5, 0.2, 0.9]
    assert sign_flip_interval(values[:5]) is None
    interval = sign_flip_interval(values)
    assert interval is not None
    assert (interval.low, interval.high) == (-0.1, 0.9)


def test_beyond_16_blocks_the_sign_flip_interval_is_close_to_the_t_interval_and_repeatable():
    values = np.random.default_rng(1).normal(1.0, 1.0, size=30)
    first, again, other = (sign_flip_interval(values, seed=seed) for seed in (0, 0, 1))
    reference = t_interval(values)
    assert first is not None
    assert reference is not None
    assert first == again
    assert first != other
    width = reference.high - reference.low
    assert abs(first.low - reference.low) < 0.05 * width
    assert abs(first.high - reference.high) < 0.05 * width


def test_the_walsh_interval_of_the_depression_data_is_the_published_one():
    interval = walsh_interval(HAMILTON)
    assert interval is not None
    # Hollander, Wolfe and Chicken, examples 3.3 and 3.4 (signs turned): estimate .46, interval (.010, .786)
    assert interval.estimate == pytest.approx(0.460, abs=5e-4)
    assert (interval.low, interval.high) == (pytest.approx(0.010, abs=5e-4), pytest.approx(0.786, abs=5e-4))
    assert wilcoxon_p(HAMILTON) == pytest.approx(0.0390625)  # T+ = 40, P(T+ >= 40) = .020 one-sided


@pytest.mark.parametrize("n", [1, 2, 5, 9, 20])
def test_signed_rank_probabilities_are_those_of_all_sign_patterns(n):
    probabilities = signed_rank_probabilities(n)
    assert probabilities.sum() == pytest.approx(1.0)
    assert probabilities == pytest.approx(probabilities[::-1])
    if n <= 9:
        codes = np.arange(2**n)
        sums = ((codes[:, None] >> np.arange(n)) & 1) @ np.arange(1, n + 1)
        assert probabilities * 2**n == pytest.approx(np.bincount(sums, minlength=len(probabilities)))


def test_an_interval_prints_as_many_digits_as_its_width_supports():
    assert str(Interval(-0.0341, -0.0512, -0.0171, 0.95, "t", 3)) == "−0.034 [−0.051, −0.017]"
    assert str(Interval(1234.5, 1100.0, 1300.0, 0.95, "t", 3)) == "1,234 [1,100, 1,300]"
    assert Interval(1.0, 0.0, 2.0, 0.95, "t", 3).to_dict()["method"] == "t"


# Efron and Tibshirani (1993), table 14.1: spatial test data, A
SPATIAL = [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41]


def test_the_bca_ends_of_the_spatial_test_data_are_the_published_ones():
    sample = np.array(SPATIAL, dtype=float)
    chosen = np.random.default_rng(0).integers(0, 26, size=(40_000, 26))
    jackknife = [np.delete(sample, index).var() for index in range(26)]
    assert sample.var() == pytest.approx(171.5, abs=0.05)
    low, high = bca_bounds(sample[chosen].var(axis=1), sample.var(), jackknife, 0.9)
    # published (115.8, 259.6), from 2,000 draws, whose ends scatter by about 2 and 4; percentile ends: 100.8, 233.9
    assert low == pytest.approx(115.8, abs=3.0)
    assert high == pytest.approx(259.6, abs=5.0)


def test_the_bca_interval_of_a_skewed_mean_agrees_with_scipys():
    values = np.random.default_rng(2).lognormal(size=40)
    interval = bca_interval(values, draws=40_000)
    reference = scipy.stats.bootstrap((values,), np.mean, n_resamples=40_000, method="BCa", rng=1).confidence_interval
    width = reference.high - reference.low
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), abs=0.015 * width)
    assert interval.low + interval.high > 2 * interval.estimate  # longer on the side of the tail


def test_the_bca_interval_stands_from_20_values_on_and_covers_there():
    rng = np.random.default_rng(0)
    assert bca_interval(rng.normal(size=19)) is None
    assert bca_interval([0.5] * 30) is None
    intervals = [bca_interval(rng.normal(0.3, 2.0, size=20), draws=999) for _ in range(1500)]
    covered = np.mean([interval.low <= 0.3 <= interval.high for interval in intervals if interval is not None])
    assert covered >= 0.91  # measured .93, binomial standard error .006


def test_the_same_seed_gives_the_same_bootstrap_interval_and_another_a_different_one():
    values = np.random.default_rng(5).normal(size=25)
    assert bca_interval(values) == bca_interval(values)
    assert bca_interval(values, seed=1) != bca_interval(values)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=9).filter(any))
def test_the_signed_rank_p_with_ties_is_that_of_all_sign_patterns(values):
    kept = np.array([value for value in values if value != 0], dtype=float)
    ranks = scipy.stats.rankdata(np.abs(kept))
    signs = 1 - 2 * ((np.arange(2**kept.size)[:, None] >> np.arange(kept.size)) & 1)
    sums = np.abs(signs @ ranks)
    assert wilcoxon_p([0.1 * value for value in values]) == pytest.approx(
        np.mean(sums >= abs(np.sign(kept) @ ranks) - 1e-9)
    )
