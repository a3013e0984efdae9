"""CMA-ES (Hansen and Ostermeier, 2001), for continuous spaces; it needs a package of its own."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from stackwise_ray.core.errors import ConfigError
from stackwise_ray.trials.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def _require_package() -> None:
    if importlib.util.find_spec("cmaes") is None:
        raise ConfigError(
            '= cmaes needs the package "cmaes", which is not installed; pip install -e ".[cmaes]", or choose tpe',
            path="search.sampler",
        )


def _make(seed: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed)


SAMPLERS.register("cmaes")(Sampler(make=_make, several_objectives=False, require=_require_package))
