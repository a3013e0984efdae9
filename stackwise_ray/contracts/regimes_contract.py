"""What every training regime promises: a plan of stages whose shares make the budget, over blocks that exist."""

from __future__ import annotations

import math

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.contracts import NotAtHand, require
from stackwise_ray.contracts.small_trial import small_trial
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.training.stages import stage_plan


def its_plan_is_pure(name: str) -> None:
    """One trial has one plan, with at least one stage."""
    trial = trial_of(name)
    require(stage_plan(trial) == stage_plan(trial), "one trial has two plans")
    require(stage_plan(trial).stages, "its plan has no stage")


def its_shares_make_the_budget(name: str) -> None:
    """The stages' shares of the budget are positive and sum to 1."""
    shares = [stage.share for stage in stage_plan(trial_of(name)).stages]
    require(min(shares) > 0, f"a stage has no share of the budget: {shares}")
    require(math.isclose(sum(shares), 1, abs_tol=1e-9), f"the shares sum to {sum(shares):g}: {shares}")


def its_stages_train_blocks_that_exist(name: str) -> None:
    """Every stage runs blocks of the model and trains blocks that run."""
    trial = trial_of(name)
    for stage in stage_plan(trial).stages:
        every = set(range(trial.model.n_layers))
        require(
            set(stage.active_blocks) <= every, f"{stage.name}: blocks {sorted(stage.active_blocks)} of {len(every)}"
        )
        idle = set(stage.trainable.blocks) - set(stage.active_blocks)
        require(not idle, f"{stage.name}: trains blocks {sorted(idle)}, which do not run")


def trial_of(name: str) -> TrialConfig:
    """A small trial in this regime.

    Raises:
        NotAtHand: The regime needs options of its own to begin at all; the message is its own.
    """
    words = [f"training.regime={name}"]
    for more in ([], ["training.pretraining_share=0.5"]):
        try:
            return small_trial(*words, *more)
        except ConfigError as error:
            reason = error
    raise NotAtHand(f"a small trial of it is refused: {reason}")


CHECKS = (its_plan_is_pure, its_shares_make_the_budget, its_stages_train_blocks_that_exist)
