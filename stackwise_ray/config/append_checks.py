"""Rules for what goes with growing left to right: time as an input.

`checks.RULES` holds them; which regimes read these fields at all stands there.
"""

from __future__ import annotations

from stackwise_ray.config.trial import Noise, TrialConfig

OF_APPEND = ("time",)
"""Fields of `training` that `append` reads beside those of every regime that grows."""


def time_as_input(trial: TrialConfig) -> tuple[str, str] | None:
    """With `time: input` every stage draws from the whole range r_last to r_first: what cuts it up says nothing."""
    training = trial.training
    if training.time == "depth":
        return None
    default = Noise()
    for name in ("kind", "schedule"):
        value = getattr(training.noise, name)
        if value != getattr(default, name):
            shown = list(value) if isinstance(value, tuple) else value
            problem = f"= {shown} has no effect with training.time: input, where every stage draws from the whole range"
            return f"training.noise.{name}", f"{problem} r_last to r_first; leave it out"
    if training.regime == "classical_random_ratio" and training.blocks_per_stack != 1:
        problem = f"= {training.blocks_per_stack} has no effect in classical_random_ratio with training.time: input"
        return "training.blocks_per_stack", f"{problem}, which draws no stack's share; leave it out"
    return None
