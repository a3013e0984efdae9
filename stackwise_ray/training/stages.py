"""What trains when: a run is a plan of stages, and the one loop carries it out.

Classical training is a plan of one stage. A regime is a file in `training.regimes` that turns a trial into its plan;
neither knows of torch or of a model's family, only of block numbers. The file also holds the regime's options and the
rules about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stackwise_ray.config.trial import TrainingConfig, TrialConfig
from stackwise_ray.config.trial.rules import Found
from stackwise_ray.core import registries
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.plugins import at_fault
from stackwise_ray.core.registry import Registry
from stackwise_ray.models.component import COMPONENTS
from stackwise_ray.training.growth_options import ADAPTED, GrowingTraining, options_of
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stage_adapters import with_adapters


@dataclass(frozen=True, kw_only=True)
class Regime:
    """A way of training: what registers in `training.regimes`.

    Attributes:
        plan: From a trial to its stages.
        options: Its training options: `TrainingConfig`, or a frozen subclass with fields of its own.
        rules: What does not go together among them and with the rest of the trial. Each returns the path of the field
            to change and what is wrong with it, or None.
        masks: In words, which masks the loss of a model that fills in masks is of; losses of two texts are never
            compared. From the trial as plain data, whose numbers may be text (MLflow's parameters). None: nothing but
            the regime's name decides.
        example: Those of its options without which no trial of it can begin, each with a value; for its contract, for
            tests and for readers of the regime.
    """

    plan: Callable[[TrialConfig], StagePlan]
    options: type[TrainingConfig] = TrainingConfig
    rules: tuple[Callable[[TrialConfig], Found], ...] = ()
    masks: Callable[[Mapping[str, Any]], str] | None = None
    example: Mapping[str, Any] = field(default_factory=dict)


REGIMES: Registry[Regime] = registries.REGIMES


def stage_plan(trial: TrialConfig) -> StagePlan:
    """The plan of `trial.training.regime`.

    Raises:
        ConfigError: There is no such regime, or the trial does not fit it.
    """
    try:
        regime = REGIMES.get(trial.training.regime)
    except ConfigError as error:
        raise error.at(path="training.regime") from None
    with at_fault(REGIMES, trial.training.regime, "its `plan`"):
        plan = regime.plan(trial)
    _refuse_several_stages(trial, plan)
    return plan


def _refuse_several_stages(trial: TrialConfig, plan: StagePlan) -> None:
    """A component may need a model that trains as a whole."""
    for name in trial.model.components if len(plan.stages) > 1 else ():
        reason = COMPONENTS.get(name).one_stage
        if reason is not None:
            raise ConfigError(
                f"= {trial.training.regime} has {len(plan.stages)} stages and does not go with "
                f"model.components.{name}: {reason}; leave one of them out",
                path="training.regime",
            )


def stacks_of(trial: TrialConfig) -> tuple[tuple[int, ...], ...]:
    """The block numbers of each stack, from the input.

    Raises:
        ConfigError: The blocks cannot be cut evenly.
    """
    n, size = trial.model.n_layers, trial.training.blocks_per_stack
    if n % size:
        fitting = [str(d) for d in range(1, n + 1) if n % d == 0]
        raise ConfigError(
            f"= {size} does not divide model.n_layers = {n}; choose {', '.join(fitting)}",
            path="training.blocks_per_stack",
        )
    return tuple(tuple(range(start, start + size)) for start in range(0, n, size))


def finished(trial: TrialConfig, stages: list[Stage], noise: tuple[tuple[float, float], ...]) -> StagePlan:
    """The plan of these stages, and of a last one in which everything trains, where `training.finish` asks for it.

    Over a trunk with adapters the last stack joins it in that last stage, and the adapters alone train.

    Args:
        noise: What the last stage draws its shares of masks from.
    """
    share = trial.training.finish
    if not share:
        return StagePlan(stages=with_adapters(trial, stages))
    blocks = tuple(range(trial.model.n_layers))
    tuned = Trainable(blocks=(), embeddings=False, norm=False, head=False)
    last = replace(
        stages[-1],
        name="finish",
        active_blocks=blocks,
        trainable=tuned if options_of(trial, GrowingTraining).trunk in ADAPTED else Trainable(blocks=blocks),
        noise=noise,
        share=share,
        fixed_share=True,
        finishes=True,
        inserted=(),
        reset=(),
        next_level=None,
        cached=False,
    )
    before = [replace(stage, share=stage.share * (1 - share)) for stage in stages]
    return StagePlan(stages=with_adapters(trial, [*before, last]))


def stage_shares(trial: TrialConfig, n_stages: int) -> tuple[float, ...]:
    """The stages' shares of the budget, in the order of training.

    What a stage costs is not known here: flop_proportional shares are equal until `planning.trial_plan.split_by_cost`
    sets them.

    Raises:
        ConfigError: Another number of shares, one that is 0, or a sum that is not 1.
    """
    split = trial.training.stage_split
    if isinstance(split, str):
        return (1 / n_stages,) * n_stages
    if len(split) != n_stages or min(split) <= 0 or not math.isclose(sum(split), 1, abs_tol=1e-9):
        raise ConfigError(
            f"= {list(split)} must be {n_stages} positive shares with the sum 1, but the sum is {sum(split):g}; give "
            "one per stage in the order of training, or write uniform or flop_proportional",
            path="training.stage_split",
        )
    return tuple(split)
