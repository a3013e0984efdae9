"""Anytime-valid verdicts: the e-process against its definition, its error at any time, and what it says of odd data."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_sweeps import table

from analysis import AnalysisError, compare_sequentially, seeds_possible, sequential_verdict
from analysis.anytime.e_process import confidence_sequence, first_crossings
from analysis.paired.deciding_tests import paired_t
from analysis.plain_json import dump_json

NOISY = [0.31, -0.12, 0.55, 0.40, 0.08, 0.73, 0.22]


def bayes_factor(values, prior_variance):
    """By quadrature over the standardised effect: non-central t against central t (the right-Haar scale drops out)."""
    x = np.asarray(values)
    n, t = len(x), float(scipy.stats.ttest_1samp(x, 0.0).statistic)
    width = math.sqrt(prior_variance)

    def density(effect):
        prior = scipy.stats.norm.pdf(effect, scale=width)
        return scipy.stats.nct.pdf(t, n - 1, effect * math.sqrt(n)) * prior

    middle = t / math.sqrt(n)
    ends = (middle - 12 / math.sqrt(n), middle + 12 / math.sqrt(n))
    return scipy.integrate.quad(density, *ends, limit=400)[0] / scipy.stats.t.pdf(t, n - 1)


@pytest.mark.parametrize("prior_variance", [0.5, 10.0])
def test_the_e_value_is_the_bayes_factor_of_the_noncentral_t_distribution(prior_variance):
    for n in (3, 5, 7):
        verdict = sequential_verdict(NOISY[:n], prior_variance=prior_variance)
        assert verdict.e_value == pytest.approx(bayes_factor(NOISY[:n], prior_variance), rel=1e-5)


def test_the_interval_holds_exactly_the_means_that_no_prefix_rejects():
    values = np.random.default_rng(4).normal(0.4, 0.5, size=25)
    verdict = sequential_verdict(values)
    low, high = verdict.interval.low, verdict.interval.high
    for candidate in np.linspace(low - 0.5, high + 0.5, 301):
        rejected = np.nanmax(confidence_sequence(values - candidate).log_e) >= math.log(20)
        assert rejected == (not low < candidate < high)


def test_the_first_difference_is_no_evidence_and_the_third_is_the_first_that_can_decide():
    assert seeds_possible() == 3
    assert sequential_verdict([5.0]).e_value == pytest.approx(1.0)
    verdict = sequential_verdict([-1.0, -1.0 - 1e-9, -1.0 + 1e-9])
    assert (verdict.decision, verdict.decided_at, verdict.seeds_possible) == ("better", 3, 3)
    # without noise the e-value is (1 + n g)^((n − 1)/2): 21^(1/2) = 4.6 at n = 2, 31 at n = 3
    assert verdict.e_value == pytest.approx(31.0, rel=1e-6)
    assert sequential_verdict([-1.0, -1.0 - 1e-9]).e_value == pytest.approx(math.sqrt(21), rel=1e-6)
    assert seeds_possible(alpha=0.01) == 4


def test_looking_after_every_block_keeps_the_level_where_a_plain_t_test_does_not():
    draws = np.random.default_rng(11).normal(0.0, 0.3, size=(2000, 200))
    decided, _ = first_crossings(confidence_sequence(draws))
    assert np.mean(decided > 0) <= 0.05  # about .026, binomial standard error .004
    looks = [paired_t(draws[:, :n]) <= 0.05 for n in range(2, 201, 4)]
    assert np.mean(np.any(looks, axis=0)) > 0.25


def test_the_interval_covers_the_mean_at_every_n_at_once():
    draws = np.random.default_rng(12).normal(0.7, 1.0, size=(2000, 150))
    sequence = confidence_sequence(draws)
    assert np.mean((sequence.low[:, -1] < 0.7) & (sequence.high[:, -1] > 0.7)) >= 0.95


def test_power_reaches_the_bars_at_30_seeds_and_three_sd_need_few():
    rng = np.random.default_rng(13)
    for effect, least in ((1.2, 0.98), (0.8, 0.70)):
        decided, kind = first_crossings(confidence_sequence(rng.normal(-effect, 1.0, size=(3000, 30))))
        assert np.mean((decided > 0) & (kind == -1)) >= least
    decided, _ = first_crossings(confidence_sequence(rng.normal(3.0, 1.0, size=(3000, 30))))
    assert np.median(decided) <= 6


numbers = st.lists(st.integers(-3000, 3000).map(lambda value: value / 1000), min_size=3, max_size=25).filter(
    lambda values: len(set(values[:3])) == 3
)


@settings(max_examples=50, deadline=None)
@given(numbers, st.sampled_from([0.01, 4.0, 250.0]))
def test_unit_and_sign_of_the_metric_change_nothing_but_the_words(values, scale):
    plain = sequential_verdict(values, margin=0.4)
    scaled = sequential_verdict([scale * value for value in values], margin=0.4 * scale)
    turned = sequential_verdict([-value for value in values], margin=0.4, direction="maximize")
    for other in (scaled, turned):
        assert (other.decision, other.decided_at) == (plain.decision, plain.decided_at)
        assert other.e_value == pytest.approx(plain.e_value, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(numbers, st.integers(3, 25))
def test_a_decision_once_made_stays_and_the_interval_only_shrinks(values, count):
    early, late = sequential_verdict(values[:count], margin=0.5), sequential_verdict(values, margin=0.5)
    if early.decision != "undecided":
        assert (late.decision, late.decided_at) == (early.decision, early.decided_at)
    if early.interval is not None and late.interval is not None:
        assert late.interval.low >= early.interval.low
        assert late.interval.high <= early.interval.high


def test_a_decision_survives_later_blocks_that_speak_against_it_and_says_so():
    verdict = sequential_verdict([-1.0, -1.1, -0.9, 1.5, -2.0, 2.5, 0.4])
    assert (verdict.decision, verdict.decided_at) == ("better", 3)
    assert verdict.e_value < 20
    assert any("fallen below 20" in note for note in verdict.notes)


def test_a_mean_that_jumps_empties_the_interval_and_is_named():
    rng = np.random.default_rng(0)
    verdict = sequential_verdict([*rng.normal(1.0, 0.05, 12), *rng.normal(-1.0, 0.05, 60)])
    assert (verdict.decision, verdict.interval) == ("worse", None)
    assert any("the interval is empty" in note for note in verdict.notes)


def test_an_interval_inside_the_margin_is_equivalent_and_yet_different_where_it_is():
    quiet = np.random.default_rng(1).normal(0.0, 0.01, size=30)
    assert sequential_verdict(quiet, margin=0.02).decision == "equivalent"
    assert sequential_verdict(quiet).decision == "undecided"
    shifted = sequential_verdict([0.004, 0.0045, 0.0055, 0.005, 0.0047], margin=0.02)
    assert shifted.decision == "equivalent"
    assert "smaller than the margin, yet different" in shifted.notes


def test_without_variance_nothing_is_decided_and_the_reason_is_given():
    for values, words in (([0.3] * 8, "the same in all 8 blocks"), ([0.0] * 8, "identical in all 8 blocks")):
        verdict = sequential_verdict(values, margin=0.1)
        assert (verdict.decision, verdict.interval, verdict.e_value) == ("undecided", None, None)
        assert words in verdict.notes[0]
    rounded = sequential_verdict([0.4 - 0.1, 0.5 - 0.2, 0.6 - 0.3])  # .3 but for rounding
    assert rounded.e_value is None


def test_one_value_none_and_values_that_are_not_finite_are_stated():
    assert "no decision is possible before 3" in sequential_verdict([0.2]).notes[0]
    empty = sequential_verdict([])
    assert (empty.n, empty.mean, empty.interval, empty.e_value) == (0, None, None, None)
    gaps = sequential_verdict([-0.31, float("nan"), -0.28, float("inf"), -0.35, -0.30])
    assert (gaps.n, gaps.decision) == (4, "better")
    assert "2 of 6 differences left out, not finite (number 2, 4)" in gaps.notes[0]


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (["many"], {}, "must be numbers"),
        ([[0.1, 0.2]], {}, "not an array of shape"),
        ([0.1], {"margin": -1.0}, "margin = -1"),
        ([0.1], {"alpha": 0.7}, "alpha = 0.7"),
        ([0.1], {"direction": "up"}, "direction = 'up'"),
        ([0.1], {"prior_variance": 0.0}, "prior_variance = 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(values, options, words):
    with pytest.raises(AnalysisError, match=words):
        sequential_verdict(values, **options)


def test_a_verdict_prints_in_every_form_and_its_json_is_strict():
    verdict = sequential_verdict([-0.31, -0.28, -0.35, -0.30])
    assert verdict.sentence.startswith("better after 3 of 4 differences (−0.310 [−0.406, −0.214], e-value 163, ")
    assert "decided after" in verdict.to_markdown()
    assert "<table>" in verdict._repr_html_()
    back = json.loads(dump_json(verdict.to_dict()))
    assert (back["decision"], back["interval"]["low"]) == ("better", verdict.interval.low)
    assert json.loads(dump_json(sequential_verdict([float("nan")]).to_dict()))["e_value"] is None


# ------------------------------------------------------------------------------------------------ several arms


def arms(count=3, blocks=12):
    rng = np.random.default_rng(7)
    base = rng.normal(2.0, 0.3, blocks)
    values = {"a": base}
    values |= {f"b{k}": base - 0.05 * k + rng.normal(0, 0.03, blocks) for k in range(count)}
    return table(values, flops=1e12)


def test_several_arms_share_the_level_and_each_is_the_verdict_on_its_own_differences():
    runs = arms()
    found = compare_sequentially(runs, "loss", "a", margin=0.04)
    wide = runs.pivot(index="seed", columns="arm", values="loss")
    for name in ("b0", "b1", "b2"):
        alone = sequential_verdict(wide[name] - wide["a"], margin=0.04, alpha=0.05 / 3)
        assert found[name].alpha == pytest.approx(0.05 / 3)
        assert (found[name].decision, found[name].decided_at) == (alone.decision, alone.decided_at)
        assert found[name].interval == alone.interval
    assert compare_sequentially(runs, "loss", "a", correction=None)["b1"].alpha == 0.05
    assert found["b2"].decision == "better"
    assert "equal flops" in found.to_markdown()


def test_blocks_count_by_start_time_else_by_their_numbers_whatever_the_order_of_the_rows():
    runs = arms(count=1)
    shuffled = runs.sample(frac=1.0, random_state=1)
    by_seed = compare_sequentially(shuffled, "loss", "a")
    assert by_seed.blocks["b0"] == tuple(str(seed) for seed in range(12))
    assert by_seed.order == "seed, from the lowest"
    assert by_seed["b0"] == compare_sequentially(runs, "loss", "a")["b0"]
    days = [f"2026-01-{28 - seed:02d}T10:00:00Z" for seed in shuffled["seed"]]
    by_start = compare_sequentially(shuffled.assign(Created=days), "loss", "a")
    assert by_start.blocks["b0"] == by_seed.blocks["b0"][::-1]
    assert by_start.order == "start time (Created)"


def test_a_block_counts_from_when_its_last_run_started():
    runs = arms(count=1)
    early = {"a": 0, "b0": 12}  # a of the last seed started first, and its partner in the first place after all of a
    starts = [
        early[arm] + (11 - seed if arm == "a" else seed) for arm, seed in zip(runs["arm"], runs["seed"], strict=True)
    ]
    found = compare_sequentially(runs.assign(started_at=starts), "loss", "a")
    assert found.blocks["b0"] == tuple(str(seed) for seed in range(12))


def test_starts_that_are_the_same_leave_the_order_to_the_rows_which_may_not_follow_the_metric():
    words = ["oak", "elm", "ash", "fir", "yew", "bay", "box", "fig", "gum", "hop", "ivy", "nut"]
    runs = arms(count=1).assign(seed=lambda table: [words[seed] for seed in table["seed"]])
    days = {word: "2026-01-01" if place < 10 else "2026-01-02" for place, word in enumerate(words)}
    dated = runs.assign(date=runs["seed"].map(days))
    assert compare_sequentially(dated, "loss", "a").order == "start time (date), and of the rows where it is the same"
    with pytest.raises(AnalysisError, match=r"that the table has where date is the same, .*sorted by loss"):
        compare_sequentially(dated.sort_values("loss"), "loss", "a")


def test_rows_are_the_last_order_and_refused_where_they_are_sorted_by_the_metric():
    words = ["oak", "elm", "ash", "fir", "yew", "bay", "box", "fig", "gum", "hop", "ivy", "nut"]
    runs = arms(count=1).assign(seed=lambda table: [words[seed] for seed in table["seed"]])
    found = compare_sequentially(runs, "loss", "a")
    assert found.blocks["b0"] == tuple(words)
    assert found.sentence.endswith("; blocks count in the order of the rows, the only order that the table has.")
    for descending in (False, True):
        with pytest.raises(AnalysisError, match="in the table they are sorted by loss"):
            compare_sequentially(runs.sort_values("loss", ascending=not descending), "loss", "a")
    mixed = pd.concat([runs[runs["arm"] == "a"], runs[runs["arm"] == "b0"].head(3).sort_values("loss")])
    assert compare_sequentially(mixed, "loss", "a")["b0"].n == 3
    few = runs.groupby("arm").head(4).sort_values(["arm", "loss"])
    with pytest.raises(AnalysisError, match="in every arm they are sorted by loss"):
        compare_sequentially(few, "loss", "a")


def test_a_lost_block_and_unequal_budgets_are_stated_or_refused():
    runs = arms(count=1)
    runs.loc[(runs["arm"] == "b0") & (runs["seed"] == 2), "loss"] = float("inf")
    found = compare_sequentially(runs, "loss", "a")
    assert found["b0"].n == 11
    assert "conditional on survival" in found["b0"].notes[0]
    assert "loss is inf" in found.to_markdown()
    two = arms(count=3)
    for arm in ("b0", "b1"):
        two.loc[(two["arm"] == arm) & (two["seed"] == 2), "loss"] = float("inf")
    lost = compare_sequentially(two, "loss", "a")
    assert [bool(lost[arm].notes) for arm in ("b0", "b1", "b2")] == [True, True, False]
    runs.loc[runs["arm"] == "b0", "flops"] = 2e12
    with pytest.raises(AnalysisError, match="flops differ by more than"):
        compare_sequentially(runs, "loss", "a")
    with pytest.raises(AnalysisError, match="correction = 'holm'"):
        compare_sequentially(runs, "loss", "a", correction="holm")
