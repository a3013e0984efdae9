"""The control of depth-as-time: its corruption, trained end to end, so that only growth and freezing differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stackwise_ray.config.trial import Positive, TrialConfig
from stackwise_ray.config.trial.rules import Found
from stackwise_ray.training.growth_options import DecoderObjective, WithNoise, options_of
from stackwise_ray.training.growth_rules import (
    decoder_objective,
    noise_list,
    noise_of_one_stack,
    time_as_input,
)
from stackwise_ray.training.noise import denoising_objective, masks_of_stacks, stack_noise
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, Regime, stacks_of


@dataclass(frozen=True, kw_only=True)
class RandomRatioTraining(WithNoise):
    """The options of the control: those that decide which masks its grown twin sees."""

    blocks_per_stack: Positive = 1  # blocks of a stack of the twin; they divide the model's
    time: Literal["depth", "input"] = "depth"  # what gives the noise: nothing here, or an input of the model
    decoder_objective: DecoderObjective = "noisy_context"  # what a decoder learns from masks


def classical_random_ratio(trial: TrialConfig) -> StagePlan:
    """One stage; each sequence draws one of the shares that the stacks of `depth_time` own, all equally likely.

    With `training.time: input` it draws a time and the model gets it as an input, as in `append` with that setting.
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


def _own_shares(trial: TrialConfig) -> Found:
    training = options_of(trial, RandomRatioTraining)
    if training.noise.kind != "point":
        problem = (
            f"= {training.noise.kind} has no effect in classical_random_ratio, which always draws the shares "
            "of the stacks"
        )
        return "training.noise.kind", f"{problem}; leave it out"
    if training.time == "input" and training.blocks_per_stack != 1:
        problem = f"= {training.blocks_per_stack} has no effect in classical_random_ratio with training.time: input"
        return "training.blocks_per_stack", f"{problem}; leave it out"
    return None


REGIMES.register("classical_random_ratio")(
    Regime(
        plan=classical_random_ratio,
        options=RandomRatioTraining,
        rules=(_own_shares, noise_list, noise_of_one_stack, decoder_objective, time_as_input),
        masks=masks_of_stacks,
    )
)
