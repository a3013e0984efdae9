"""Asynchronous successive halving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.distributed.schedulers import SCHEDULERS, EarlyStopping, mode

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


def asha(*, grace: float, goal: Goal, reduction: float = 3.0) -> TrialScheduler:
    """Asynchronous successive halving (Li et al., 2018): of the trials that reached a rung, the best 1/reduction go on.

    Args:
        grace: Share of the budget that every trial gets.
        goal: What decides who goes on.
    """
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr="progress",
        metric="objective",
        mode=mode(goal),
        max_t=100,
        grace_period=max(1, round(100 * grace)),
        reduction_factor=reduction,
        stop_last_trials=False,  # a trial that reaches its end has not been stopped early
    )


SCHEDULERS.register("asha")(EarlyStopping(make=asha, options=frozenset({"reduction"})))
