"""The median stopping rule."""

from __future__ import annotations

from ray.tune.schedulers import MedianStoppingRule, TrialScheduler

from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.distributed.schedulers import SCHEDULERS, mode


@SCHEDULERS.register("median")
def median(*, grace: float, goal: Goal, reduction: float = 3.0) -> TrialScheduler:
    """The median rule (Golovin et al., 2017): stop below the median of the others' running means."""
    return MedianStoppingRule(
        time_attr="progress", metric="objective", mode=mode(goal), grace_period=100 * grace, min_samples_required=3
    )
