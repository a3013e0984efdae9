"""Ranks over tasks against published tables, scipy, and what must be refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import AnalysisError, rank
from analysis.plain_json import dump_json
from analysis.plots.diagrams import critical_difference
from analysis.tasks.ranking import _groups as groups_of
from analysis.tasks.ranking import friedman, nemenyi_critical_difference

# Demšar (2006), table 6: AUC of four versions of C4.5 on 14 data sets
C45 = {
    "C4.5": [0.763, 0.599, 0.954, 0.628, 0.882, 0.936, 0.661, 0.583, 0.775, 1.0, 0.940, 0.619, 0.972, 0.957],
    "C4.5+m": [0.768, 0.591, 0.971, 0.661, 0.888, 0.931, 0.668, 0.583, 0.838, 1.0, 0.962, 0.666, 0.981, 0.978],
    "C4.5+cf": [0.771, 0.590, 0.968, 0.654, 0.886, 0.916, 0.609, 0.563, 0.866, 1.0, 0.965, 0.614, 0.975, 0.946],
    "C4.5+m+cf": [0.798, 0.569, 0.967, 0.657, 0.898, 0.931, 0.685, 0.625, 0.875, 1.0, 0.962, 0.669, 0.974, 0.970],
}
# Hollander and Wolfe (1973), p. 140: seconds to round first base by three methods, 22 players (R's ?friedman.test)
ROUNDING = [
    (5.40, 5.50, 5.55),
    (5.85, 5.70, 5.75),
    (5.20, 5.60, 5.50),
    (5.55, 5.50, 5.40),
    (5.90, 5.85, 5.70),
    (5.45, 5.55, 5.60),
    (5.40, 5.40, 5.35),
    (5.45, 5.50, 5.35),
    (5.25, 5.15, 5.00),
    (5.85, 5.80, 5.70),
    (5.25, 5.20, 5.10),
    (5.65, 5.55, 5.45),
    (5.60, 5.35, 5.45),
    (5.05, 5.00, 4.95),
    (5.50, 5.50, 5.40),
    (5.45, 5.55, 5.50),
    (5.55, 5.55, 5.35),
    (5.45, 5.50, 5.55),
    (5.50, 5.45, 5.25),
    (5.65, 5.60, 5.40),
    (5.70, 5.65, 5.55),
    (6.30, 6.30, 6.25),
]


def runs(values, metric="score"):
    """Arm to its values by task, as a table."""
    rows = [
        {"arm": arm, "task": f"t{k}", metric: value} for arm, cells in values.items() for k, value in enumerate(cells)
    ]
    return pd.DataFrame(rows)


def test_the_ranks_of_demsars_example_are_the_published_ones():
    found = rank(runs(C45), "score", direction="maximize")
    published = {"C4.5+m+cf": 1.964, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5": 3.143}
    assert list(found.mean_ranks) == list(published)
    assert found.mean_ranks == pytest.approx(published, abs=5e-4)
    # published without the correction for ties: χ² 9.28, F 3.69
    ranks = scipy.stats.rankdata(-np.array(list(C45.values())).T, axis=1)
    plain = found.chi_square * ((ranks - 2.5) ** 2).sum() / (14 * 4 * 15 / 12)
    assert plain == pytest.approx(9.28, abs=5e-3)
    assert 13 * plain / (14 * 3 - plain) == pytest.approx(3.69, abs=5e-3)
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert nemenyi_critical_difference(4, 14, alpha=0.1) == pytest.approx(1.12, abs=5e-3)
    assert found.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)


@pytest.mark.parametrize(("arms", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_values_are_those_of_demsars_table_5(arms, q):
    tasks = 11
    assert nemenyi_critical_difference(arms, tasks) == pytest.approx(
        q * (arms * (arms + 1) / (6 * tasks)) ** 0.5, rel=4e-4
    )


def test_friedmans_test_with_ties_is_the_one_that_r_prints():
    found = rank(runs(dict(zip("rnw", zip(*ROUNDING, strict=True), strict=True))), "score")
    assert (found.chi_square, found.p) == (pytest.approx(11.143, abs=5e-4), pytest.approx(0.003805, abs=5e-7))
    assert next(iter(found.mean_ranks)) == "w"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 6), st.integers(2, 15))
def test_friedmans_test_agrees_with_scipy(seed, arms, tasks):
    values = np.random.default_rng(seed).integers(0, 6, size=(tasks, arms)) + np.arange(arms) / 3
    statistic, p, _, _ = friedman(scipy.stats.rankdata(values, axis=1))
    reference = scipy.stats.friedmanchisquare(*values.T)
    assert (statistic, p) == (pytest.approx(reference.statistic), pytest.approx(reference.pvalue))


def test_the_level_of_friedmans_test_is_kept_under_the_null():
    rng = np.random.default_rng(5)
    ranks = scipy.stats.rankdata(rng.normal(size=(1500, 20, 4)), axis=2)
    rejected = np.mean([friedman(block)[3] <= 0.05 for block in ranks])
    assert rejected == pytest.approx(0.05, abs=0.017)  # three binomial standard errors


def test_every_pair_has_wilcoxons_p_with_holm_over_all_pairs():
    found = rank(runs(C45), "score", direction="maximize")
    assert len(found.pairs) == 6
    by_name = {frozenset((pair.first, pair.second)): pair for pair in found.pairs}
    one = by_name[frozenset(("C4.5", "C4.5+m"))]
    difference = np.round(np.subtract(C45["C4.5"], C45["C4.5+m"]), 3)
    # scipy enumerates the signs where there are at most 13 values and ties
    assert one.p == pytest.approx(scipy.stats.wilcoxon(difference[difference != 0]).pvalue)
    assert min(pair.p_adjusted for pair in found.pairs) == pytest.approx(6 * min(pair.p for pair in found.pairs))
    assert not any(pair.nemenyi for pair in found.pairs)


def test_arms_closer_than_the_critical_difference_form_overlapping_groups():
    rng = np.random.default_rng(2)
    values = {name: shift + rng.normal(0, 0.6, 30) for name, shift in zip("abcd", (0.0, 0.5, 1.0, 3.0), strict=True)}
    found = rank(runs(values), "score")
    levels = found.mean_ranks
    for group in found.groups:
        assert levels[group[-1]] - levels[group[0]] < found.critical_difference
    apart = {(pair.first, pair.second) for pair in found.pairs if pair.nemenyi}
    together = {(x, y) for group in found.groups for x in group for y in group if x != y}
    assert ("a", "d") in apart
    assert not apart & together
    assert {pair for pair in together if levels[pair[0]] < levels[pair[1]]} | apart == {
        (pair.first, pair.second) for pair in found.pairs
    }


def test_a_chain_of_close_arms_is_no_group_where_its_ends_lie_apart():
    assert groups_of({"a": 1.0, "b": 2.0, "c": 3.0, "d": 6.0}, 1.5) == (("a", "b"), ("b", "c"), ("d",))
    assert groups_of({"a": 1.0, "b": 2.0, "c": 3.0}, 2.5) == (("a", "b", "c"),)


def test_seeds_are_averaged_and_incomplete_tasks_are_left_out_with_the_reason():
    table = pd.concat([runs(C45).assign(seed=seed) for seed in range(2)], ignore_index=True)
    table.loc[table["seed"] == 1, "score"] += 0.001
    table.loc[3, "score"] = float("nan")
    table = table[~((table["arm"] == "C4.5+m") & (table["task"] == "t5"))]
    found = rank(table, "score", direction="maximize")
    assert len(found.tasks) == 12
    assert "score is nan" in found.lost["t3"]
    assert found.lost["t5"] == "C4.5+m: no such run in the table"
    assert any("mean of 2 runs" in note for note in found.notes)
    assert "task t3 left out" in found.to_markdown()


def test_where_friedman_does_not_reject_no_pair_is_called_a_finding():
    rng = np.random.default_rng(9)
    found = rank(runs({name: rng.normal(size=6) for name in "abc"}), "score")
    assert found.p > 0.05
    assert any("does not reject" in note for note in found.notes)
    assert any("below 10" in note for note in found.notes)
    assert "nothing says that they differ" in found.sentence


@pytest.mark.parametrize(("arms", "tasks", "exact"), [(3, 3, "0.028"), (2, 3, "0.25"), (4, 6, "< 0.0001")])
def test_tasks_that_all_agree_give_no_p_below_the_least_that_so_many_allow(arms, tasks, exact):
    found = rank(runs({f"m{k}": [k + 0.1 * t for t in range(tasks)] for k in range(arms)}), "score")
    assert (found.f_statistic, found.p_f) == (None, None)
    text = str(found)
    assert "∞" not in text
    assert "no Iman–Davenport F: every task ranks the arms alike" in text
    assert f"exact permutation p {exact if exact[0] == '<' else f'= {exact}'}, the least of {tasks} tasks" in text


def test_the_exact_p_of_tasks_that_agree_counts_ties_as_one_order():
    found = rank(runs({"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [3.0, 4.0]}), "score")
    assert any("exact permutation p = 0.33" in note for note in found.notes)  # 3 ways to place the worst arm


@pytest.mark.parametrize(("direction", "good"), [("minimize", "lower"), ("maximize", "higher")])
def test_a_ranking_says_which_values_it_took_for_good(direction, good):
    found = rank(runs(C45), "score", direction=direction)
    assert f"On score ({good} is better) over 14 tasks" in found.sentence
    assert f"score ({good} is better), ranks over 14 tasks" in found.to_markdown()


def test_the_diagram_and_every_rendering_are_written(tmp_path):
    found = rank(runs(C45), "score", direction="maximize")
    assert critical_difference(tmp_path / "cd.png", found).read_bytes().startswith(b"\x89PNG")
    few = rank(runs({name: values[:2] for name, values in C45.items()}), "score")
    assert few.critical_difference > 3  # wider than the axis of ranks
    assert critical_difference(tmp_path / "few.png", few).stat().st_size > 10_000
    assert r"\begin{tabular}" in found.to_latex()
    assert json.loads(dump_json(found.to_dict()))["mean_ranks"]["C4.5+m"] == 2.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table[table["arm"] == "C4.5"], "only one arm"),
        (lambda table: table[table["task"] == "t0"], "ranks need at least 2"),
        (lambda table: table.drop(columns="task"), "task = 'task' is not a column"),
        (lambda table: table.assign(score=1.0), "nothing to rank"),
        (lambda table: table.assign(score="good"), "holds text"),
        (lambda table: pd.concat([table, table.assign(score=0.5)]), "different runs in block t0"),
        (lambda table: table.assign(data_fingerprint=[f"{i:x}" for i in range(len(table))]), "different data"),
        (lambda table: table.assign(status="failed"), "56 of 56 runs left out: status failed; no run is left"),
    ],
)
def test_what_cannot_be_ranked_is_refused_by_name(change, words):
    with pytest.raises(AnalysisError, match=words):
        rank(change(runs(C45)), "score")


def test_fingerprints_may_differ_between_tasks():
    table = runs(C45)
    table["data_fingerprint"] = "of " + table["task"]
    assert rank(table, "score").tasks


def wide():
    """Three arms on two seeds, a column per score."""
    rows = [
        {"arm": arm, "seed": seed, "alpha_accuracy": 0.5 + 0.1 * k + 0.01 * seed, "beta_accuracy": 50.0 + k * (k - 1.5)}
        for k, arm in enumerate("abc")
        for seed in range(2)
    ]
    return pd.DataFrame(rows)


def test_several_metrics_are_tasks_of_a_table_with_one_row_per_run():
    found = rank(wide(), ["alpha_accuracy", "beta_accuracy"])
    assert (found.direction, found.tasks) == ("maximize", ("alpha_accuracy", "beta_accuracy"))
    assert found.mean_ranks == {"c": 1.0, "b": 2.5, "a": 2.5}
    assert found.means == {}  # they share no scale
    assert "mean rank" in found.grid.columns
    assert "mean" not in found.grid.columns
    assert "On alpha_accuracy and beta_accuracy (higher is better) over 2 tasks" in found.sentence


def test_a_table_without_tasks_is_answered_with_what_to_give():
    with pytest.raises(AnalysisError, match=r"--metric A --metric B\): alpha_accuracy, beta_accuracy$"):
        rank(wide(), "alpha_accuracy")
    with pytest.raises(AnalysisError, match="not better in the same direction"):
        rank(wide().assign(loss=1.0), ["alpha_accuracy", "loss"])
    with pytest.raises(AnalysisError, match="'gamma_accuracy' is not a column"):
        rank(wide(), ["alpha_accuracy", "gamma_accuracy"])
    with pytest.raises(AnalysisError, match="named twice"):
        rank(wide(), ["alpha_accuracy", "alpha_accuracy"])
