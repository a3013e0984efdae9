"""Growing left to right: one stack at a time on top of a prefix, each trained on the noise that it owns.

The first stack trains on the heaviest noise, with embeddings, norm and head. Then each stack is put on top as the
identity and trained on lighter noise, with norm and head, which stand on what is new; the prefix, embeddings included,
is frozen, and no gradient is computed in it. The head leaves the token table when the prefix freezes.

`training.trunk: trainable`: the prefix goes on training, and a tie stays. `random_frozen`: it is as it was drawn.
`lora` and `qlora`: adapters train on the frozen prefix.
`training.embeddings: untied_all`: the embeddings go on training, through all of the prefix.

`training.time: input`: a stack owns no noise. Each sequence draws a time, which decides its share of masks, and the
model is told it (`models.growth.time_input`); all stages draw alike.

`training.cache`: masks stay the same in every epoch, and what the frozen prefix gives is computed once for every window
(`training.prefix_cache`).
"""

from __future__ import annotations

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.training.noise import bands, denoising_objective, stack_noise
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, finished, stacks_of, stage_shares


@REGIMES.register("append")
def append(trial: TrialConfig) -> StagePlan:
    """A stage for each stack, from the input to the output."""
    stacks, training = stacks_of(trial), trial.training
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
