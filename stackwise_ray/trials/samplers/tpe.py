"""The tree-structured Parzen estimator (Bergstra et al., 2011), the default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.trials.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def tpe(seed: int) -> BaseSampler:
    """With `constant_liar`, so that trials that run at the same time do not all get similar points."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, constant_liar=True, multivariate=True, group=True)


SAMPLERS.register("tpe")(Sampler(make=tpe))
