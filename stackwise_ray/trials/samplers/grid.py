"""Every valid point of a space whose domains are lists; `trials.proposals` enumerates them."""

from __future__ import annotations

from stackwise_ray.trials.samplers import SAMPLERS, Sampler

SAMPLERS.register("grid")(Sampler(make=None))
