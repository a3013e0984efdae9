"""From a classical checkpoint to depth as time: its weights go on training on the noise of stacks.

`training.hybrid: finetune`: everything trains, and the band of masked shares widens over the budget, from its lightest
share alone to all up to its heaviest. The heaviest is .95, as everywhere here, not 1: with nothing left to read there
is nothing to learn but frequencies.

`band`: one stack at a time, from the output to the input, as in `depth_time`, each on shares drawn in a band round its
own. Its blocks enter with the checkpoint's weights, not as the identity.

The checkpoint is that of `training.init_from`; or the run trains it itself, in a first stage of classical training that
takes `training.pretraining_share` of the budget.
"""

from __future__ import annotations

from dataclasses import replace

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.training.noise import denoising_objective, levels
from stackwise_ray.training.regimes.classical import classical
from stackwise_ray.training.regimes.depth_time import depth_time
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES


@REGIMES.register("hybrid")
def hybrid(trial: TrialConfig) -> StagePlan:
    """One stage (`finetune`), or one for each stack (`band`); before them that of classical training where it is asked
    for, and theirs are then shares of what it leaves."""
    stages = _band(trial) if trial.training.hybrid == "band" else (_finetune(trial),)
    share = trial.training.pretraining_share
    if share is None:
        return StagePlan(stages=stages)
    (first,) = classical(trial).stages
    after = (replace(stage, share=stage.share * (1 - share)) for stage in stages)
    return StagePlan(stages=(replace(first, share=share), *after))


def _band(trial: TrialConfig) -> tuple[Stage, ...]:
    noise = replace(trial.training.noise, kind="band")
    grown = depth_time(replace(trial, training=replace(trial.training, noise=noise)))
    return tuple(replace(stage, inserted=()) for stage in grown.stages)


def _finetune(trial: TrialConfig) -> Stage:
    blocks = tuple(range(trial.model.n_layers))
    heaviest, lightest = levels(trial.training.noise, 2)
    return Stage(
        name="finetune",
        active_blocks=blocks,
        trainable=Trainable(blocks=blocks),
        objective=denoising_objective(trial),
        noise=((lightest, heaviest),),
        widening=True,
    )
