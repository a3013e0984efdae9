"""Depth as time, right to left: one stack at a time, each trained on the noise that it owns, through a frozen suffix.

The rightmost stack trains first, with embeddings, norm and head, on the lightest noise. Then each stack is put before
it as the identity and trained on heavier noise, while everything after it is frozen and in evaluation mode; gradients
flow through it. Encoders predict the masked tokens; decoders the next token from a context in which tokens are masked.

`training.trunk: random_frozen` is the control: the stacks on the right are as they were drawn, never trained, so norm
and head train in every stage. `trainable`: the suffix goes on training with norm and head, and a tie stays. `lora` and
`qlora`: adapters train on the frozen suffix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stackwise_ray.config.trial import NonNegative, TrialConfig
from stackwise_ray.config.trial.rules import Found
from stackwise_ray.training import growth_rules as growth
from stackwise_ray.training.growth_options import ADAPTED, DecoderObjective, GrowingTraining, options_of
from stackwise_ray.training.noise import band_of, denoising_objective, levels, masks_of_stacks, stack_noise
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, Regime, finished, stacks_of, stage_shares


@dataclass(frozen=True, kw_only=True)
class DepthTimeTraining(GrowingTraining):
    """The options of growth from the output to the input."""

    decoder_objective: DecoderObjective = "noisy_context"  # what a decoder learns from masks
    consistency: NonNegative = 0.0  # weight of ‖h_k − emb(mask(x, r_{k+1}))‖² where tokens are newly revealed; 0: off
    entry: Literal["full", "nearest_r"] = "full"  # of masked inputs in evaluation: at the input, or where r_k fits


def depth_time(trial: TrialConfig) -> StagePlan:
    """A stage for each stack, from the output to the input."""
    stacks, training = stacks_of(trial), options_of(trial, GrowingTraining)
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
    training = options_of(trial, GrowingTraining)
    policy, trunk = training.embeddings, training.trunk
    rest = first or trunk not in ("frozen", *ADAPTED)
    return Trainable(
        blocks=active if trunk == "trainable" else new,
        embeddings=first or policy != "tied_frozen",
        norm=rest,
        head=rest or policy == "untied_all",
    )


def _random_trunk(trial: TrialConfig) -> Found:
    training = options_of(trial, DepthTimeTraining)
    if (training.trunk, training.embeddings) != ("random_frozen", "untied_all"):
        return None
    problem = "= untied_all has no effect with trunk: random_frozen, where embeddings and head train anyway"
    return "training.embeddings", f"{problem}; leave it out"


def _consistency(trial: TrialConfig) -> Found:
    training, path = trial.training, "training.consistency"
    if not training.consistency:
        return None
    if growth.is_one_stack(trial):
        problem = (
            f"= {training.consistency:g} has no effect: it draws a stack to the input of the next, and there "
            "is only one stack"
        )
        return path, f"{problem}; leave it out, or choose a smaller training.blocks_per_stack"
    if training.parallel == "sharded":
        problem = (
            f"= {training.consistency:g} does not go with training.parallel: sharded: embeddings are needed "
            "after their shards are freed"
        )
        return path, f"{problem}; choose 0, or training.parallel: replicated"
    if training.compile:
        problem = (
            f"= {training.consistency:g} does not go with training.compile: true: a compiled pass does not "
            "give a stack's output"
        )
        return path, f"{problem}; choose 0, or training.compile: false"
    return None


def _entry(trial: TrialConfig) -> Found:
    training = trial.training
    if training.entry == "full":
        return None
    if not trial.fills_masks:
        problem = (
            f"= {training.entry} has no effect: it is about masked inputs, and a decoder is evaluated on clean text"
        )
        return "training.entry", f"{problem}; leave it out"
    if growth.is_one_stack(trial):
        problem = f"= {training.entry} has no effect: it chooses among stacks, and there is only one"
        return "training.entry", f"{problem}; leave it out, or choose a smaller training.blocks_per_stack"
    return None


REGIMES.register("depth_time")(
    Regime(
        plan=depth_time,
        options=DepthTimeTraining,
        rules=(
            growth.embeddings,
            growth.stage_split,
            growth.noise_list,
            growth.growth_of_one_stack,
            _random_trunk,
            _consistency,
            _entry,
            growth.decoder_objective,
            growth.adapters,
            growth.beside_adapters,
            growth.compiled_trunk,
        ),
        masks=masks_of_stacks,
    )
)
