"""What every training regime promises: a plan of stages whose shares make the budget, over blocks that exist."""

from __future__ import annotations

import json
import math

from stackwise_ray.config.trial import TRAINING, TrainingConfig, TrialConfig
from stackwise_ray.config.trial.editing import from_plain, to_plain
from stackwise_ray.config.trial.registered import field_names
from stackwise_ray.contracts import NotAtHand, require, require_frozen
from stackwise_ray.contracts.small_trial import small_trial
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registries import REGIMES
from stackwise_ray.training.stages import Regime, stage_plan


def it_states_its_options(name: str) -> None:
    """It is a `Regime` whose options are a frozen subclass of `TrainingConfig`."""
    entry = REGIMES.get(name)
    require(isinstance(entry, Regime), f"it is a {type(entry).__name__}; register a Regime(plan=…)")
    derived = isinstance(entry.options, type) and issubclass(entry.options, TrainingConfig)
    require(derived, f"its options are {entry.options!r}, which is no subclass of TrainingConfig")
    require_frozen(entry.options)


def its_options_come_back(name: str) -> None:
    """A trial of it as plain data is read back as the same trial, and holds every option."""
    trial = trial_of(name)
    plain = to_plain(trial)
    missing = field_names(REGIMES.get(name).options) - set(plain["training"])
    require(not missing, f"its plain data lack {', '.join(sorted(missing))}")
    require(from_plain(json.loads(json.dumps(plain))) == trial, "read back from its plain data it is another trial")


def its_own_options_are_refused_elsewhere(name: str) -> None:
    """An option that another regime lacks is refused there, with the name of this one."""
    trial = trial_of(name)
    plain = to_plain(trial)["training"]
    own = sorted(field_names(REGIMES.get(name).options) - field_names(TrainingConfig))
    for option in (option for option in own if plain[option] is not None):  # null says nothing, in any regime
        for other in set(REGIMES.names()) - set(TRAINING.entries_with(option)):
            try:
                small_trial(f"training.regime={other}", f"training.{option}={json.dumps(plain[option])}")
            except ConfigError as error:
                require(name in str(error), f"{option} is refused in {other} without its name: {error}")
            else:
                require(False, f"{option} is taken in the regime {other}, which lacks it")


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
        NotAtHand: It is refused with the options of `Regime.example`; the message is the refusal's own.
    """
    reasons = []
    words = [f"training.{option}={json.dumps(value)}" for option, value in REGIMES.get(name).example.items()]
    for model in ("model=decoder/gpt2_family/tiny", "model=encoder/bert_family/tiny"):
        try:
            return small_trial(f"training.regime={name}", *words, model=model)
        except ConfigError as error:
            reasons.append(str(error))
    raise NotAtHand(f"a small trial of it is refused, for a decoder and for an encoder: {'; '.join(reasons)}")


CHECKS = (
    it_states_its_options,
    its_options_come_back,
    its_own_options_are_refused_elsewhere,
    its_plan_is_pure,
    its_shares_make_the_budget,
    its_stages_train_blocks_that_exist,
)
