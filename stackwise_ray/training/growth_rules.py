"""Rules that several regimes share: which of their options go together, and what has no effect beside what.

A regime lists those that it asks in its entry. Every rule takes a trial and returns what is wrong, or nothing; which
options a regime has at all is decided by its options class.
"""

from __future__ import annotations

from stackwise_ray.config.trial import ExpertsChannelMixer, TrialConfig
from stackwise_ray.config.trial.rules import Found
from stackwise_ray.core.registries import FAMILIES
from stackwise_ray.training.growth_options import ADAPTED, GrowingTraining, Lora, Noise, WithNoise, options_of

DEFAULT_MASK_RATIO = 0.15
"""BERT's share of masked positions."""


def is_one_stack(trial: TrialConfig) -> bool:
    """Whether all blocks are one stack: nothing is before or after it."""
    return trial.model.n_layers == trial.training.blocks_per_stack


def share_of_masks(trial: TrialConfig, ratio: float) -> Found:
    """Classical training masks a fixed share of an encoder's positions; a decoder has no masks there."""
    if trial.model.role == "decoder" and ratio != DEFAULT_MASK_RATIO:
        problem = f"= {ratio:g} has no effect on a decoder; only encoders are trained on masks here"
        return "training.mask_ratio", f"{problem}; leave it out"
    if ratio == 0:
        return (
            "training.mask_ratio",
            "= 0 masks no token, and an encoder learns from masked tokens only; give a share above 0",
        )
    return None


def noise_list(trial: TrialConfig) -> Found:
    """A list of shares leaves nothing to interpolate."""
    noise, default = options_of(trial, WithNoise).noise, Noise()
    if isinstance(noise.schedule, tuple):
        for name in ("r_first", "r_last"):
            value = getattr(noise, name)
            if value != getattr(default, name):
                problem = f"= {value:g} has no effect beside a list of shares ({list(noise.schedule)})"
                return f"training.noise.{name}", f"{problem}; leave one of them out"
    return None


def stage_split(trial: TrialConfig) -> Found:
    """Shares by cost say something of a budget of FLOPs or of time alone."""
    training = trial.training
    if training.stage_split != "flop_proportional" or training.budget.unit in ("flops", "wall_seconds"):
        return None
    problem = (
        "= flop_proportional divides a budget of flops or wall_seconds so that all stages see equal tokens, but this "
        f"budget is in {training.budget.unit}"
    )
    return "training.stage_split", f"{problem}; choose uniform, or a budget of flops or wall_seconds"


def noise_of_one_stack(trial: TrialConfig) -> Found:
    """A single stack owns the share r_last."""
    if not is_one_stack(trial) or trial.training.time == "input":
        return None
    noise, default = options_of(trial, WithNoise).noise, Noise()
    for name in ("kind", "r_first", "schedule"):
        value = getattr(noise, name)
        if value != getattr(default, name) and not isinstance(value, tuple):
            return _of_one_stack(trial, f"noise.{name}", value)
    return None


def growth_of_one_stack(trial: TrialConfig) -> Found:
    """Nothing is before or after a single stack."""
    if not is_one_stack(trial):
        return None
    training = options_of(trial, GrowingTraining)
    names = ("embeddings", "stage_split") if training.trunk in ADAPTED else ("trunk", "embeddings", "stage_split")
    default = GrowingTraining(budget=training.budget)
    for name in names:  # adapters train on the one stack too, in a finish: `adapters` below
        value = getattr(training, name)
        if value != getattr(default, name):
            return _of_one_stack(trial, name, list(value) if isinstance(value, tuple) else value)
    return noise_of_one_stack(trial)


def _of_one_stack(trial: TrialConfig, name: str, shown: object) -> Found:
    size = trial.training.blocks_per_stack
    problem = f"= {shown} has no effect: the model is one stack (training.blocks_per_stack = {size})"
    return f"training.{name}", f"{problem}; leave it out, or choose a smaller training.blocks_per_stack"


def embeddings(trial: TrialConfig) -> Found:
    """Which policies of embeddings and head a trunk leaves a meaning."""
    training = options_of(trial, GrowingTraining)
    if training.embeddings == "untied_all" and training.trunk == "trainable":
        problem = "= untied_all has no effect with trunk: trainable, where all weights train and tied ones stay tied"
        return "training.embeddings", f"{problem}; leave it out"
    if training.embeddings == "tied_frozen" and training.trunk not in ("frozen", *ADAPTED):
        return frozen_head_trains(f"a {training.trunk} trunk")
    return None


def frozen_head_trains(what: str) -> Found:
    """A head that `what` needs to train cannot be frozen."""
    problem = f"= tied_frozen freezes the head after the first stage, and {what} needs it to train"
    return "training.embeddings", f"{problem}; choose untied_frozen_head or untied_all"


def decoder_objective(trial: TrialConfig) -> Found:
    """Which models can fill in masks from both sides."""
    objective, model = trial.training.decoder_objective, trial.model
    if objective == "noisy_context":
        return None
    path, family = "training.decoder_objective", FAMILIES.get(model.family)
    if model.role == "encoder":
        return path, f"= {objective} has no effect: an encoder fills in masks anyway; leave it out"
    if "encoder" in family.roles:
        return path, f"= {objective} would make an encoder of the family {model.family}; write model.role: encoder"
    if not family.can_be_two_sided:
        fitting = " or ".join(name for name, other in FAMILIES.items() if other.can_be_two_sided)
        return path, f"= {objective} needs a model that sees both sides, and {model.family} cannot; choose {fitting}"
    return None


