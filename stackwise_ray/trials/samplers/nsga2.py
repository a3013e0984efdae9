"""NSGA-II (Deb et al., 2002): an evolutionary search for several objectives."""

from __future__ import annotations

from optuna.samplers import BaseSampler, NSGAIISampler

from stackwise_ray.trials.samplers import SAMPLERS


@SAMPLERS.register("nsga2")
def nsga2(seed: int) -> BaseSampler:
    """Populations of 16: Optuna's 50 would be the whole of most searches here."""
    return NSGAIISampler(seed=seed, population_size=16)
