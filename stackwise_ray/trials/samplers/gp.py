"""Gaussian processes with expected improvement, after ten points that are spread over the space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.trials.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def gp(seed: int) -> BaseSampler:
    """It models noise, because a loss depends on its seed."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, deterministic_objective=False, n_startup_trials=_SPREAD)


_SPREAD = 10
SAMPLERS.register("gp")(Sampler(make=gp, several_objectives=False, spread=_SPREAD))
