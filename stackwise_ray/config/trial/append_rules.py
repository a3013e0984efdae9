"""Rules for what goes with growing left to right: time as an input, and a cache of the frozen prefix.

`checks.RULES` holds them; which regimes read these fields at all stands there.
"""

from __future__ import annotations

from stackwise_ray.config.trial import ExpertsChannelMixer, Noise, TrialConfig

OF_APPEND = ("time", "cache", "cache_bytes")
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


def cached_prefix(trial: TrialConfig) -> tuple[str, str] | None:
    """A cache needs a prefix that gives the same for the same masks as long as a stage lasts."""
    training = trial.training
    if not training.cache:
        if training.cache_bytes is not None:
            return "training.cache_bytes", f"= {training.cache_bytes} has no effect without training.cache: true"
        return None
    if training.trunk not in ("frozen", "random_frozen"):
        problem = f"= true keeps what a frozen prefix gives, and a {training.trunk} trunk changes at every step"
        return "training.cache", f"{problem}; choose training.trunk: frozen, or leave the cache out"
    if training.embeddings == "untied_all":
        problem = "= true keeps what a frozen prefix gives, and training.embeddings: untied_all changes what it reads"
        return "training.cache", f"{problem}; choose untied_frozen_head, or leave the cache out"
    if isinstance(trial.model.channel_mixer, ExpertsChannelMixer):
        problem = "= true leaves out the prefix, whose experts are part of the load-balance loss of mixture_of_experts"
        return "training.cache", f"{problem}; choose the channel mixer swiglu, or leave the cache out"
    if training.stage_split == "flop_proportional":
        problem = "= true costs a stage something once, which no share of stage_split = flop_proportional can follow"
        return "training.cache", f"{problem}; choose uniform or a list of shares, or leave the cache out"
    if trial.model.n_layers == training.blocks_per_stack:
        problem = f"= true has no effect on one stack (training.blocks_per_stack = {training.blocks_per_stack})"
        return "training.cache", f"{problem}: nothing is below it; leave it out"
    return None
