"""Depth as time, right to left: one stack at a time, each trained on the noise that it owns, through a frozen suffix.

The rightmost stack trains first, with embeddings, norm and head, on the lightest noise. Then each stack is put before
it as the identity and trained on heavier noise, while everything after it is frozen and in evaluation mode; gradients
flow through it. Encoders predict the masked tokens; decoders the next token from a context in which tokens are masked.

`training.trunk: random_frozen` is the control: the stacks on the right are as they were drawn, never trained, so norm
and head train in every stage.
"""

from __future__ import annotations

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.training.noise import band_of, denoising_objective, levels
from stackwise_ray.training.stages import REGIMES, Stage, StagePlan, Trainable, stacks_of, stage_shares


@REGIMES.register("depth_time")
def depth_time(trial: TrialConfig) -> StagePlan:
    """A stage for each stack, from the output to the input."""
    stacks = stacks_of(trial)
    r = levels(trial.training.noise, len(stacks))
    shares = stage_shares(trial, len(stacks))
    bands = [band_of(trial.training.noise, r, number) for number in range(len(stacks))]
    stages: list[Stage] = []
    for number in reversed(range(len(stacks))):
        later = stacks[number + 1] if number + 1 < len(stacks) else ()
        stages.append(
            Stage(
                name=f"stack {number + 1} of {len(stacks)}",
                active_blocks=tuple(block for stack in stacks[number:] for block in stack),
                trainable=_trainable(trial, stacks[number], first=not later),
                trunk_policy="frozen" if later else "none",
                objective=denoising_objective(trial),
                noise=(bands[number],),
                share=shares[len(stages)],
                inserted=stacks[number] if later else (),
                reset=later if trial.training.trunk == "random_frozen" else (),
                own_head=bool(later) and trial.training.embeddings != "tied_frozen",
            )
        )
    return StagePlan(stages=tuple(stages))


def _trainable(trial: TrialConfig, blocks: tuple[int, ...], *, first: bool) -> Trainable:
    policy = trial.training.embeddings
    rest = first or trial.training.trunk == "random_frozen"
    return Trainable(
        blocks=blocks,
        embeddings=first or policy != "tied_frozen",
        norm=rest,
        head=rest or policy == "untied_all",
    )
