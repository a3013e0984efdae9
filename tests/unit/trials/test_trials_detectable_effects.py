"""What a plan says of the smallest difference that each comparison can find."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.anytime.detectable import POWER, observed_noise, smallest_effect
from stackwise_ray.config.space.designs import expand
from stackwise_ray.core.records import TrialRecord
from stackwise_ray.trials.detectable_effects import EffectSizes, detectable
from tests.unit.trials.ended_trials import ended_trial
from tests.unit.trials.test_trials_proposals import ARMS, sweep

SIZES = EffectSizes(power=POWER, smallest=smallest_effect, noise=observed_noise)
FIVE = ARMS.replace(
    "{a: {}, b: {model.d_ff: 128}, own: {training.lr: 1.0e-2, model.d_ff: 64}}",
    "{a: {}, b: {model.d_ff: 128}, c: {model.d_ff: 96}, d: {model.d_ff: 32}, e: {model.d_ff: 64}}",
)
"""Four arms against a fifth, on two seeds."""
UNKNOWN = "; that standard deviation is not known before two seeds of each arm have run"


def said(tmp_path: Path, text: str, trials: tuple[TrialRecord, ...] = ()) -> list[str]:
    asked = sweep(tmp_path, text)
    return list(detectable(asked, expand(asked).questions, SIZES, trials))


def compare(**options: object) -> str:
    asked = ", ".join(f"{name}: {value}" for name, value in {"metric": "validation/loss", **options}.items())
    return f"analysis: [{{compare: {{{asked}}}}}]\n"


def finished(metric: str) -> tuple[TrialRecord, ...]:
    """Two seeds of two arms, whose differences 2 and 6 have a standard deviation of √8."""
    values = {("a", 3): 10.0, ("a", 5): 20.0, ("b", 3): 12.0, ("b", 5): 26.0}
    return tuple(ended_trial(f"{arm}{seed}", arm, seed, {metric: value}) for (arm, seed), value in values.items())


@pytest.mark.parametrize(
    ("correction", "size", "level"),
    [
        # Of two differences with mean d and sd 1, T = (Z + √2 d) / |W|: by integration over W, d where P(|T| > t) = .8.
        ("none", "11.5", "level 0.05"),
        ("holm", "46.2", "level 0.05 / 4 by Holm"),
        ("bonferroni", "46.2", "level 0.05 / 4 by Bonferroni"),
        ("benjamini_hochberg", "46.2", "level 0.05 / 4 by Benjamini and Hochberg"),
    ],
)
def test_two_seeds_find_only_differences_of_many_standard_deviations(
    tmp_path: Path, correction: str, size: str, level: str
) -> None:
    assert said(tmp_path, FIVE + compare(correction=correction)) == [
        "validation/loss, each arm against a: 2 seeds find a difference of "
        f"{size} standard deviations of the paired differences with probability 0.8, and a smaller one less often "
        f"(paired t test, {level}){UNKNOWN}"
    ]


def test_one_seed_decides_nothing_and_the_way_out_is_named(tmp_path: Path) -> None:
    assert said(tmp_path, FIVE.replace("[3, 5]", "1")) == [
        "validation/loss, each arm against a: 1 seed cannot decide, however large the difference is; "
        "raise replicates.seeds"
    ]


def test_of_adaptive_seeds_the_most_that_there_may_be_count(tmp_path: Path) -> None:
    text = FIVE.replace("[3, 5]", "{min: 3, max: 8, until: decided}") + compare()
    (line,) = said(tmp_path, text)
    assert "at most 8 seeds find a difference" in line
    assert "(verdict valid at any time, level 0.05 / 4 by " in line


def test_two_comparisons_of_one_metric_are_told_apart_by_their_baselines(tmp_path: Path) -> None:
    both = "analysis:\n" + "".join(f"- compare: {{metric: validation/loss, baseline: {arm}}}\n" for arm in "ab")
    first, second = said(tmp_path, FIVE + both)
    assert first.replace("against a", "against b") == second != first


@pytest.mark.parametrize(
    ("metric", "direction", "effect", "noise"),
    [
        ("validation/loss", "minimize", "33 nats", "2.8 nats"),
        ("throughput/tokens_per_s", "maximize", "32.7 tokens per second", "2.83 tokens per second"),
        ("memory/peak_bytes", "minimize", "33 B", "3 B"),
        ("time/total_s", "minimize", "33 s", "2.8 s"),
        ("test/perplexity_word", "minimize", "33", "2.8"),
    ],
)
def test_with_known_noise_the_difference_has_the_unit_of_the_metric_once(
    tmp_path: Path, metric: str, direction: str, effect: str, noise: str
) -> None:
    arms = FIVE.replace(", c: {model.d_ff: 96}, d: {model.d_ff: 32}, e: {model.d_ff: 64}", "")
    (line,) = said(tmp_path, arms + compare(metric=metric, direction=direction), finished(metric))
    assert line.endswith(
        f": about {effect}, since 2 differences of finished trials have a standard deviation of {noise}"
    )


def test_of_non_inferiority_the_plan_says_how_noisy_the_differences_may_be(tmp_path: Path) -> None:
    asked = FIVE.replace("[3, 5]", "5") + compare(hypothesis="non_inferior", margin=0.1, correction="none")
    # one-sided t test, 5 differences, level .05, power .8: 1.3594 sd (statsmodels' TTestPower), so sd ≤ .1 / 1.3594
    (line,) = said(tmp_path, asked)
    assert line == (
        "validation/loss, each arm against a: 5 seeds find an arm that is as good to be non-inferior by the margin of "
        "0.10 nats with probability 0.8 where the standard deviation of the paired differences is 0.074 nats or less "
        "(paired t test, level 0.05, one-sided); it is not known before two seeds of each arm have run"
    )
    assert said(tmp_path, asked, finished("validation/loss"))[0].endswith(
        "; 2 differences of finished trials have one of 2.8 nats"
    )


def test_of_a_target_the_plan_is_for_one_sample(tmp_path: Path) -> None:
    asked = FIVE.replace("[3, 5]", "5") + compare(target=2.0, side="better", correction="none")
    (line,) = said(tmp_path, asked)
    assert line.startswith(
        "validation/loss, each arm against the target 2: 5 seeds find a difference of 1.36 standard deviations of the "
        "runs with probability 0.8, and a smaller one less often (one-sample t test, one-sided (better), level 0.05)"
    )
    assert "; about" not in line
