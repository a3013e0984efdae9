"""Points drawn independently from the space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.trials.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def random(seed: int) -> BaseSampler:
    """Each point is independent of the others."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


SAMPLERS.register("random")(Sampler(make=random))
