"""Comparisons against published examples, their invariances, their verdicts, and how they are shown."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_sweeps import table

from analysis import compare
from analysis.anytime.sequential import compare_sequentially
from analysis.paired.deciding_tests import adjust_p, paired_t, sign_flip_p, smallest_sign_flip_p
from analysis.paired.effect_sizes import cliffs_delta, hedges_g, probability_of_improvement
from analysis.plain_json import dump_json
from analysis.render import Grid
from stackwise_ray.core.errors import AnalysisError

# Student (1908), Cushny and Peebles' sleep data
SLEEP = {
    "1": [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    "2": [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
}
# Darwin's maize, cross- minus self-fertilised, in eighths of an inch: Fisher (1935), The Design of Experiments, §17
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def against(values, **options):
    """The one comparison of arm "b" with baseline "a"."""
    return compare(table(values), "loss", baseline="a", equal=None, **options)["b"]


def test_the_sleep_data_give_students_published_test():
    result = compare(table(SLEEP), "loss", baseline="1", equal=None)["2"]
    assert result.difference == pytest.approx(1.58)
    assert result.p == pytest.approx(0.002833, abs=5e-7)
    assert result.interval is not None
    assert (result.interval.low, result.interval.high) == (
        pytest.approx(0.7001, abs=1e-4),
        pytest.approx(2.4599, abs=1e-4),
    )
    assert result.verdict == "worse"
    assert compare(table(SLEEP), "loss", baseline="1", equal=None, direction="maximize")["2"].verdict == "better"


def test_the_sleep_data_give_the_published_equivalence_test_and_effect_size():
    # TOSTER's introduction to t_TOST (Caldwell 2022), paired, bounds ±0.5, with the sign of drug 2 minus drug 1
    result = compare(table(SLEEP), "loss", baseline="1", equal=None, margin=0.5)["2"]
    assert result.p_equivalence == pytest.approx(0.989, abs=5e-4)
    assert result.equivalence_interval is not None
    assert result.equivalence_interval.low == pytest.approx(0.867, abs=5e-4)
    assert result.equivalence_interval.high == pytest.approx(2.293, abs=5e-4)
    assert result.hedges_g == pytest.approx(1.174, abs=5e-4)


@pytest.mark.parametrize("margin", [0.5, 1.58, 2.0, 2.2932, 4.0])
def test_equivalence_agrees_with_statsmodels(margin):
    from statsmodels.stats.weightstats import ttost_paired

    result = compare(table(SLEEP), "loss", baseline="1", equal=None, margin=margin)["2"]
    p, _, _ = ttost_paired(np.array(SLEEP["2"]), np.array(SLEEP["1"]), -margin, margin)
    assert result.p_equivalence == pytest.approx(p, rel=1e-9)
    assert (result.verdict == "equivalent") == (p < 0.05)


def test_fishers_randomisation_of_darwins_maize_is_reproduced():
    # 1,726 of the 32,768 sign patterns reach the observed sum of 314 on either side
    assert sign_flip_p(MAIZE) == pytest.approx(1726 / 32768, abs=1e-12)


def test_the_smallest_sign_flip_p_is_reached_when_all_signs_agree():
    for n in (2, 3, 5, 10):
        assert sign_flip_p(np.arange(1.0, n + 1)) == smallest_sign_flip_p(n) == 2 / 2**n


def test_holm_is_the_worked_example_and_keeps_what_could_not_be_computed_in_the_family():
    assert adjust_p([0.01, 0.04, 0.03, 0.005], "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_p([0.01, None, 0.04], "holm") == [pytest.approx(0.03), None, pytest.approx(0.08)]
    assert adjust_p([0.01, 0.04], "bonferroni") == pytest.approx([0.02, 0.08])
    assert adjust_p([0.01, 0.04, 0.03], "benjamini_hochberg") == pytest.approx([0.03, 0.04, 0.04])
    assert adjust_p([0.01, 0.04], None) == [0.01, 0.04]


@pytest.mark.parametrize("correction", ["holm", "bonferroni", "benjamini_hochberg", None])
def test_a_p_value_that_is_not_a_number_counts_as_one_that_could_not_be_computed(correction):
    assert adjust_p([math.nan, 0.01, 0.02], correction) == adjust_p([None, 0.01, 0.02], correction)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    st.sampled_from([("holm", "holm"), ("bonferroni", "bonferroni"), ("benjamini_hochberg", "fdr_bh")]),
)
def test_corrections_agree_with_statsmodels(values, names):
    from statsmodels.stats.multitest import multipletests

    assert adjust_p(values, names[0]) == pytest.approx(multipletests(values, method=names[1])[1])


def test_effect_sizes_are_those_computed_by_hand():
    # d_z = 2.5 / 1.29099, J(3) = Γ(1.5) / (√1.5 Γ(1)) = .886227 / 1.224745
    assert hedges_g([1.0, 2.0, 3.0, 4.0]) == pytest.approx(2.5 / math.sqrt(5 / 3) * 0.886227 / 1.224745, rel=1e-6)
    assert hedges_g([1.0, 2.0]) is None
    assert cliffs_delta([1, 4], [2, 3]) == 0.0
    assert cliffs_delta([1, 2, 3], [2, 2, 5]) == pytest.approx((2 - 5) / 9)
    assert probability_of_improvement([-1.0, 2.0, 0.0, -3.0], minimize=True) == pytest.approx(2.5 / 4)
    assert probability_of_improvement([-1.0, 2.0, 0.0, -3.0], minimize=False) == pytest.approx(1.5 / 4)


def test_p_values_under_the_null_are_uniform_and_the_level_is_kept():
    for n in (3, 10):
        p = paired_t(np.random.default_rng(n).normal(0.0, 0.02, size=(10_000, n)))
        assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
        assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.0066)  # three binomial standard errors


# ------------------------------------------------------------------------------------------------ invariances

cells = st.integers(-5000, 5000).map(lambda value: value / 1000)
pairs = st.lists(st.tuples(cells, cells), min_size=3, max_size=9).filter(
    lambda items: np.ptp([a - b for a, b in items]) > 1e-3
)


@settings(max_examples=25, deadline=None)
@given(pairs)
def test_swapping_arm_and_baseline_turns_the_signs_and_leaves_p(items):
    a, b = zip(*items, strict=True)
    forth = compare(table({"a": a, "b": b}), "loss", baseline="a", equal=None)["b"]
    back = compare(table({"a": a, "b": b}), "loss", baseline="b", equal=None)["a"]
    assert back.difference == pytest.approx(-forth.difference, abs=1e-12)
    assert back.p == pytest.approx(forth.p)
    assert back.p_sign_flip == forth.p_sign_flip
    assert back.hedges_g == pytest.approx(-forth.hedges_g, abs=1e-12)
    assert back.cliffs_delta == -forth.cliffs_delta
    assert (back.interval.low, back.interval.high) == (
        pytest.approx(-forth.interval.high, abs=1e-9),
        pytest.approx(-forth.interval.low, abs=1e-9),
    )
    mirrored = {"better": "worse", "worse": "better"}
    assert back.verdict == mirrored.get(forth.verdict, forth.verdict)


@settings(max_examples=20, deadline=None)
@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_runs_and_a_shift_of_whole_blocks_change_nothing(items, random):
    a, b = zip(*items, strict=True)
    plain = table({"a": a, "b": b})
    order = list(plain.index)
    random.shuffle(order)
    shuffled = compare(plain.loc[order], "loss", baseline="a", equal=None)["b"]
    shifts = {seed: random.choice([-2.0, 0.5, 8.0]) for seed in range(len(items))}
    moved = compare(plain.assign(loss=plain["loss"] + plain["seed"].map(shifts)), "loss", baseline="a", equal=None)["b"]
    first = compare(plain, "loss", baseline="a", equal=None)["b"]
    for other in (shuffled, moved):
        assert other.difference == pytest.approx(first.difference, abs=1e-9)
        assert other.p == pytest.approx(first.p, abs=1e-6)
        assert other.p_sign_flip == first.p_sign_flip
        assert other.verdict == first.verdict


@settings(max_examples=20, deadline=None)
@given(pairs)
def test_p_and_interval_are_those_of_scipys_paired_test(items):
    a, b = zip(*items, strict=True)
    result = compare(table({"a": a, "b": b}), "loss", baseline="a", equal=None, alpha=0.1)["b"]
    reference = scipy.stats.ttest_rel(b, a)
    assert result.p == pytest.approx(reference.pvalue)
    low, high = reference.confidence_interval(0.9)
    assert (result.interval.low, result.interval.high) == (pytest.approx(low), pytest.approx(high))


def test_the_same_table_gives_the_same_numbers_also_where_sign_flips_are_drawn():
    rng = np.random.default_rng(3)
    runs = table({"a": rng.normal(size=25), "b": rng.normal(0.5, 1.0, size=25)})
    first, again = (compare(runs, "loss", baseline="a", equal=None, test="sign_flip").to_dict() for _ in range(2))
    assert first == again


# --------------------------------------------------------------------------------------------------- verdicts


def test_a_clear_gap_is_better_or_worse_by_direction():
    values = {"a": [2.0, 2.1, 2.2], "b": [1.80, 1.905, 2.01]}
    assert against(values).verdict == "better"
    assert against(values, direction="maximize").verdict == "worse"
    assert against(values, direction="maximize").probability_of_improvement == 0.0


def test_a_small_gap_inside_the_margin_is_equivalent_and_says_when_it_is_different_too():
    values = {"a": [2.0, 2.1, 2.2, 2.3], "b": [2.004, 2.1045, 2.2055, 2.305]}
    result = against(values, margin=0.02)
    assert result.verdict == "equivalent"
    assert any("yet different" in note for note in result.notes)
    # two one-sided tests by hand: t = (.00475 − .02) / (sd / 2)
    differences = np.array([0.004, 0.0045, 0.0055, 0.005])
    by_hand = scipy.stats.t.cdf((differences.mean() - 0.02) / (differences.std(ddof=1) / 2), 3)
    assert result.p_equivalence == pytest.approx(by_hand, rel=1e-6)
    assert against(values).verdict == "worse"
    quiet = against({"a": [2.0, 2.1, 2.2, 2.3], "b": [2.002, 2.099, 2.2015, 2.2985]}, margin=0.02)
    assert quiet.verdict == "equivalent"
    assert quiet.notes == ()


def test_equivalence_needs_the_whole_90_percent_interval_inside_the_margin():
    values = {"a": [0.0, 0.0, 0.0, 0.0], "b": [0.01, -0.01, 0.012, -0.008]}
    edge = against(values, margin=1.0).equivalence_interval
    assert against(values, margin=max(abs(edge.low), abs(edge.high)) * 1.001).verdict == "equivalent"
    assert against(values, margin=max(abs(edge.low), abs(edge.high)) * 0.999).verdict == "undecided"


def test_an_undecided_arm_says_how_many_more_seeds_would_decide():
    result = against({"a": [2.0, 2.1, 2.2], "b": [2.01, 2.08, 2.25]})
    assert result.verdict == "undecided"
    from analysis.paired.power import seeds_needed

    assert result.more_seeds == seeds_needed(result.sd_difference, effect=result.difference) - 3
    assert against({"a": [2.0, 2.1, 2.2], "b": [2.01, 2.08, 2.25]}, margin=0.06).more_seeds < result.more_seeds


def test_one_complete_block_is_undecided_whatever_the_gap():
    result = against({"a": [2.0], "b": [1.0]})
    assert (result.verdict, result.n, result.p, result.interval, result.more_seeds) == (
        "undecided",
        1,
        None,
        None,
        None,
    )
    assert result.notes == ("1 complete block; 2 are the least for a verdict",)
    assert "no interval" in result.difference_text


def test_one_complete_block_makes_no_plan_from_noise_that_was_not_observed():
    text = str(compare(table({"a": [2.0], "b": [1.0]}), "loss", baseline="a"))
    assert "It is undecided whether b reaches lower loss than a" in text
    assert "−1.00 [no interval]" in text
    assert "undecided (n < 2)" in text
    for claim in ("(+", "more", "power .8, if"):
        assert claim not in text


def test_the_remarks_say_that_the_p_of_an_equivalent_arm_is_that_of_a_difference():
    values = table({"a": [2.0, 2.1, 2.2], "b": [2.001, 2.0995, 2.2015]})
    found = compare(values, "loss", baseline="a", margin=0.1)
    assert found.sentence == "b is equivalent to a in loss (budgets not checked), within ±0.10 nats."
    assert any("the p beside it is for a difference" in line for line in found.remarks())
    assert not any("for a difference" in line for line in compare(values, "loss", baseline="a").remarks())


def test_the_caption_of_a_latex_table_is_made_of_sentences():
    grid = Grid(("a",), (("1",),), "the title", ("of seeds;", "  a plan", "said."))
    assert r"\caption{the title. of seeds; a plan. said.}" in grid.to_latex()


def test_zero_variance_is_named_and_not_decided():
    result = against({"a": [2.0, 2.5, 3.0], "b": [2.25, 2.75, 3.25]})
    assert result.verdict == "undecided"
    assert result.p is None
    assert "zero variance" in result.notes[0]
    rounded = against({"a": [0.1, 0.2, 0.3], "b": [0.4, 0.5, 0.6]})  # .3 but for rounding
    assert "zero variance" in rounded.notes[0]


def test_arms_that_agree_to_the_last_bit_are_called_identical():
    values = {"a": [2.0, 2.5, 3.0], "b": [2.0, 2.5, 3.0]}
    assert against(values).verdict == "undecided"
    assert against(values, margin=0.01).verdict == "equivalent"
    assert "identical in all 3 blocks" in against(values).notes


def test_the_interval_may_leave_zero_out_where_the_correction_forbids_a_verdict():
    rng = np.random.default_rng(0)
    base = rng.normal(size=4)
    values = {"a": base, "b": base + np.array([0.02, 0.05, 0.08, 0.05])}
    values |= {f"other{k}": base + rng.normal(0, 0.5, 4) for k in range(6)}
    result = compare(table(values), "loss", baseline="a", equal=None)["b"]
    assert result.p < 0.05 < result.p_adjusted
    assert result.verdict == "undecided"
    assert any("leaves 0 out" in note for note in result.notes)


def test_the_sign_flip_test_decides_only_from_six_blocks_on():
    values = {"a": [0.0] * 6, "b": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}
    six = against(values, test="sign_flip")
    five = against({name: series[:5] for name, series in values.items()}, test="sign_flip")
    assert (six.verdict, six.p) == ("worse", 2 / 64)
    assert (five.verdict, five.p, five.interval) == ("undecided", 2 / 32, None)
    assert any("too few" in note for note in five.notes)
    assert against(values, test="wilcoxon").p == 2 / 64


def test_maximizing_turns_the_verdict_and_nothing_else():
    values = {"a": [0.70, 0.72, 0.74], "b": [0.75, 0.775, 0.79]}
    low, high = against(values), against(values, direction="maximize")
    assert (low.verdict, high.verdict) == ("worse", "better")
    assert (low.difference, low.p, low.interval) == (high.difference, high.p, high.interval)


def test_every_rendering_holds_the_same_verdict_and_json_is_strict():
    runs = table({"a": [2.0, 2.1, 2.2], "b_1": [1.8, 1.905, 2.01], "c": [2.0, 2.2, 2.1]}, flops=1e12)
    comparison = compare(runs, "loss", baseline="a", margin=0.01)
    shown = comparison["b_1"].difference_text
    assert shown in comparison.to_markdown()
    assert r"b\_1" in comparison.to_latex()
    assert shown in str(comparison)
    assert "<table>" in comparison._repr_html_()
    said = "b_1 reaches 0.20 nats lower loss than a at equal FLOPs; one of two differences is decided; c is undecided."
    assert comparison.sentence == said
    assert list(comparison.table["arm"]) == ["b_1", "c"]
    assert comparison.table["verdict"].tolist() == ["better", "undecided"]
    back = json.loads(dump_json(comparison.to_dict()))
    assert back["arms"][0]["interval"]["low"] == comparison["b_1"].interval.low
    with pytest.raises(KeyError):
        comparison["nobody"]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_terminal_table_cuts_nothing_off_at_any_width(width):
    from rich.console import Console

    runs = table({"attention": [2.0, 2.1, 2.2], "resolvent": [1.8, 1.905, 2.01]}, flops=1e12)
    console = Console(width=width, record=True, no_color=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(compare(runs, "loss", baseline="attention"))
    text = console.export_text()
    squeezed = "".join(text.split())
    for word in ("verdict", "better", "baseline", "signflip", "equalflops"):
        assert word in squeezed
    assert "…" not in text


def test_bca_intervals_stand_beside_the_verdict_from_20_blocks_on_and_the_reason_below():
    rng = np.random.default_rng(4)
    values = {"a": rng.normal(2.0, 0.1, 24), "b": rng.normal(1.9, 0.1, 24)}
    many = compare(table(values), "loss", baseline="a", equal=None)
    assert many["b"].bca.n == 24
    assert "b: BCa bootstrap interval −0." in many.to_markdown()
    assert "no bootstrap interval" not in many.to_markdown()
    few = compare(table({name: series[:19] for name, series in values.items()}), "loss", baseline="a", equal=None)
    assert few["b"].bca is None
    assert "no bootstrap interval below 20 blocks: BCa at 95 % covers .73 with 3 blocks" in few.to_markdown()


@pytest.mark.parametrize(("test", "arms", "fewest"), [("sign_flip", 1, 6), ("sign_flip", 8, 9), ("wilcoxon", 8, 9)])
def test_a_permutation_test_asks_for_the_blocks_with_which_it_can_reject_at_all(test, arms, fewest):
    base = np.random.default_rng(0).normal(2.0, 0.1, 5)
    noise = np.array([0.0, 0.001, -0.001, 0.002, 0.0005])
    values = {"a": base} | {f"b{k}": base + 0.5 + noise * (k + 1) for k in range(arms)}
    result = compare(table(values), "loss", baseline="a", equal=None, test=test)["b0"]
    assert (result.verdict, result.n + result.more_seeds) == ("undecided", fewest)


def test_one_row_has_one_number_format():
    values = {"a": [2000.0, 2010.0, 2022.0], "b": [5462.0, 5480.0, 5470.0]}
    runs = table(values).rename(columns={"loss": "throughput/tokens_per_s"})
    text = str(compare(runs, "throughput/tokens_per_s", baseline="a", equal=None))
    assert "2.01k" in text
    assert "+3.46k [+3.43k, +3.49k]" in text
    assert "3,4" not in text


@pytest.mark.parametrize("equal", [None, "none", "None"])
def test_no_equal_budget_is_required_by_none_and_by_the_word(equal):
    values = table(SLEEP).assign(**{"flops/total": [1e9] * 10 + [2e9] * 10})
    found = compare(values, "loss", baseline="1", equal=equal)
    assert (found.equal, found.budgets) == (None, None)
    assert compare_sequentially(values, "loss", baseline="1", equal=equal)["2"].n == 10
    with pytest.raises(AnalysisError, match="compare at equal budgets"):
        compare(values, "loss", baseline="1")
