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

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from stackwise_ray.config.trial import Share, TrialConfig
from stackwise_ray.config.trial.rules import Found
from stackwise_ray.training import growth_rules as growth
from stackwise_ray.training.growth_options import GrowingTraining, WithNoise, options_of
from stackwise_ray.training.noise import denoising_objective, levels, masks_of_stacks
from stackwise_ray.training.regimes.classical import classical_stage
from stackwise_ray.training.regimes.depth_time import depth_time
from stackwise_ray.training.stage import Stage, StagePlan, Trainable
from stackwise_ray.training.stages import REGIMES, Regime


@dataclass(frozen=True, kw_only=True)
class HybridTraining(GrowingTraining):
    """The options of going on from a checkpoint."""

    hybrid: Literal["finetune", "band"] = "finetune"  # all parameters on ever heavier masks, or stack by stack
    init_from: str | None = None  # the checkpoint to go on from: a finished run's folder or a saved model
    charge_init: bool = True  # the budget pays for what that run cost as well: only so are arms compared at equal cost
    # Without a checkpoint: share of the budget to train one first as classical does; all other shares are of the rest.
    # None: there is one. No share is a default: how much to spend on it is what a comparison asks.
    pretraining_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    mask_ratio: Share = growth.DEFAULT_MASK_RATIO  # of that first part, for encoders


def hybrid(trial: TrialConfig) -> StagePlan:
    """One stage (`finetune`), or one for each stack (`band`); before them that of classical training where it is asked
    for, and theirs are then shares of what it leaves."""
    training = options_of(trial, HybridTraining)
    stages = _band(trial) if training.hybrid == "band" else (_finetune(trial),)
    share = training.pretraining_share
    if share is None:
        return StagePlan(stages=stages)
    first = classical_stage(trial, training.mask_ratio)
    after = (replace(stage, share=stage.share * (1 - share)) for stage in stages)
    return StagePlan(stages=(replace(first, share=share, fixed_share=True), *after))


def _band(trial: TrialConfig) -> tuple[Stage, ...]:
    training = options_of(trial, HybridTraining)
    noise = replace(training.noise, kind="band")
    grown = depth_time(replace(trial, training=replace(training, noise=noise)))
    return tuple(replace(stage, inserted=()) for stage in grown.stages)


def _finetune(trial: TrialConfig) -> Stage:
    blocks = tuple(range(trial.model.n_layers))
    heaviest, lightest = levels(options_of(trial, HybridTraining).noise, 2)
    return Stage(
        name="finetune",
        active_blocks=blocks,
        trainable=Trainable(blocks=blocks),
        objective=denoising_objective(trial),
        noise=((lightest, heaviest),),
        widening=True,
    )


def _checkpoint(trial: TrialConfig) -> Found:
    """One of two is required: a checkpoint, or the share of the budget that trains it."""
    model, training = trial.model, options_of(trial, HybridTraining)
    own = training.pretraining_share
    if training.init_from is None and own is None:
        fixes = "give the folder of a finished run or of a saved model, or set training.pretraining_share, such as 0.5"
        return "training.init_from", f"is absent, and the regime hybrid begins from a checkpoint; {fixes}"
    if training.init_from is not None and own is not None:
        problem = f"= {own:g} has no effect: training.init_from = {training.init_from} is trained already"
        return "training.pretraining_share", f"{problem}; leave one of them out"
    if training.init_from is None and not training.charge_init:
        problem = (
            "= false has no effect without training.init_from, because the run itself pays for all of its training"
        )
        return "training.charge_init", f"{problem}; leave it out"
    if model.pretrained is not None and own is None:
        return (
            "model.pretrained",
            f"= {model.pretrained} has no effect: the weights come from training.init_from; leave one of them out",
        )
    if training.residual_gain is not None and training.init_from is not None:
        problem = f"= {training.residual_gain} would change what the weights at {training.init_from} compute"
        return "training.residual_gain", f"{problem}; leave it out"
    return None


def _masked(trial: TrialConfig) -> Found:
    training = options_of(trial, HybridTraining)
    if training.pretraining_share is not None:
        return growth.share_of_masks(trial, training.mask_ratio)
    if training.mask_ratio == growth.DEFAULT_MASK_RATIO:
        return None
    problem = f"= {training.mask_ratio:g} has no effect in the regime hybrid without training.pretraining_share"
    return "training.mask_ratio", f"{problem}; leave it out"


def _own_bands(trial: TrialConfig) -> Found:
    training = options_of(trial, HybridTraining)
    if training.noise.kind != "point":
        problem = f"= {training.noise.kind} has no effect in the regime hybrid, which sets the bands itself"
        return "training.noise.kind", f"{problem}; leave it out"
    if training.trunk == "random_frozen":
        return (
            "training.trunk",
            "= random_frozen, but in the regime hybrid the stacks come from a checkpoint; choose training=depth_time",
        )
    return None


def _finetuned(trial: TrialConfig) -> Found:
    """With one stage there is no growth."""
    training = options_of(trial, HybridTraining)
    if training.hybrid == "band":
        return growth.growth_of_one_stack(trial)
    default = HybridTraining(budget=training.budget)
    own = {option.name for option in fields(WithNoise)}
    for name in (option.name for option in fields(GrowingTraining) if option.name not in own):
        if getattr(training, name) != getattr(default, name):
            problem = "has no effect in training.hybrid = finetune, which has one stage"
            return f"training.{name}", f"{problem}; leave it out, or choose training.hybrid: band"
    if training.noise.schedule != "linear":
        problem = "has no effect in training.hybrid = finetune, which goes from r_last to r_first"
        return "training.noise.schedule", f"{problem}; leave it out"
    return None


def _masks(config: Mapping[str, Any]) -> str:
    return f"{masks_of_stacks(config)}; {config['training'].get('hybrid')}"


REGIMES.register("hybrid")(
    Regime(
        plan=hybrid,
        options=HybridTraining,
        rules=(
            _checkpoint,
            _masked,
            _own_bands,
            _finetuned,
            growth.embeddings,
            growth.stage_split,
            growth.noise_list,
            growth.adapters,
            growth.beside_adapters,
            growth.compiled_trunk,
        ),
        masks=_masks,
        example={"pretraining_share": 0.5},
    )
)
