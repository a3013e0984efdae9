"""The seeds of a sweep: of its replicates, fixed or adaptive, and of tuning and search."""

from __future__ import annotations

import dataclasses

from stackwise_ray.config.space.sweep_config import AdaptiveSeeds, SweepConfig
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.seeding import SEARCH, stream_seed


def replicate_seeds(sweep: SweepConfig) -> tuple[int, ...]:
    """The root seeds on which arms are trained, in order; of adaptive replicates, all that there may be."""
    seeds = sweep.replicates.seeds
    if isinstance(seeds, AdaptiveSeeds):
        return tuple(range(seeds.max))
    return tuple(range(seeds)) if isinstance(seeds, int) else seeds


def first_seeds(sweep: SweepConfig) -> tuple[int, ...]:
    """Those of `replicate_seeds` on which every arm is trained, whatever it turns out to be."""
    seeds = sweep.replicates.seeds
    return replicate_seeds(sweep)[: seeds.min if isinstance(seeds, AdaptiveSeeds) else None]


def tuning_seeds(sweep: SweepConfig, count: int | None = None) -> tuple[int, ...]:
    """Seeds for tuning or search trials, from the "search" stream, none of which a replicate uses.

    Trial j of every arm uses seed j, so that arms are tuned on the same draws.

    Args:
        count: How many; `tune.trials_per_arm`, else `search.trials`, if absent.
    """
    if count is None:
        count = sweep.tune.trials_per_arm if sweep.tune else sweep.search.trials if sweep.search else 0
    taken = set(replicate_seeds(sweep))
    seeds: list[int] = []
    number = 0
    while len(seeds) < count:
        seed = stream_seed(sweep.seed, SEARCH, "seed", number)
        number += 1
        if seed not in taken:
            taken.add(seed)
            seeds.append(seed)
    return tuple(seeds)


def with_seed(trial: TrialConfig, seed: int) -> TrialConfig:
    """The trial as one replicate: the same but for its root seed."""
    return dataclasses.replace(trial, seed=seed)
