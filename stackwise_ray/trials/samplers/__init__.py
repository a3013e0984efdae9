"""The samplers of `design.kind: search`: one per file, each from a seed to one of Optuna's.

`grid` is none of them: it enumerates (`trials.proposals`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stackwise_ray.core import registries
from stackwise_ray.core.registry import Registry

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS: Registry[Callable[[int], BaseSampler]] = registries.SAMPLERS
