"""Gaussian processes with expected improvement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.trials.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def _make(seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, deterministic_objective=False)  # with noise: a loss depends on its seed


SAMPLERS.register("gp")(Sampler(make=_make, several_objectives=False))
