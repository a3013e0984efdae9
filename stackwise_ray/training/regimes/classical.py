"""Classical training: one stage, everything trains. Decoders predict the next token, encoders masked ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stackwise_ray.config.trial import Share, TrainingConfig, TrialConfig
from stackwise_ray.config.trial.rules import Found
from stackwise_ray.training.growth_options import options_of
from stackwise_ray.training.growth_rules import DEFAULT_MASK_RATIO, share_of_masks
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, Regime


@dataclass(frozen=True, kw_only=True)
class ClassicalTraining(TrainingConfig):
    """The options of classical training."""

    mask_ratio: Share = DEFAULT_MASK_RATIO  # masked-LM share of positions (encoders; 80/10/10)


def classical(trial: TrialConfig) -> StagePlan:
    """One stage with the whole budget; encoders mask `training.mask_ratio` of the positions."""
    return StagePlan(stages=(classical_stage(trial, options_of(trial, ClassicalTraining).mask_ratio),))


def classical_stage(trial: TrialConfig, mask_ratio: float) -> Stage:
    """The stage of classical training; regimes that begin with it call this too."""
    blocks = tuple(range(trial.model.n_layers))
    encoder = trial.model.role == "encoder"
    return Stage(
        name="classical",
        active_blocks=blocks,
        trainable=Trainable(blocks=blocks),
        objective="masked_lm" if encoder else "next_token",
        noise=((mask_ratio, mask_ratio),) if encoder else None,
    )


def _masked(trial: TrialConfig) -> Found:
    return share_of_masks(trial, options_of(trial, ClassicalTraining).mask_ratio)


def _masks(config: Mapping[str, Any]) -> str:
    return f"masks on {float(config['training']['mask_ratio']):g} of the positions"


REGIMES.register("classical")(Regime(plan=classical, options=ClassicalTraining, rules=(_masked,), masks=_masks))
