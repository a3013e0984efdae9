"""Masked-language-model training whose share of masks widens: from its lowest share alone to all up to its highest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from stackwise_ray.config.trial import TrainingConfig, TrialConfig
from stackwise_ray.config.trial.rules import Found
from stackwise_ray.training.growth_options import options_of
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, Regime


@dataclass(frozen=True, kw_only=True)
class WideningTraining(TrainingConfig):
    """The options of widening masks."""

    fewest_masks: Annotated[float, Field(gt=0, lt=1)] = 0.15  # share of masked positions at the start
    most_masks: Annotated[float, Field(gt=0, lt=1)] = 0.6  # largest share at the end


def widening_masks(trial: TrialConfig) -> StagePlan:
    """One stage in which everything trains."""
    options, blocks = options_of(trial, WideningTraining), tuple(range(trial.model.n_layers))
    stage = Stage(
        name="widening_masks",
        active_blocks=blocks,
        trainable=Trainable(blocks=blocks),
        objective="masked_lm",
        noise=((options.fewest_masks, options.most_masks),),
        widening=True,
    )
    return StagePlan(stages=(stage,))


def _of_encoders(trial: TrialConfig) -> Found:
    if trial.model.role != "encoder":
        return "training.regime", "= widening_masks masks tokens, and a decoder predicts the next; choose classical"
    return None


def _in_order(trial: TrialConfig) -> Found:
    options = options_of(trial, WideningTraining)
    if options.most_masks <= options.fewest_masks:
        return "training.most_masks", f"= {options.most_masks:g} is no more than fewest_masks; raise it"
    return None


def _masks(config: Mapping[str, Any]) -> str:
    training = config["training"]
    return f"masks widening from {float(training['fewest_masks']):g} to {float(training['most_masks']):g}"


REGIMES.register("widening_masks")(
    Regime(plan=widening_masks, options=WideningTraining, rules=(_of_encoders, _in_order), masks=_masks)
)
