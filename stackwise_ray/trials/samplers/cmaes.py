"""CMA-ES (Hansen and Ostermeier, 2001), which needs a package of its own."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from stackwise_ray.core.errors import MissingPackageError
from stackwise_ray.trials.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def cmaes(seed: int) -> BaseSampler:
    """For continuous spaces.

    Raises:
        MissingPackageError: Its package is not installed.
    """
    if importlib.util.find_spec("cmaes") is None:
        raise MissingPackageError(
            '= cmaes needs the package "cmaes", which is not installed; pip install -e ".[cmaes]", or choose tpe',
            path="search.sampler",
        )
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed)


SAMPLERS.register("cmaes")(Sampler(make=cmaes, several_objectives=False))
