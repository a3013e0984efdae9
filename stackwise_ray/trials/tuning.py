"""The points that tuning tries: the same few for every arm, spread over the space.

With three trials per arm a random or model-based sampler has nothing to learn from and may clump. The points are a
centred Latin hypercube instead (McKay et al., 1979): every factor's range is cut into as many equal parts as there are
trials, and each part is tried once, at its middle. In one dimension these are the midpoints. All arms get the same.
"""

from __future__ import annotations

import math
from typing import Any

from stackwise_ray.config.space.designs import draw
from stackwise_ray.config.space.domains import (
    Choice,
    Domain,
    IntRange,
    LogIntRange,
    LogUniform,
    Normal,
    Resolve,
    Space,
    Subsets,
    Uniform,
    levels,
)
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.seeding import SEARCH, stream_seed

_MOST_ROUNDS = 200


def tuning_points(
    space: Space, n: int, resolve: Resolve, *, root_seed: int = 0, place: str = "tune.space"
) -> tuple[dict[str, Any], ...]:
    """`n` points of the space, each a mapping of path to value; those of inactive factors are left out.

    Raises:
        ConfigError: The constraints leave fewer than `n` points in reach.
    """
    import numpy as np
    from scipy.stats import qmc  # here: most of a second, and most commands do not tune

    points: list[dict[str, Any]] = []
    reason: str | None = None
    for attempt in range(_MOST_ROUNDS):
        seed = stream_seed(root_seed, SEARCH, "tuning", attempt)
        # The first round is centred; where constraints reject points of it, further rounds are jittered.
        sampler = qmc.LatinHypercube(len(space.factors), scramble=attempt > 0, rng=np.random.default_rng(seed))
        for row in sampler.random(n):
            shares = {factor.path: float(u) for factor, u in zip(space.factors, row, strict=True)}
            point, broken = draw(space, lambda factor: quantile(factor.domain, shares[factor.path]), resolve)  # noqa: B023
            if broken is None and point not in points:
                points.append(point)
            reason = broken or reason
            if len(points) == n:
                return tuple(sorted(points, key=lambda point: [str(value) for value in point.values()]))
        if attempt and reason is None and len(points) == _size(space):
            break
    if points and reason is None:
        return tuple(points)  # a finite space with fewer points than trials: all of them
    raise ConfigError(
        f"only {len(points)} of {n} points in reach are valid trials, others break: {reason}; widen the space",
        path=place,
    )


def quantile(domain: Domain, u: float) -> Any:
    """The value at the share `u` (0 to 1) of a domain."""
    match domain:
        case Choice(values):
            return values[min(int(u * len(values)), len(values) - 1)]
        case Uniform(low, high):
            return low + u * (high - low)
        case LogUniform(low, high):
            # Six digits: a rate that is written down, compared and typed again must be the same number.
            return float(f"{math.exp(math.log(low) + u * (math.log(high) - math.log(low))):.6g}")
        case IntRange(low, high):
            return min(low + int(u * (high - low + 1)), high)
        case LogIntRange(low, high):
            return min(int(math.exp(math.log(low) + u * (math.log(high + 1) - math.log(low)))), high)
        case Normal():
            return domain.at(min(max(u, 1e-6), 1 - 1e-6))
        case Subsets(items):
            mask = min(int(u * (1 << len(items))), (1 << len(items)) - 1)
            return [item for bit, item in enumerate(items) if mask >> bit & 1]


def _size(space: Space) -> float:
    counts = [levels(factor.domain) for factor in space.factors]
    return math.prod(math.inf if values is None else len(values) for values in counts)
