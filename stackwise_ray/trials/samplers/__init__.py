"""The samplers of `design.kind: search`: one per file, each from a seed to one of Optuna's.

A search space is validated with these entries, so that none of them loads Optuna before it is used.
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
    """One way to draw the points of a search.

    Attributes:
        make: From a seed to Optuna's sampler; None: the points are enumerated and nothing is drawn.
        several_objectives: Whether it can search by more than one.
        require: Refuses (ConfigError) a machine that it cannot work on.
    """

    make: Callable[[int], BaseSampler] | None
    several_objectives: bool = True
    require: Callable[[], None] = lambda: None


SAMPLERS: Registry[Sampler] = registries.SAMPLERS
