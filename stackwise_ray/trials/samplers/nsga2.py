"""NSGA-II (Deb et al., 2002): an evolutionary search for several objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.trials.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def nsga2(seed: int) -> BaseSampler:
    """Populations of 16: with Optuna's 50, most searches here would end within the first population."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=16)


SAMPLERS.register("nsga2")(Sampler(make=nsga2))
