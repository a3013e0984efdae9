"""Which of two searches that run alike is stopped: the worse one, whichever way is worse."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from stackwise_ray.config.space.sweep_config import Scheduler
from stackwise_ray.core.metric import Direction
from stackwise_ray.distributed.schedulers import make_scheduler

LEVELS = {f"t{value}": float(value) for value in range(8)}
ASHA = Scheduler(kind="asha", grace=0.2, reduction=2.0)
MEDIAN = Scheduler(kind="median", grace=0.2)


def stopped(scheduler: TrialScheduler, values: Mapping[str, float]) -> dict[str, float]:
    """At what per cent trials are stopped that run side by side and report their own value at every tenth."""
    controller: Any = SimpleNamespace(get_live_trials=list)  # nothing waits for a place
    trials = {name: Trial("none", trial_id=name, stub=True) for name in values}
    for trial in trials.values():
        scheduler.on_trial_add(controller, trial)
    ended: dict[str, float] = {}
    for progress in range(10, 100, 10):
        for name, value in values.items():
            if name in ended:
                continue
            result = {"progress": float(progress), "objective": value, "training_iteration": progress}
            if scheduler.on_trial_result(controller, trials[name], result) == TrialScheduler.STOP:
                ended[name] = float(progress)
    return ended


@pytest.mark.parametrize("asked", [ASHA, MEDIAN], ids=["asha", "median"])
@pytest.mark.parametrize(("direction", "best", "worst"), [("minimize", "t0", "t7"), ("maximize", "t7", "t0")])
def test_the_worst_is_stopped_and_the_best_goes_on(
    asked: Scheduler, direction: Direction, best: str, worst: str
) -> None:
    # the best reports first, so that it is a bar for those behind it
    order = dict(sorted(LEVELS.items(), key=lambda one: one[1], reverse=direction == "maximize"))
    ended = stopped(make_scheduler(asked, direction), order)
    assert worst in ended
    assert best not in ended


@pytest.mark.parametrize("kind", ["asha", "median"])
@pytest.mark.parametrize("grace", [0.3, 0.5])
def test_nothing_is_stopped_before_its_grace_is_over(kind: str, grace: float) -> None:
    assert min(stopped(make_scheduler(Scheduler(kind=kind, grace=grace), "minimize"), LEVELS).values()) >= 100 * grace


def test_the_more_are_stopped_at_once_the_larger_the_reduction_is() -> None:
    mixed = {f"t{value}": float(value) for value in (3, 6, 1, 5, 0, 7, 2, 4)}  # of falling losses, all would go on
    few, many = (stopped(make_scheduler(Scheduler(kind="asha", reduction=r), "minimize"), mixed) for r in (1.2, 6.0))
    assert list(many.values()).count(20.0) > list(few.values()).count(20.0)
