"""The median stopping rule."""

from __future__ import annotations

from ray.tune.schedulers import MedianStoppingRule, TrialScheduler

from stackwise_ray.distributed.schedulers import SCHEDULERS


@SCHEDULERS.register("median")
def median(*, grace: float, mode: str, reduction: float = 3.0) -> TrialScheduler:
    """The median rule (Golovin et al., 2017): stop below the median of the others' running means."""
    return MedianStoppingRule(
        time_attr="progress", metric="objective", mode=mode, grace_period=100 * grace, min_samples_required=3
    )
