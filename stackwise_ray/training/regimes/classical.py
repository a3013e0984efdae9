"""Classical training: one stage, everything trains. Decoders predict the next token, encoders masked ones."""

from __future__ import annotations

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES


@REGIMES.register("classical")
def classical(trial: TrialConfig) -> StagePlan:
    """One stage with the whole budget; encoders mask `training.mask_ratio` of the positions."""
    blocks = tuple(range(trial.model.n_layers))
    encoder = trial.model.role == "encoder"
    ratio = trial.training.mask_ratio
    stage = Stage(
        name="classical",
        active_blocks=blocks,
        trainable=Trainable(blocks=blocks),
        objective="masked_lm" if encoder else "next_token",
        noise=((ratio, ratio),) if encoder else None,
    )
    return StagePlan(stages=(stage,))
