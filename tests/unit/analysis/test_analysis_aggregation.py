"""Aggregates over tasks and bootstraps over levels: values by hand, coverage, determinism, refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis import AnalysisError, aggregate, hierarchical_bootstrap
from analysis.paired.intervals import percentile_bounds
from analysis.tasks.aggregation import _measure, _resampled
from analysis.tasks.hierarchical import _draws


def runs(values):
    """{arm: array (seeds, tasks)} as a table."""
    return pd.DataFrame(
        [
            {"arm": arm, "task": f"t{task}", "seed": seed, "score": float(scores[seed, task])}
            for arm, scores in values.items()
            for seed, task in itertools.product(*map(range, scores.shape))
        ]
    )


SCORES = {
    "a": np.random.default_rng(0).normal(0.7, 0.2, (5, 7)),
    "b": np.random.default_rng(1).normal(0.9, 0.2, (5, 7)),
}


def test_the_statistics_are_those_by_definition():
    a = SCORES["a"]
    by_definition = {
        "iqm": scipy.stats.trim_mean(a.ravel(), 0.25),
        "mean": a.mean(),
        "median": np.median(a.mean(axis=0)),
        "optimality_gap": np.mean(np.where(a < 1.0, 1.0 - a, 0.0)),
    }
    for statistic, value in by_definition.items():
        found = aggregate(runs(SCORES), "score", statistic)["a"]
        assert found.estimate == pytest.approx(value)
        assert found.low < value < found.high
        assert (found.n, found.level) == (35, 0.95)
        assert statistic in found.method
    gap = aggregate(runs(SCORES), "score", "optimality_gap", target=0.5)["a"]
    assert gap.estimate == pytest.approx(np.maximum(0.5 - a, 0).mean())


def test_resampling_stays_within_the_tasks():
    # tasks far apart, seeds equal: any exchange between tasks would show as width
    flat = np.tile(np.arange(6.0), (4, 1))
    found = aggregate(runs({"a": flat}), "score", "mean")["a"]
    assert (found.low, found.estimate, found.high) == (2.5, 2.5, 2.5)


def test_the_same_seed_gives_the_same_interval_whatever_other_arms_there_are():
    both, alone = aggregate(runs(SCORES), "score"), aggregate(runs({"b": SCORES["b"]}), "score")
    assert both["b"] == alone["b"]
    other = aggregate(runs(SCORES), "score", rng=1)
    assert (other["b"].low, other["b"].high) != (both["b"].low, both["b"].high)
    assert other["b"].estimate == both["b"].estimate


def test_the_stratified_interval_of_the_mean_covers_with_ten_runs_a_task():
    rng = np.random.default_rng(3)
    measure = _measure("mean", 1.0)
    hits = 0
    for _ in range(400):
        values = np.linspace(0, 1, 8) + rng.normal(0, 0.1, size=(10, 8))
        low, high = percentile_bounds(_resampled(values, measure, 500, rng), 0.95)
        hits += low <= 0.5 <= high
    assert hits / 400 >= 0.90  # nominal .95; the plug-in variance of 10 runs is 9/10 of the true one


def without(arm, task):
    return lambda table: table[~((table["arm"] == arm) & (table["task"] == task))]


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda table: table, {"statistic": "iqr"}, "did you mean 'iqm'"),
        (lambda table: table, {"target": 1.0}, "target = 1 has no effect on the iqm"),
        (lambda table: table, {"statistic": "optimality_gap", "target": math.nan}, "target = nan must be finite"),
        (lambda table: table, {"bootstrap": 10}, "bootstrap = 10"),
        (lambda table: table, {"rng": -1}, "seed = -1 of the draws"),
        (lambda table: table.assign(seed=table["seed"].where(table.index != 4)), {}, "'seed' is empty in 1 of"),
        (lambda table: table, {"level": 95}, "level = 95"),
        (without("b", "t3"), {}, "arm 'b' has no usable value on task 't3'"),
        (
            lambda table: table[~((table["task"] == "t1") & (table["seed"] == 0))],
            {},
            "arm 'a' has 5 runs of task 't0' and 4",
        ),
        (lambda table: table[table["seed"] == 0], {}, "arm 'a' has one run per task"),
        (lambda table: table.assign(score=table["score"].where(table.index != 4)), {}, "score is nan"),
        (lambda table: table.drop(columns="seed"), {}, "different runs in block t0"),
    ],
)
def test_what_cannot_be_aggregated_is_refused_by_name(change, options, words):
    with pytest.raises(AnalysisError, match=words):
        aggregate(change(runs(SCORES)), "score", **options)


def test_arms_with_different_numbers_of_runs_have_the_intervals_that_they_have_alone():
    uneven = {"a": SCORES["a"], "b": SCORES["b"][:3]}
    found = aggregate(runs(uneven), "score")
    assert {arm: interval.n for arm, interval in found.items()} == {"a": 35, "b": 21}
    for arm, scores in uneven.items():
        assert found[arm] == aggregate(runs({arm: scores}), "score")[arm]


def test_what_was_left_out_and_noise_that_is_not_there_stand_with_the_interval():
    table = runs(SCORES)
    copied = pd.concat([table, table.iloc[[4]]], ignore_index=True)
    found = aggregate(copied, "score")
    assert found["a"].low == aggregate(table, "score")["a"].low
    assert "1 exact copies of a run left out: a in block" in found["a"].method
    flat = aggregate(table.assign(score=0.1), "score")["b"]
    assert (flat.low, flat.high) == (flat.estimate, flat.estimate)
    assert "zero variance" in flat.method
    assert "zero variance" not in aggregate(table, "score")["a"].method


# ------------------------------------------------------------------------------------------------ levels of noise


def measurements(arms=("a", "b"), shape=(4, 3, 20), seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(shape[0], 1, 1)) + rng.normal(size=(1, 1, shape[2]))
    rows = []
    for number, arm in enumerate(arms):
        values = 5 * shared + 0.3 * number + 0.1 * rng.normal(size=shape)
        rows += [
            {"arm": arm, "pretraining_seed": p, "finetuning_seed": f, "item": i, "accuracy": float(values[p, f, i])}
            for p, f, i in itertools.product(*map(range, shape))
        ]
    return pd.DataFrame(rows)


def test_the_hierarchical_mean_is_the_mean_and_its_n_is_that_of_the_first_level():
    table = measurements()
    found = hierarchical_bootstrap(table, "accuracy")
    assert found["a"].estimate == pytest.approx(table[table["arm"] == "a"]["accuracy"].mean())
    assert found["a"].n == 4
    assert "4 pretraining_seed × 3 finetuning_seed × 20 item" in found["a"].method


def test_a_paired_difference_is_free_of_the_noise_that_both_arms_share():
    table = measurements()
    means = hierarchical_bootstrap(table, "accuracy")
    difference = hierarchical_bootstrap(table, "accuracy", baseline="a")
    assert set(difference) == {"b"}
    assert difference["b"].estimate == pytest.approx(0.3, abs=0.05)
    assert difference["b"].high - difference["b"].low < 0.05 * (means["b"].high - means["b"].low)


def test_levels_count_noise_that_a_plain_standard_error_would_average_away():
    table = measurements()
    one = table[table["arm"] == "a"]
    plain = 1.96 * one["accuracy"].std() / np.sqrt(len(one))
    found = hierarchical_bootstrap(one, "accuracy")["a"]
    assert (found.high - found.low) / 2 > 3 * plain


def test_the_bootstrap_variance_is_the_plug_in_variance_of_the_levels():
    rng = np.random.default_rng(4)
    top, below = rng.normal(size=(6, 1)), rng.normal(size=(6, 4))
    values = (top + below).reshape(-1, 1)
    draws = _draws(values, [6, 4], 40_000, rng, False)
    grid = values.reshape(6, 4)
    expected = grid.mean(axis=1).var() / 6 + grid.var(axis=1).mean() / 24
    assert draws.var() == pytest.approx(expected, rel=0.03)


def test_the_hierarchical_interval_covers_with_twenty_units():
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(300):
        values = (rng.normal(size=(20, 1, 1)) + rng.normal(size=(20, 2, 10))).reshape(40, 10)
        low, high = percentile_bounds(_draws(values, [20, 2], 400, rng, True), 0.95)
        hits += low <= 0 <= high
    assert hits / 300 >= 0.89  # measured .93


@pytest.mark.parametrize(("units", "said"), [(3, True), (19, True), (20, False)])
def test_an_interval_over_few_units_says_how_far_it_covers_too_little(units, said):
    found = hierarchical_bootstrap(measurements(("a",), (units, 2, 2)), "accuracy", bootstrap=100)["a"]
    assert ("measured to cover .73 to .83 with 3" in found.method) is said
    assert (f"{units} pretraining_seed: too few" in found.method) is said


def test_the_coverage_that_is_stated_for_three_units_is_what_they_have():
    rng, hits = np.random.default_rng(8), 0
    for _ in range(400):
        values = (rng.normal(size=(3, 1, 1)) + 0.1 * rng.normal(size=(3, 2, 10))).reshape(6, 10)
        low, high = percentile_bounds(_draws(values, [3, 2], 300, rng, True), 0.95)
        hits += low <= 0 <= high
    assert hits / 400 == pytest.approx(0.73, abs=0.06)


def test_levels_without_noise_are_said_to_have_none_and_copies_to_be_left_out():
    table = measurements()
    flat = hierarchical_bootstrap(table.assign(accuracy=0.1), "accuracy")["a"]
    assert (flat.low, flat.high) == (flat.estimate, flat.estimate)
    assert "zero variance" in flat.method
    copied = pd.concat([table, table.iloc[[4]]], ignore_index=True)
    assert "1 exact copies of a run left out" in hierarchical_bootstrap(copied, "accuracy")["a"].method


def test_fine_tuning_seeds_belong_to_their_pretraining_seed_alone():
    table = measurements()
    renamed = table.assign(finetuning_seed=table["finetuning_seed"] + 10 * table["pretraining_seed"])
    assert hierarchical_bootstrap(renamed, "accuracy") == hierarchical_bootstrap(table, "accuracy")
    assert hierarchical_bootstrap(table, "accuracy", rng=1) != hierarchical_bootstrap(table, "accuracy")


def test_one_level_without_items_is_the_plain_bootstrap():
    table = pd.DataFrame({"arm": "a", "seed": range(30), "loss": np.random.default_rng(0).normal(size=30)})
    found = hierarchical_bootstrap(table, "loss", nested=["seed"], crossed=None, bootstrap=8000)["a"]
    reference = scipy.stats.bootstrap((table["loss"],), np.mean, method="percentile", rng=1).confidence_interval
    width = reference.high - reference.low
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.03 * width)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda t: t, {"baseline": "c"}, "baseline = 'c' is not an arm"),
        (lambda t: t[t["arm"] == "a"], {"baseline": "a"}, "only one arm, 'a'"),
        (lambda t: t, {"nested": []}, "nested names no column"),
        (lambda t: t, {"crossed": "question"}, "level = 'question' is not a column"),
        (lambda t: t.drop(index=5), {}, "was not measured at 0 × 0 × 5"),
        (lambda t: t[t["pretraining_seed"] == 0], {}, "one pretraining_seed shows no noise"),
        (lambda t: t[t["pretraining_seed"] < 2], {}, "2 pretraining_seed are too few to resample"),
        (lambda t: t[t["item"] == 0], {}, "one item shows no noise"),
        (lambda t: t[(t["pretraining_seed"] > 0) | (t["finetuning_seed"] > 0)], {}, "between 2 and 3 different"),
        (lambda t: t.assign(accuracy=t["accuracy"].where(t.index != 3)), {}, "is nan: no mean over it"),
        (lambda t: t[(t["arm"] == "a") | (t["pretraining_seed"] > 0)], {"baseline": "a"}, "do not share 0 × 0 × 0"),
    ],
)
def test_what_has_no_levels_is_refused_by_name(change, options, words):
    with pytest.raises(AnalysisError, match=words):
        hierarchical_bootstrap(change(measurements()), "accuracy", **options)
