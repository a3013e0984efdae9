"""What a plan says about its comparisons: the smallest effect that each can detect with its seeds.

The command hands in the statistics, because it alone imports the package `analysis`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stackwise_ray.config.space.seeds import replicate_seeds
from stackwise_ray.config.space.sweep_config import AdaptiveSeeds, SweepConfig
from stackwise_ray.core.comparison_records import Questions, ResolvedComparison
from stackwise_ray.core.metric_catalogue import format_size, with_unit
from stackwise_ray.core.quantities import format_significant
from stackwise_ray.core.records import TrialRecord

_TESTS = {
    "t": "paired t test",
    "sign_flip": "paired sign-flip test",
    "wilcoxon": "Wilcoxon's signed-rank test",
    "mixture_t": "verdict valid at any time",
}
_CORRECTIONS = {"holm": "Holm", "bonferroni": "Bonferroni", "benjamini_hochberg": "Benjamini and Hochberg"}


@dataclass(frozen=True, kw_only=True)
class EffectSizes:
    """Functions of `analysis.anytime.detectable`.

    Attributes:
        power: The probability with which the smallest effect is found.
        smallest: From a comparison and a number of seeds to the smallest effect that it finds with that probability, in
            sd of the paired difference; None: it decides nothing with so few.
        noise: From a sweep's trials to the sd of the paired difference and the number of differences; None: not
            measured.
    """

    power: float
    smallest: Callable[[ResolvedComparison, int], float | None]
    noise: Callable[[Sequence[TrialRecord], ResolvedComparison], tuple[float, int] | None]


def detectable(
    sweep: SweepConfig, questions: Questions, sizes: EffectSizes, trials: Sequence[TrialRecord]
) -> Iterator[str]:
    """One sentence per comparison.

    Args:
        trials: Those of the sweep that have run already; their noise gives the effect in the metric's unit.
    """
    seeds = len(replicate_seeds(sweep))
    for comparison in questions.comparisons:
        if comparison.family and (comparison.baseline is not None or comparison.target is not None):
            yield _sentence(sweep, comparison, seeds, sizes, trials)


def _sentence(
    sweep: SweepConfig, comparison: ResolvedComparison, seeds: int, sizes: EffectSizes, trials: Sequence[TrialRecord]
) -> str:
    most = "at most " if isinstance(sweep.replicates.seeds, AdaptiveSeeds) else ""
    metric = comparison.metric
    plural = "" if seeds == 1 else "s"
    asked = f"{metric}, each arm against {comparison.reference}: {most}{seeds} seed{plural}"
    size = sizes.smallest(comparison, seeds)
    if size is None:
        return f"{asked} cannot decide, however large the difference is; raise replicates.seeds"
    m = len(comparison.family)
    level = f"level {comparison.alpha:g}"
    if comparison.correction != "none" and m > 1:
        level += f" / {m} by {_CORRECTIONS[comparison.correction]}"
    side = "" if comparison.side == "both" else f", one-sided ({comparison.side})"
    test = f"{_test(comparison)}{side}, {level}"
    spread = "of the paired differences" if comparison.target is None else "of the runs"
    measured = sizes.noise(trials, comparison)
    if comparison.hypothesis == "non_inferior":
        return _margin_sentence(asked, comparison, sizes, size, test, spread, measured)
    text = (
        f"{asked} find a difference of {format_significant(size, 3)} standard deviations {spread} "
        f"with probability {sizes.power:g}, and a smaller one less often ({test})"
    )
    if measured is None:
        return f"{text}; that standard deviation is not known before two seeds of each arm have run"
    sd, count = measured
    effect, noise = (with_unit(metric, format_size(metric, value)) for value in (size * sd, sd))
    return f"{text}: about {effect}, since {count} differences of finished trials have a standard deviation of {noise}"


def _margin_sentence(
    asked: str,
    comparison: ResolvedComparison,
    sizes: EffectSizes,
    size: float,
    test: str,
    spread: str,
    measured: tuple[float, int] | None,
) -> str:
    """How noisy the differences may be for an arm that is as good to be found non-inferior."""
    metric, margin = comparison.metric, comparison.margin
    assert margin is not None, "a non-inferiority question has one"
    most, shown = (with_unit(metric, format_size(metric, value)) for value in (margin / size, margin))
    text = (
        f"{asked} find an arm that is as good to be non-inferior by the margin of {shown} with probability "
        f"{sizes.power:g} where the standard deviation {spread} is {most} or less ({test}, one-sided)"
    )
    if measured is None:
        return f"{text}; it is not known before two seeds of each arm have run"
    sd, count = measured
    noise = with_unit(metric, format_size(metric, sd))
    return f"{text}; {count} differences of finished trials have one of {noise}"


def _test(comparison: ResolvedComparison) -> str:
    if comparison.test == "t" and comparison.target is not None:
        return "one-sample t test"
    return _TESTS[comparison.test]
