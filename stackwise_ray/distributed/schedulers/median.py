"""The median stopping rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.distributed.schedulers import SCHEDULERS, EarlyStopping

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


def median(*, grace: float, mode: str) -> TrialScheduler:
    """The median rule (Golovin et al., 2017): stop below the median of the other trials' running means."""
    from ray.tune.schedulers import MedianStoppingRule

    return MedianStoppingRule(
        time_attr="progress", metric="objective", mode=mode, grace_period=100 * grace, min_samples_required=3
    )


SCHEDULERS.register("median")(EarlyStopping(make=median))
