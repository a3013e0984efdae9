"""Growing left to right: one stack at a time on top of a prefix, each trained on the noise that it owns.

The first stack trains on the heaviest noise, with embeddings, norm and head. Then each stack is put on top as the
identity and trained on lighter noise, with norm and head, which follow what is new; the prefix, embeddings included,
is frozen, and no gradient is computed in it. The head leaves the token table when the prefix freezes.

`training.trunk: trainable`: the prefix goes on training, and a tie stays. `random_frozen`: it is as it was drawn.
`lora` and `qlora`: adapters train on the frozen prefix.
`training.embeddings: untied_all`: the embeddings go on training, through all of the prefix.

`training.time: input`: a stack owns no noise. Each sequence draws a time, which decides its share of masks, and the
model gets it as an input (`models.growth.time_input`); all stages draw alike.

`training.cache`: masks stay the same in every epoch, and what the frozen prefix gives is computed once for every window
(`training.prefix_cache`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stackwise_ray.config.trial import Positive, TrialConfig
from stackwise_ray.config.trial.rules import Found
from stackwise_ray.training import growth_rules as growth
from stackwise_ray.training.growth_options import DecoderObjective, GrowingTraining, options_of
from stackwise_ray.training.noise import bands, denoising_objective, masks_of_stacks, stack_noise
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, Regime, finished, stacks_of, stage_shares


@dataclass(frozen=True, kw_only=True)
class AppendTraining(GrowingTraining):
    """The options of growth from the input to the output."""

    decoder_objective: DecoderObjective = "noisy_context"  # what a decoder learns from masks
    time: Literal["depth", "input"] = "depth"  # what gives the noise: the stack's number, or an input of the model
    cache: bool = False  # keep what the frozen prefix gives, on masks that stay the same every epoch
    cache_bytes: Positive | None = None  # largest such cache; None: what is free on the disk of the run's folder


def append(trial: TrialConfig) -> StagePlan:
    """A stage for each stack, from the input to the output."""
    stacks, training = stacks_of(trial), options_of(trial, AppendTraining)
    noise, shares = bands(trial, len(stacks)), stage_shares(trial, len(stacks))
    goes_on = training.trunk == "trainable"
    stages: list[Stage] = []
    for number, stack in enumerate(stacks):
        first = number == 0
        active = tuple(block for prefix in stacks[: number + 1] for block in prefix)
        stages.append(
            Stage(
                name=f"stack {number + 1} of {len(stacks)}",
                active_blocks=active,
                trainable=Trainable(
                    blocks=active if goes_on else stack,
                    embeddings=first or goes_on or training.embeddings == "untied_all",
                ),
                objective=denoising_objective(trial),
                noise=noise[number],
                share=shares[number],
                inserted=() if first else stack,
                reset=stacks[number - 1] if not first and training.trunk == "random_frozen" else (),
                own_head=not first and not goes_on,
                cached=not first and training.cache,
            )
        )
    return finished(trial, stages, stack_noise(trial, len(stacks)))


def _head_trains(trial: TrialConfig) -> Found:
    tied = options_of(trial, AppendTraining).embeddings == "tied_frozen"
    return growth.frozen_head_trains("append") if tied else None


REGIMES.register("append")(
    Regime(
        plan=append,
        options=AppendTraining,
        rules=(
            _head_trains,
            growth.embeddings,
            growth.stage_split,
            growth.noise_list,
            growth.growth_of_one_stack,
            growth.decoder_objective,
            growth.adapters,
            growth.beside_adapters,
            growth.time_as_input,
            growth.cached_prefix,
            growth.compiled_trunk,
        ),
        masks=masks_of_stacks,
    )
)
