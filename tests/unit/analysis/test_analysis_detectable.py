"""Which effects a planned comparison can see, and which noise earlier trials showed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analysis.anytime.detectable import observed_noise, smallest_effect
from analysis.anytime.simulation import simulated_power
from analysis.paired.power import power
from stackwise_ray.core.records import TrialRecord
from tests.comparisons import COMPARISON

ASKED = dataclasses.replace(COMPARISON, family=("b", "c"))


@pytest.mark.parametrize(("correction", "level"), [("none", 0.05), ("holm", 0.025), ("benjamini_hochberg", 0.025)])
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_paired_t_test_finds_the_smallest_effect_with_power_of_four_fifths(correction, level, seeds):
    size = smallest_effect(dataclasses.replace(ASKED, correction=correction), seeds)
    assert power(1.0, effect=size, n=seeds, alpha=level) == pytest.approx(0.8, abs=1e-6)


def test_more_seeds_see_smaller_effects_and_one_sees_none():
    sizes = [smallest_effect(ASKED, seeds) for seeds in (2, 3, 5, 20)]
    assert sizes == sorted(sizes, reverse=True)
    assert smallest_effect(ASKED, 1) is None


def test_the_smallest_effect_of_a_verdict_at_any_time_is_found_by_other_simulated_sweeps_too():
    anytime = dataclasses.replace(ASKED, test="mixture_t", correction="bonferroni")
    size = smallest_effect(anytime, 20)
    found = simulated_power(1.0, effect=size, n=20, test="sequential", alpha=0.025, replays=4000, seed=7)
    assert found.estimate == pytest.approx(0.8, abs=0.04)  # 3 standard errors of either simulation
    assert size > smallest_effect(ASKED, 20), "looking after every seed costs power"


def test_a_test_that_decides_nothing_with_so_few_seeds_sees_no_effect():
    signs = dataclasses.replace(ASKED, test="sign_flip")
    assert smallest_effect(signs, 5) is None  # the least p is 2/32
    assert smallest_effect(signs, 8) > smallest_effect(ASKED, 8) * 0.9


def trial(arm, seed, loss, **changes):
    given = {"role": "replicate", "status": "finished", **changes}
    metrics = {"validation/loss": loss}
    return TrialRecord(trial_id=f"{arm}{seed}", number=0, arm=arm, seed=seed, config={}, metrics=metrics, **given)


def test_the_noise_is_the_pooled_sd_of_the_paired_differences():
    values = {"a": [1.0, 2.0, 3.0], "b": [1.1, 2.3, 3.2], "c": [0.0, 1.5, 9.0]}
    trials = [trial(arm, seed, loss) for arm, losses in values.items() for seed, loss in enumerate(losses)]
    b, c = (np.var(np.subtract(values[arm], values["a"]), ddof=1) for arm in "bc")
    sd, count = observed_noise(trials, ASKED)
    assert (sd, count) == (pytest.approx(((b + c) / 2) ** 0.5), 6)


def test_one_difference_and_trials_of_another_kind_measure_no_noise():
    assert observed_noise([trial("a", 0, 1.0), trial("b", 0, 2.0)], ASKED) is None
    two = [trial(arm, seed, seed * 0.5 + (arm == "b") * seed) for arm in "ab" for seed in (0, 1)]
    assert observed_noise(two, ASKED) is not None
    assert observed_noise([dataclasses.replace(one, status="failed") for one in two], ASKED) is None
    assert observed_noise([dataclasses.replace(one, role="tuning") for one in two], ASKED) is None
    same = [trial(arm, seed, 1.0) for arm in "ab" for seed in (0, 1)]
    assert observed_noise(same, ASKED) is None, "no noise was observed"
