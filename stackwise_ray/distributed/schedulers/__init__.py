"""Early stopping for searches, from Tune: one rule per file. Each states its options, and makes a scheduler of Tune.

Only `kind: search` may use them (`config.space.sweep_rules` refuses the rest). Time is a trial's progress in percent of
its own budget, so that one setting fits arms whose steps cost differently. Entries load without Ray: a search-space
file is checked against them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackwise_ray.core import registries
from stackwise_ray.core.registry import Registry

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

    from stackwise_ray.config.space.sweep_config import Scheduler
    from stackwise_ray.core.metric import Direction


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """A rule by which the trials of a search are stopped before their budget is used up.

    Attributes:
        make: Called with ``grace`` (share of the budget that every trial gets), ``mode`` ("min" or "max" of the
            objective) and those of `options` that the file gives.
        options: Further keys of `scheduler` in a search-space file that mean something to this rule.
    """

    make: Callable[..., TrialScheduler]
    options: frozenset[str] = frozenset()


SCHEDULERS: Registry[EarlyStopping] = registries.SCHEDULERS


def make_scheduler(asked: Scheduler, direction: Direction) -> TrialScheduler:
    """Tune's scheduler of a search-space file.

    Args:
        direction: Of the objective that it stops by.
    """
    mode = "min" if direction == "minimize" else "max"
    return SCHEDULERS.get(asked.kind).make(grace=asked.grace, mode=mode, **asked.options)
