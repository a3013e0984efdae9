"""Every point of the space, in its order. The space must be finite (`trials.proposals` lists the points)."""

from __future__ import annotations

from stackwise_ray.trials.samplers import SAMPLERS, Sampler

SAMPLERS.register("grid")(Sampler(make=None))
