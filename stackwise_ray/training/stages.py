"""What trains when: a run is a plan of stages, and the one loop carries it out.

Classical training is a plan of one stage. A regime is a file in `training.regimes` that turns a trial into its plan;
neither knows of torch or of a model's family, only of block numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.registry import Registry

TrunkPolicy = Literal["none", "frozen", "trainable"]


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """The parts of the rack that get updates in a stage.

    Attributes:
        blocks: Numbers of the blocks that train, counted from the input.
    """

    blocks: tuple[int, ...]
    embeddings: bool = True
    norm: bool = True
    head: bool = True


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training.

    Attributes:
        name: As in `outputs/metrics.json`.
        active_blocks: Blocks that the forward pass goes through, in order.
        trainable: What gets updates.
        trunk_policy: What the active blocks outside of `trainable` are: "none" where there are none.
        objective: A name in `training.objectives`.
        noise_band: Shares of corrupted positions (lowest, highest) for objectives that corrupt; None for others.
        share: The stage's share of the budget.
    """

    name: str
    active_blocks: tuple[int, ...]
    trainable: Trainable
    trunk_policy: TrunkPolicy = "none"
    objective: str
    noise_band: tuple[float, float] | None = None
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """The stages of a run in order; their shares sum to 1."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        total = sum(stage.share for stage in self.stages)
        if not self.stages or abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of {len(self.stages)} stages sum to {total}, not to 1")


Regime = Callable[[TrialConfig], StagePlan]

REGIMES: Registry[Regime] = Registry("training regime", package="stackwise_ray.training.regimes")


def stage_plan(trial: TrialConfig) -> StagePlan:
    """The plan of `trial.training.regime`.

    Raises:
        ConfigError: There is no such regime, or the trial does not fit it.
    """
    try:
        regime = REGIMES.get(trial.training.regime)
    except ConfigError as error:
        raise error.at(path="training.regime") from None
    return regime(trial)
