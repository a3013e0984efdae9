"""Gaussian processes with expected improvement."""

from __future__ import annotations

from optuna.samplers import BaseSampler, GPSampler

from stackwise_ray.trials.samplers import SAMPLERS


@SAMPLERS.register("gp")
def gp(seed: int) -> BaseSampler:
    """With noise: a loss depends on its seed."""
    return GPSampler(seed=seed, deterministic_objective=False)
