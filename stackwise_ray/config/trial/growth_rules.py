"""The rules on options of training that only some regimes, roles or budgets give a meaning.

`checks` runs them with the others, after its own: names are known and the regime takes the field when these are asked.
"""

from __future__ import annotations

from collections.abc import Callable

from stackwise_ray.config.trial import ADAPTED, Lora, Noise, TrainingConfig, TrialConfig

Found = tuple[str, str] | None
"""As in `checks`: path of the field to change and what is wrong with it, or nothing."""

POST_NORM = ("bert",)
"""Families whose blocks end in a norm. The families say the same (a contract test compares)."""

TWO_SIDED = ("gpt2", "llama")
"""Decoder families whose attention can be switched to both sides. The families say the same, likewise."""


def _stage_split(trial: TrialConfig) -> Found:
    training = trial.training
    if training.stage_split != "flop_proportional" or training.budget.unit in ("flops", "wall_seconds"):
        return None
    problem = (
        f"= flop_proportional gives a stage tokens in proportion to their cost, of a budget of {training.budget.unit}; "
        "it is to give all stages equal tokens"
    )
    return "training.stage_split", f"{problem}: choose uniform, or a budget of flops or wall_seconds"


def _masks(trial: TrialConfig) -> Found:
    training, noise, default = trial.training, trial.training.noise, Noise()
    ratio = training.mask_ratio
    drawn = training.regime in ("classical_random_ratio", "depth_time", "append", "hybrid")
    drawn = drawn and training.pretraining_share is None  # which begins as classical training does
    if ratio != TrainingConfig(budget=training.budget).mask_ratio and (trial.model.role == "decoder" or drawn):
        where = f"in the regime {training.regime}" if drawn else "on a decoder"
        problem = f"= {ratio:g} has no effect {where}; it goes with classical training of encoders"
        return "training.mask_ratio", f"{problem}, and training.noise with the other regimes"
    if ratio == 0:  # of classical training of an encoder: elsewhere it is refused above
        return "training.mask_ratio", "= 0 masks nothing, and masked tokens are all that an encoder learns from"
    if isinstance(noise.schedule, tuple):
        for name in ("r_first", "r_last"):
            value = getattr(noise, name)
            if value != getattr(default, name):
                problem = f"= {value:g} has no effect beside a list of shares ({list(noise.schedule)})"
                return f"training.noise.{name}", f"{problem}; leave one of them out"
    return None


def _one_stack(trial: TrialConfig) -> Found:
    """Nothing is before or after a single stack, which owns the share r_last."""
    training, noise = trial.training, trial.training.noise
    grows = training.regime in ("depth_time", "append") or (training.regime, training.hybrid) == ("hybrid", "band")
    if trial.model.n_layers != training.blocks_per_stack or not (grows or training.regime == "classical_random_ratio"):
        return None
    default = TrainingConfig(budget=training.budget)
    changed = [
        (name, getattr(training, name), getattr(default, name)) for name in ("trunk", "embeddings", "stage_split")
    ]
    if training.trunk in ADAPTED:  # `_lora`: with a finish they train on the one stack
        del changed[0]
    if training.time == "depth":
        changed += [(f"noise.{name}", getattr(noise, name), getattr(Noise(), name)) for name in ("kind", "r_first")]
        if not isinstance(noise.schedule, tuple):
            changed.append(("noise.schedule", noise.schedule, Noise().schedule))
    for name, value, usual in changed:
        if value != usual:
            shown = list(value) if isinstance(value, tuple) else value
            problem = f"= {shown} has no effect on one stack (training.blocks_per_stack = {training.blocks_per_stack})"
            return f"training.{name}", f"{problem}; leave it out, or choose a smaller training.blocks_per_stack"
    return None


def _random_trunk(trial: TrialConfig) -> Found:
    training = trial.training
    if (training.regime, training.trunk, training.embeddings) != ("depth_time", "random_frozen", "untied_all"):
        return None
    problem = (
        "= untied_all has no effect in depth_time over a random_frozen trunk, where embeddings and head train anyway"
    )
    return "training.embeddings", f"{problem}; leave it out"


