"""The control of depth-as-time: its corruption, trained end to end, so that only growth and freezing differ."""

from __future__ import annotations

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.training.noise import denoising_objective, stack_noise
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, stacks_of


@REGIMES.register("classical_random_ratio")
def classical_random_ratio(trial: TrialConfig) -> StagePlan:
    """One stage; each sequence draws one of the shares that the stacks of `depth_time` own, all equally likely.

    With `training.time: input` it draws a time and the model is told it, as in `append` with that setting.
    """
    blocks = tuple(range(trial.model.n_layers))
    stage = Stage(
        name="classical_random_ratio",
        active_blocks=blocks,
        trainable=Trainable(blocks=blocks),
        objective=denoising_objective(trial),
        noise=stack_noise(trial, len(stacks_of(trial))),
    )
    return StagePlan(stages=(stage,))
