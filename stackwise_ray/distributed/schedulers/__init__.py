"""Early stopping for searches, from Tune: one rule per file.

Only `kind: search` may use them (`config.space.sweep_rules` refuses the rest). Time is a trial's progress in percent of
its own budget, so that one setting fits arms whose steps cost differently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stackwise_ray.core import registries
from stackwise_ray.core.comparison_records import Goal
from stackwise_ray.core.registry import Registry

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

SCHEDULERS: Registry[Callable[..., TrialScheduler]] = registries.SCHEDULERS


def mode(goal: Goal) -> str:
    """Tune's word for the direction."""
    return "min" if goal.direction == "minimize" else "max"
