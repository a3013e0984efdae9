"""Asynchronous successive halving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.distributed.schedulers import SCHEDULERS, EarlyStopping

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


def asha(*, grace: float, mode: str, reduction: float = 3.0) -> TrialScheduler:
    """Asynchronous successive halving (Li et al., 2018): of the trials that reached a rung, the best 1/reduction go on.

    Args:
        grace: Share of the budget that every trial gets.
        mode: "min" or "max" of the objective.
    """
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr="progress",
        metric="objective",
        mode=mode,
        max_t=100,
        grace_period=max(1, round(100 * grace)),
        reduction_factor=reduction,
        stop_last_trials=False,  # a trial that reaches its end has not been stopped early
    )


SCHEDULERS.register("asha")(EarlyStopping(make=asha, options=frozenset({"reduction"})))
