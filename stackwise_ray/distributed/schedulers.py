"""Early stopping for searches: asynchronous successive halving and the median rule, from Tune.

Only `kind: search` may use them (`config.checks` refuses the rest). Time is a trial's progress in percent of its own
budget, so that one setting fits arms whose steps cost differently.
"""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

from stackwise_ray.core.registry import Registry

SCHEDULERS: Registry[Any] = Registry("scheduler")


@SCHEDULERS.register("asha")
def asha(*, grace: float, mode: str, reduction: float = 3.0) -> TrialScheduler:
    """Asynchronous successive halving (Li et al., 2018): of the trials that reached a rung, the best 1/reduction go on.

    Args:
        grace: Share of the budget that every trial gets.
        mode: "min" or "max" of the objective.
    """
    return ASHAScheduler(
        time_attr="progress",
        metric="objective",
        mode=mode,
        max_t=100,
        grace_period=max(1, round(100 * grace)),
        reduction_factor=reduction,
        stop_last_trials=False,  # a trial that reaches its end has not been stopped early
    )


@SCHEDULERS.register("median")
def median(*, grace: float, mode: str, reduction: float = 3.0) -> TrialScheduler:
    """The median rule (Golovin et al., 2017): stop below the median of the others' running means."""
    return MedianStoppingRule(
        time_attr="progress", metric="objective", mode=mode, grace_period=100 * grace, min_samples_required=3
    )
