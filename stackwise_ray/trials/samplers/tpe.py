"""The tree-structured Parzen estimator (Bergstra et al., 2011), the default."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from stackwise_ray.trials.samplers import SAMPLERS


@SAMPLERS.register("tpe")
def tpe(seed: int) -> BaseSampler:
    """`constant_liar`: trials that run at the same time must not all go to the same place."""
    return TPESampler(seed=seed, constant_liar=True, multivariate=True, group=True)
