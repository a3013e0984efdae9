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


def stopped(scheduler: TrialScheduler, values: Mapping[str, float]) -> set[str]:
    """The trials that are stopped of some that run side by side and report their own value at every tenth."""
    controller: Any = SimpleNamespace(get_live_trials=list)  # nothing waits for a place
    trials = {name: Trial("none", trial_id=name, stub=True) for name in values}
    for trial in trials.values():
        scheduler.on_trial_add(controller, trial)
    ended: set[str] = set()
    for progress in range(10, 100, 10):
        for name, value in values.items():
            if name in ended:
                continue
            result = {"progress": float(progress), "objective": value, "training_iteration": progress}
            if scheduler.on_trial_result(controller, trials[name], result) == TrialScheduler.STOP:
                ended.add(name)
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


@pytest.mark.parametrize("grace", [0.2, 0.5])
def test_nothing_is_stopped_before_its_grace_is_over(grace: float) -> None:
    scheduler = make_scheduler(Scheduler(kind="asha", grace=grace), "minimize")
    first, trial = (Trial("none", trial_id=name, stub=True) for name in ("first", "second"))
    controller: Any = SimpleNamespace(get_live_trials=list)  # nothing waits for a place
    for one in (first, trial):
        scheduler.on_trial_add(controller, one)
    answers = []
    for progress in range(10, 60, 10):
        for one, value in ((first, 1.0), (trial, 2.0)):
            answer = scheduler.on_trial_result(controller, one, {"progress": float(progress), "objective": value})
        answers.append((progress, answer))
    assert next(progress for progress, answer in answers if answer == TrialScheduler.STOP) == 100 * grace
