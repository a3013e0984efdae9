"""Arms on the same items: McNemar's test by hand and against statsmodels, its level, the bootstrap, the refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from command_line import run
from statsmodels.stats.contingency_tables import mcnemar

from analysis import AnalysisError, compare_items, hierarchical_bootstrap
from analysis.tasks.hierarchical import default_levels
from analysis.tasks.items import mcnemar_p


def answers(both=40, only_a=6, only_b=15, neither=20):
    """Items of arms a and b with so many of each kind of pair."""
    pairs = [(1, 1)] * both + [(1, 0)] * only_a + [(0, 1)] * only_b + [(0, 0)] * neither
    rows = [{"arm": arm, "item": i, "correct": pair[k]} for i, pair in enumerate(pairs) for k, arm in enumerate("ab")]
    return pd.DataFrame(rows)


def test_the_exact_p_is_the_binomial_one_of_statsmodels_and_mid_p_takes_half_of_the_point():
    for first, second in ((6, 15), (0, 5), (9, 9), (30, 12)):
        reference = mcnemar([[3, first], [second, 7]], exact=True).pvalue
        assert mcnemar_p(first, second) == pytest.approx(reference)
    assert mcnemar_p(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_p(0, 5, mid=True) == pytest.approx(1 / 32)  # Fagerland et al.: exact less the point probability
    assert mcnemar_p(2, 2, mid=True) == pytest.approx(1 - 6 / 32)
    assert mcnemar_p(0, 0) == mcnemar_p(0, 0, mid=True) == 1.0


def test_one_comparison_has_the_four_numbers_the_shares_and_the_verdict():
    found = compare_items(answers(), baseline="a")["b"]
    assert (found.n, found.only_arm, found.only_baseline, found.both, found.neither) == (81, 15, 6, 40, 20)
    assert (found.share, found.baseline_share) == (pytest.approx(55 / 81), pytest.approx(46 / 81))
    assert found.interval.estimate == pytest.approx(9 / 81)
    assert (found.p, found.verdict) == (mcnemar_p(15, 6), "undecided")
    clear = compare_items(answers(only_b=25), baseline="a")
    assert clear["b"].verdict == "better"
    assert clear.sentence == "b reaches 0.21 higher accuracy than a on 91 items; the difference is decided (better)."
    assert compare_items(answers(only_b=25), baseline="a", direction="minimize")["b"].verdict == "worse"


def test_the_bootstrap_interval_has_the_width_of_the_paired_difference():
    found = compare_items(answers(300, 60, 90, 150), baseline="a", bootstrap=8000)["b"]
    shares = np.array([90, -60]) / 600
    sd = np.sqrt((150 / 600 - shares.sum() ** 2) / 600)
    half = (found.interval.high - found.interval.low) / 2
    assert half == pytest.approx(1.96 * sd, rel=0.04)


def test_where_no_item_or_few_tell_the_arms_apart_the_interval_is_no_point_and_says_so():
    same = compare_items(answers(only_a=0, only_b=0), baseline="a")
    most = 1 - 0.025 ** (1 / 60)  # the largest share of which 0 of 60 items are met with probability 2.5 %
    assert (same["b"].interval.low, same["b"].interval.high) == pytest.approx((-most, most))
    assert (same["b"].p, same["b"].verdict) == (1.0, "undecided")
    assert any("no item tells the arms apart" in note for note in same.notes)
    few = compare_items(answers(only_a=1, only_b=3), baseline="a")
    assert any("only 4 items tell the arms apart" in note for note in few.notes)
    assert not any("apart" in note for note in compare_items(answers(only_a=1, only_b=5), baseline="a").notes)


def test_under_the_null_the_exact_test_keeps_its_level_and_mid_p_comes_near_it():
    rng = np.random.default_rng(0)
    discordant = rng.binomial(60, 0.4, size=4000)
    first = rng.binomial(discordant, 0.5)
    counts = pd.Series(list(zip(first.tolist(), (discordant - first).tolist(), strict=True))).value_counts()
    exact = sum(count for pair, count in counts.items() if mcnemar_p(*pair) <= 0.05) / 4000
    middle = sum(count for pair, count in counts.items() if mcnemar_p(*pair, mid=True) <= 0.05) / 4000
    assert exact <= 0.05
    assert exact < middle <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
    assert middle > 0.035


def test_the_interval_over_items_covers_the_true_difference():
    rng, hits = np.random.default_rng(1), 0
    kinds = [0.15, 0.10, 0.45, 0.30]
    for _ in range(300):
        counts = rng.multinomial(200, kinds)
        draws = rng.multinomial(200, counts / 200, size=400)
        low, high = np.quantile((draws[:, 0] - draws[:, 1]) / 200, [0.025, 0.975])
        hits += low <= 0.05 <= high
    assert hits / 300 >= 0.91


def test_true_and_false_items_of_two_tasks_and_lost_items_are_read_as_they_are():
    table = answers().assign(task="t")
    words = table.assign(correct=table["correct"].map({1: "True", 0: "false"}))
    assert compare_items(words, baseline="a")["b"] == compare_items(table, baseline="a")["b"]
    two = pd.concat([table, table.assign(task="u")])
    assert compare_items(two, baseline="a", item=["task", "item"])["b"].n == 162
    lost = compare_items(table[~((table["arm"] == "b") & (table["item"] < 3))], baseline="a")
    assert lost["b"].n == 78
    assert "b: 3 items that it or a lacks are left out" in lost.notes


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda t: t, {"test": "exact"}, "test = 'exact' is not known"),
        (lambda t: t, {"baseline": "c"}, "baseline = 'c' is not an arm"),
        (lambda t: t, {"metric": "right"}, "metric = 'right' is not a column"),
        (lambda t: t.assign(correct=t["correct"] * 0.5), {}, "holds 0.5, and McNemar's test is of 0 and 1"),
        (lambda t: pd.concat([t.assign(seed=s) for s in (0, 1)]), {}, "has 2 seeds on the same items"),
        (lambda t: t.assign(item=t["item"] + 1000 * (t["arm"] == "b")), {}, "have no item in common"),
        (lambda t: pd.concat([t, t.assign(correct=1 - t["correct"])]), {}, "different runs in block 0"),
    ],
)
def test_what_is_no_pair_of_right_and_wrong_is_refused(change, options, words):
    with pytest.raises(AnalysisError, match=words):
        compare_items(change(answers()), **{"baseline": "a", **options})


def test_seeds_and_items_are_the_levels_where_the_table_has_no_others():
    table = pd.concat([answers().assign(seed=seed) for seed in range(3)])
    assert default_levels(table) == ("seed",)
    assert default_levels(table.assign(pretraining_seed=0)) == ("pretraining_seed", "finetuning_seed")
    found = hierarchical_bootstrap(table, "correct", nested=("seed",), baseline="a", bootstrap=200)["b"]
    assert found.estimate == pytest.approx(9 / 81)
    assert "3 seed × 81 item" in found.method


def test_the_command_prints_the_table_and_the_sentence(tmp_path, capsys):
    answers(only_b=25).to_csv(tmp_path / "answers.csv", index=False)
    words = ["items", str(tmp_path / "answers.csv"), "--baseline", "a"]
    for form, said in (("", "b reaches 0.21 higher accuracy than a on 91 items"), ("--markdown", "| b | +0.21 ")):
        code, out, _ = run(capsys, *words, *([form] if form else []))
        assert code == 0
        assert said in out