def time_as_input(trial: TrialConfig) -> Found:
    """With `time: input` every stage draws from the whole range r_last to r_first: what cuts it up says nothing."""
    if trial.training.time == "depth":
        return None
    noise, default = options_of(trial, WithNoise).noise, Noise()
    for name in ("kind", "schedule"):
        value = getattr(noise, name)
        if value != getattr(default, name):
            shown = list(value) if isinstance(value, tuple) else value
            problem = f"= {shown} has no effect with training.time: input: every stage draws from the whole range"
            return f"training.noise.{name}", f"{problem} r_last to r_first; leave it out"
    return None


def adapters(trial: TrialConfig) -> Found:
    """Adapters need a trunk, and each of their options something that it changes."""
    training = options_of(trial, GrowingTraining)
    lora = training.lora
    if training.trunk not in ADAPTED:
        if lora == Lora():
            return None
        return (
            "training.lora",
            f"has no effect with training.trunk: {training.trunk}; leave it out, or choose trunk: lora or qlora",
        )
    n_trunk = trial.model.n_layers - (0 if training.finish else training.blocks_per_stack)
    if n_trunk < 1:
        problem = f"= {training.trunk} has no effect: the model is one stack and has no trunk"
        return "training.trunk", f"{problem}; choose a smaller training.blocks_per_stack, or more model.n_layers"
    if lora.pattern != "constant" and (n_trunk == 1 or lora.rank == 1):
        why = "a trunk of one block" if n_trunk == 1 else "rank 1"
        return "training.lora.pattern", f"= {lora.pattern} has no effect with {why}; write constant"
    smallest = lora.rank if lora.pattern == "constant" else lora.rank - round(lora.rank / 2)
    if lora.dual is not None and lora.dual >= smallest:
        problem = f"= {lora.dual} is not below the least rank of the first set of adapters, {smallest}"
        return "training.lora.dual", f"{problem}; choose a smaller one, or raise training.lora.rank"
    return None


def beside_adapters(trial: TrialConfig) -> Found:
    """What is about a projection or a stack by itself does not go with adapters on it."""
    training = options_of(trial, GrowingTraining)
    if training.trunk not in ADAPTED:
        return None
    for name, value in (("spectral_norm", training.spectral_norm), ("residual_gain", training.residual_gain)):
        if value:
            problem = f"= {value} does not go with trunk: {training.trunk}: it needs a projection without adapters"
            return f"training.{name}", f"{problem}; leave it out, or choose another training.trunk"
    if training.entry != "full":
        problem = (
            f"= {training.entry} does not go with trunk: {training.trunk}: adapters fit a stack to those before it"
        )
        return "training.entry", f"{problem}; leave it out"
    return None


def compiled_trunk(trial: TrialConfig) -> Found:
    """A graph cannot hold operations of a library that it does not know."""
    if trial.training.compile and options_of(trial, GrowingTraining).trunk == "qlora":
        problem = (
            "= qlora does not go with training.compile: true: operations of bitsandbytes were not tested in a "
            "compiled pass"
        )
        return "training.trunk", f"{problem}; choose lora, or training.compile: false"
    return None


def cached_prefix(trial: TrialConfig) -> Found:
    """A cache needs a prefix that gives the same for the same masks as long as a stage lasts."""
    training = options_of(trial, GrowingTraining)
    if not training.cache:
        if training.cache_bytes is not None:
            return (
                "training.cache_bytes",
                f"= {training.cache_bytes} has no effect without training.cache: true; leave it out",
            )
        return None
    if training.trunk not in ("frozen", "random_frozen"):
        problem = f"= true needs a frozen prefix, but with trunk: {training.trunk} it changes at every step"
        return "training.cache", f"{problem}; choose training.trunk: frozen, or leave the cache out"
    if training.embeddings == "untied_all":
        problem = "= true needs a prefix with fixed inputs, but training.embeddings: untied_all trains the embeddings"
        return "training.cache", f"{problem}; choose untied_frozen_head, or leave the cache out"
    if isinstance(trial.model.channel_mixer, ExpertsChannelMixer):
        problem = (
            "= true does not go with mixture_of_experts: the load-balance loss needs the experts of the prefix too"
        )
        return "training.cache", f"{problem}; choose the channel mixer swiglu, or leave the cache out"
    if training.stage_split == "flop_proportional":
        problem = (
            "= true does not go with stage_split: flop_proportional, which cannot count the cost of filling the cache"
        )
        return "training.cache", f"{problem}; choose uniform or a list of shares, or leave the cache out"
    if is_one_stack(trial):
        problem = (
            f"= true has no effect: the model is one stack (training.blocks_per_stack = {training.blocks_per_stack})"
        )
        return "training.cache", f"{problem}; leave it out"
    if training.parallel == "sharded":
        problem = (
            "= true does not go with training.parallel: sharded: its passes begin inside the model, without the shards"
        )
        return "training.cache", f"{problem}; leave it out, or write training.parallel: replicated"
    if training.compile:
        problem = (
            "= true does not go with training.compile: true: a compiled pass begins at the tokens, not inside the model"
        )
        return "training.cache", f"{problem}; leave it out, or training.compile: false"
    return None
