"""Points drawn independently from the space."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from stackwise_ray.trials.samplers import SAMPLERS


@SAMPLERS.register("random")
def random(seed: int) -> BaseSampler:
    """Every point by itself."""
    return RandomSampler(seed=seed)
