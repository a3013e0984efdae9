"""Depth as time, right to left: one stack at a time, each trained on the noise that it owns, through a frozen suffix.

The rightmost stack trains first, with embeddings, norm and head, on the lightest noise. Then each stack is put before
it as the identity and trained on heavier noise, while everything after it is frozen and in evaluation mode; gradients
flow through it. Encoders predict the masked tokens; decoders the next token from a context in which tokens are masked.

`training.trunk: random_frozen` is the control: the stacks on the right are as they were drawn, never trained, so norm
and head train in every stage. `trainable`: the suffix goes on training with norm and head, and a tie stays. `lora` and
`qlora`: adapters train on the frozen suffix.
"""

from __future__ import annotations

from stackwise_ray.config.trial import ADAPTED, TrialConfig
from stackwise_ray.training.noise import band_of, denoising_objective, levels, stack_noise
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, finished, stacks_of, stage_shares


@REGIMES.register("depth_time")
def depth_time(trial: TrialConfig) -> StagePlan:
    """A stage for each stack, from the output to the input."""
    stacks, training = stacks_of(trial), trial.training
    r, shares = levels(training.noise, len(stacks)), stage_shares(trial, len(stacks))
    stages: list[Stage] = []
    for number in reversed(range(len(stacks))):
        later = stacks[number + 1] if number + 1 < len(stacks) else ()
        active = tuple(block for stack in stacks[number:] for block in stack)
        stages.append(
            Stage(
                name=f"stack {number + 1} of {len(stacks)}",
                active_blocks=active,
                trainable=_trainable(trial, stacks[number], active, first=not later),
                objective=denoising_objective(trial),
                noise=(band_of(training.noise, r, number),),
                share=shares[len(stages)],
                inserted=stacks[number] if later else (),
                reset=later if training.trunk == "random_frozen" else (),
                own_head=bool(later) and training.trunk != "trainable" and training.embeddings != "tied_frozen",
                next_level=r[number + 1] if later and training.consistency else None,
            )
        )
    return finished(trial, stages, stack_noise(trial, len(stacks)))


def _trainable(trial: TrialConfig, new: tuple[int, ...], active: tuple[int, ...], *, first: bool) -> Trainable:
    policy, trunk = trial.training.embeddings, trial.training.trunk
    rest = first or trunk not in ("frozen", *ADAPTED)
    return Trainable(
        blocks=active if trunk == "trainable" else new,
        embeddings=first or policy != "tied_frozen",
        norm=rest,
        head=rest or policy == "untied_all",
    )
