"""From a classical checkpoint to depth as time: its weights go on training on the noise of stacks.

`training.hybrid: finetune`: everything trains, and the band of masked shares widens over the budget, from its lightest
share alone to all up to its heaviest. The heaviest is .95, as everywhere here, not 1: with nothing left to read there
is nothing to learn but frequencies.

`band`: one stack at a time, from the output to the input, as in `depth_time`, each on shares drawn in a band round its
own. Its blocks enter with the checkpoint's weights, not as the identity.
"""

from __future__ import annotations

from dataclasses import replace

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.training.noise import denoising_objective, levels
from stackwise_ray.training.regimes.depth_time import depth_time
from stackwise_ray.training.stages import REGIMES, Stage, StagePlan, Trainable


@REGIMES.register("hybrid")
def hybrid(trial: TrialConfig) -> StagePlan:
    """One stage (`finetune`), or one for each stack (`band`)."""
    training = trial.training
    if training.hybrid == "band":
        noise = replace(training.noise, kind="band")
        grown = depth_time(replace(trial, training=replace(training, noise=noise)))
        return StagePlan(stages=tuple(replace(stage, inserted=()) for stage in grown.stages))
    blocks = tuple(range(trial.model.n_layers))
    heaviest, lightest = levels(training.noise, 2)
    stage = Stage(
        name="finetune",
        active_blocks=blocks,
        trainable=Trainable(blocks=blocks),
        objective=denoising_objective(trial),
        noise=((lightest, heaviest),),
        widening=True,
    )
    return StagePlan(stages=(stage,))
