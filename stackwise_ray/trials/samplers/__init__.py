"""The samplers of `design.kind: search`: one per file. Each states what it can do, and makes a sampler of Optuna.

Entries load without Optuna: a search-space file is checked against them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackwise_ray.core import registries
from stackwise_ray.core.registry import Registry

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How a search draws its points.

    Attributes:
        make: From a seed to a sampler of Optuna; raises ConfigError where it cannot work on this machine. None: nothing
            is drawn, every point of the space is tried (`trials.proposals`).
        several_objectives: Whether a search by it may have more than one objective.
        spread: How many of a search's first points are spread evenly over the space, before the sampler is asked.
    """

    make: Callable[[int], BaseSampler] | None
    several_objectives: bool = True
    spread: int = 0


SAMPLERS: Registry[Sampler] = registries.SAMPLERS