def _consistency(trial: TrialConfig) -> Found:
    training = trial.training
    if training.consistency and trial.model.n_layers == training.blocks_per_stack:
        problem = f"= {training.consistency:g} draws a stack to the input of the next, and there is one stack alone"
        return "training.consistency", f"{problem}; leave it out, or choose a smaller training.blocks_per_stack"
    return None


def _entry(trial: TrialConfig) -> Found:
    training = trial.training
    if training.entry == "full":
        return None
    if not trial.fills_masks:
        problem = f"= {training.entry} is about inputs with masks, and a decoder is evaluated on clean text"
        return "training.entry", f"{problem}; leave it out"
    if trial.model.n_layers == training.blocks_per_stack:
        problem = f"= {training.entry} chooses among stacks, and there is one alone"
        return "training.entry", f"{problem}; leave it out, or choose a smaller training.blocks_per_stack"
    return None


def _decoder_objective(trial: TrialConfig) -> Found:
    objective, model = trial.training.decoder_objective, trial.model
    if objective == "noisy_context":
        return None
    path = "training.decoder_objective"
    if model.role == "encoder":
        return path, f"= {objective} has no effect on an encoder, which fills in masks as it is; leave it out"
    if model.family == "bk":
        return path, f"= {objective} is what the family bk does as an encoder; write model.role: encoder"
    if model.family not in TWO_SIDED:
        fitting = " or ".join(TWO_SIDED)
        return path, f"= {objective} needs a family that can mix both sides, and {model.family} cannot; take {fitting}"
    return None


def _stabilisers(trial: TrialConfig) -> Found:
    training, model = trial.training, trial.model
    for name, value in (("spectral_norm", training.spectral_norm), ("residual_gain", training.residual_gain)):
        if value and model.family in POST_NORM:
            problem = f"= {value} is about the last projection of a residual branch, and a block of {model.family} ends"
            return f"training.{name}", f"{problem} in a norm, which undoes its scale; leave it out"
    given = model.pretrained or training.init_from
    if training.residual_gain is not None and given is not None:
        problem = f"= {training.residual_gain} would change what the weights at {given} compute"
        return "training.residual_gain", f"{problem}; leave it out"
    return None


def _lora(trial: TrialConfig) -> Found:
    training, lora = trial.training, trial.training.lora
    if training.trunk not in ADAPTED:
        if lora == Lora():
            return None
        return "training.lora", f"has no effect over a {training.trunk} trunk; set training.trunk to lora or qlora"
    n_trunk = trial.model.n_layers - (0 if training.finish else training.blocks_per_stack)
    if n_trunk < 1:
        problem = f"= {training.trunk} has no effect: with one stack there is no trunk"
        return "training.trunk", f"{problem}; choose a smaller training.blocks_per_stack, or more model.n_layers"
    if lora.pattern != "constant" and (n_trunk == 1 or lora.rank == 1):
        why = "a trunk of one block" if n_trunk == 1 else "rank 1"
        return "training.lora.pattern", f"= {lora.pattern} has no effect with {why}; write constant, or change that"
    smallest = lora.rank if lora.pattern == "constant" else lora.rank - round(lora.rank / 2)
    if lora.dual is not None and lora.dual >= smallest:
        problem = f"= {lora.dual} is no smaller than the first set's rank, {smallest} where it is least"
        return "training.lora.dual", f"{problem}; choose less, or raise training.lora.rank"
    return None


def _beside_adapters(trial: TrialConfig) -> Found:
    training = trial.training
    if training.trunk not in ADAPTED:
        return None
    for name, value in (("spectral_norm", training.spectral_norm), ("residual_gain", training.residual_gain)):
        if value:
            problem = f"= {value} is about a projection by itself, and on a {training.trunk} trunk adapters add to it"
            return f"training.{name}", f"{problem}; leave it out, or choose another training.trunk"
    if training.entry != "full":
        problem = f"= {training.entry} enters at a stack as it was trained, and adapters of a {training.trunk} trunk"
        return "training.entry", f"{problem} fit it to the stacks before it; leave it out"
    return None


GROWTH_RULES: tuple[Callable[[TrialConfig], Found], ...] = (
    _stage_split,
    _masks,
    _one_stack,
    _random_trunk,
    _consistency,
    _entry,
    _decoder_objective,
    _stabilisers,
    _lora,
    _beside_adapters,
)
