"""The smallest effect that a declared comparison can see, before it runs, and the noise that earlier trials showed.

Called for `--plan` (`stackwise_ray.sweep` hands both functions to the planner) and by nothing else. An effect is in
standard deviations (sd) of the paired difference: its size in the metric's unit is known once that sd was measured.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable

from stackwise_ray.core.comparison_records import ResolvedComparison, Test
from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.records import TrialRecord

from ..paired.power import minimum_detectable_effect
from .simulation import simulated_power

POWER = 0.8
_REPLAYS = 1000
"""Of a simulated power: the standard error of a share of .8 is then .013."""
_MOST_SDS = 1e4
_PRECISION = 0.01
_SIMULATED = {"sign_flip": "sign_flip", "wilcoxon": "wilcoxon", "mixture_t": "sequential"}


def strictest_level(comparison: ResolvedComparison) -> float:
    """The level that the least clear of the family's differences must meet: alpha / m under a correction over m arms.

    Holm and Benjamini and Hochberg are milder for the others, so what is seen at this level is seen wherever it stands.
    """
    return comparison.alpha if comparison.correction == "none" else comparison.level


def smallest_effect(comparison: ResolvedComparison, seeds: int) -> float | None:
    """The smallest true difference that the comparison finds with probability .8, in sd of the paired difference.

    Exact for the t test; by 1,000 simulated sweeps for the other tests, adaptive seeds included (`seeds`: the most that
    there may be). For non-inferiority it is the smallest margin, in the same sd, by which an arm that is as good as the
    baseline is found to be non-inferior: how far the truth lies from the null is what a one-sided test depends on.

    Returns:
        None where the test decides nothing with so few seeds, whatever the effect is.

    Raises:
        AnalysisError: The level is outside its range.
    """
    one_sided = comparison.hypothesis == "non_inferior" or comparison.side != "both"
    return _smallest(comparison.test, strictest_level(comparison), seeds, 1 if one_sided else 2)


@functools.cache
def _smallest(test: Test, level: float, seeds: int, sides: int) -> float | None:
    if seeds < 2:
        return None
    if test == "t":
        return minimum_detectable_effect(1.0, n=seeds, power=POWER, alpha=level, sides=sides)
    kind = _SIMULATED[test]

    def power(size: float) -> float:
        found = simulated_power(1.0, effect=size, n=seeds, test=kind, alpha=level, replays=_REPLAYS, sides=sides)
        return found.estimate

    return _least(power)


def _least(power: Callable[[float], float]) -> float | None:
    """Where a rising power comes to .8, by bisection; None where it never does."""
    high = 0.5
    while power(high) < POWER:
        high *= 2
        if high > _MOST_SDS:
            return None
    low = high / 2 if high > 0.5 else 0.0
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def observed_noise(trials: Iterable[TrialRecord], comparison: ResolvedComparison) -> tuple[float, int] | None:
    """The sd of the paired difference (with a target: of the runs of an arm), pooled over arms, and of how many.

    None: not measured.

    Args:
        trials: Of one sweep; its finished replicates count.
    """
    values: dict[str, dict[int, float]] = {}
    for trial in trials:
        if trial.status == "finished" and trial.role == "replicate" and comparison.metric in trial.metrics:
            values.setdefault(trial.arm, {})[trial.seed] = trial.metrics[comparison.metric]
    baseline = values.get(comparison.baseline or "", {})
    squares, freedom, count = 0.0, 0, 0
    for arm in comparison.family:
        ours = values.get(arm, {})
        differences = [ours[seed] - baseline[seed] for seed in sorted(ours.keys() & baseline.keys())]
        if comparison.target is not None:
            differences = [value - comparison.target for value in ours.values()]
        if len(differences) >= 2:
            squares += statistics.variance(differences) * (len(differences) - 1)
            freedom += len(differences) - 1
            count += len(differences)
    if not freedom or not squares:
        return None
    sd = math.sqrt(squares / freedom)
    if not math.isfinite(sd):
        raise AnalysisError(f"{comparison.metric} of a finished trial is not finite")
    return sd, count
