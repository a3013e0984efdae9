"""The rules that every trial must meet, and the one place that asks those of its entries.

`check_trial` is called wherever a configuration enters: by `load_trial`, by the design generators for every arm, and
by a searcher for every point. What concerns one family, corpus, optimizer or regime is with that entry. What needs
a tokenizer's vocabulary or counted FLOPs is checked by the planner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stackwise_ray.config.trial import DATA, TRAINING, Schedule, TrialConfig
from stackwise_ray.config.trial.component_rules import components_fit
from stackwise_ray.config.trial.registered import Alternatives
from stackwise_ray.config.trial.validation import Locate, Origin
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.plugins import at_fault
from stackwise_ray.core.registries import CORPORA, FAMILIES, FLAGS, OPTIMIZERS, REGIMES
from stackwise_ray.core.registry import Registry

Found = tuple[str, str] | None
"""Path of the field to change and what is wrong with it, or nothing."""


def check_trial(trial: TrialConfig, *, locate: Locate | None = None) -> None:
    """Refuse a trial whose fields contradict each other.

    Args:
        locate: From a dotted path of the trial to where its value was written.

    Raises:
        ConfigError: With both values and what to choose instead.
    """
    found = first_broken(trial)
    if found is not None:
        path, problem = found
        origin = (locate or (lambda place: Origin(None, place)))(path)
        raise ConfigError(problem, path=origin.path, source=origin.source)


def first_broken(trial: TrialConfig) -> Found:
    """What the first broken rule says: of the rules for every trial, then of those of its entries."""
    found = unknown_names(trial)
    if found is not None:
        return found
    found = next((found for rule in RULES if (found := rule(trial)) is not None), None)
    return found or _entrys(OPTIMIZERS, trial.optimizer.kind, trial) or _entrys(REGIMES, trial.training.regime, trial)


def _entrys(registry: Registry[Any], name: str, trial: TrialConfig) -> Found:
    """What the first broken rule of one entry says."""
    rules = registry.get(name).rules
    with at_fault(registry, name, "one of its `rules`"):
        return next((found for rule in rules if (found := rule(trial)) is not None), None)


# --------------------------------------------------------------------------------------------------- known names


def _unknown(registry: Registry[object], name: str, path: str) -> Found:
    if name in registry:
        return None
    return path, f"= {name} is an unknown {registry.kind}; {did_you_mean(name, registry.names())}"


def _options(alternatives: Alternatives, options: object, path: str) -> Found:
    """A trial that was put together in code has the options class of the entry that it names."""
    name = getattr(options, alternatives.field)
    wanted = alternatives.of(name)
    if wanted is None:
        return f"{path}.{alternatives.field}", alternatives.unknown(name)
    if type(options) is wanted:
        return None
    problem = f"= {name} has the options class {wanted.__name__}, but these options are {type(options).__name__}"
    return f"{path}.{alternatives.field}", f"{problem}; build them with {path}_config({alternatives.field}='{name}', …)"


def unknown_names(trial: TrialConfig) -> Found:
    """The first name in a trial that no entry has, or that it lists twice; nothing about how its values fit."""
    for number, flag in enumerate(trial.flags):
        if flag in trial.flags[:number]:
            return "flags", f"= {list(trial.flags)} contains '{flag}' twice; write it once"
    return (
        _unknown(FAMILIES, trial.model.family, "model.family")
        or _options(DATA, trial.data, "data")
        or _options(TRAINING, trial.training, "training")
        or _unknown(OPTIMIZERS, trial.optimizer.kind, "optimizer.kind")
        or next((found for flag in trial.flags if (found := _unknown(FLAGS, flag, "flags"))), None)
    )


# --------------------------------------------------------------------------------------------------------- rules


def _said(error: ConfigError, path: str) -> Found:
    return error.path or path, error.problem


def _family(trial: TrialConfig) -> Found:
    try:
        family = FAMILIES.get(trial.model.family)
        with at_fault(FAMILIES, trial.model.family, "its `check`"):
            family.check(trial.model, seq_len=trial.data.seq_len)
    except ConfigError as error:
        return _said(error, "model")
    return None


def _corpus(trial: TrialConfig) -> Found:
    try:
        corpus = CORPORA.get(trial.data.corpus)
        with at_fault(CORPORA, trial.data.corpus, "its `check`"):
            corpus.check(trial.data)
    except ConfigError as error:
        return _said(error, "data")
    return None


def _final_evaluation(trial: TrialConfig) -> Found:
    if trial.data.final_evaluation == "full" and trial.fills_masks:
        problem = "= full needs a model that reads from left to right, and this one sees both sides"
        return "data.final_evaluation", f"{problem}; write fixed, or leave it out"
    return None


def whole_batches(trial: TrialConfig) -> Found:
    """A step takes whole sequences, at least one for each micro-batch; `training.budget` asks for this rule too."""
    tokens, seq_len = trial.training.batch_tokens, trial.data.seq_len
    if tokens % seq_len:
        below, above = tokens // seq_len * seq_len, (tokens // seq_len + 1) * seq_len
        choices = f"{below} or {above}" if below else str(above)
        return "training.batch_tokens", f"= {tokens} is not a multiple of data.seq_len = {seq_len}; choose {choices}"
    sequences, parts = tokens // seq_len, trial.training.accumulation
    if parts > sequences:
        problem = f"= {parts} micro-batches, but a step has only {sequences} sequences; choose at most {sequences}"
        return "training.accumulation", f"{problem}, or raise training.batch_tokens"
    return None


def _schedule(trial: TrialConfig) -> Found:
    schedule = trial.training.schedule
    if schedule.kind == "wsd" and schedule.warmup + schedule.decay > 1:
        problem = f"= {schedule.decay} and warmup = {schedule.warmup} add up to more than the whole run"
        return "training.schedule.decay", f"{problem}; choose a decay of at most {round(1 - schedule.warmup, 6)}"
    for name, kinds in (("decay", ("wsd",)), ("final", ("cosine", "linear", "wsd"))):
        value = getattr(schedule, name)
        if schedule.kind not in kinds and value != getattr(Schedule(), name):
            problem = (
                f"= {value:g} has no effect in a {schedule.kind} schedule; leave it out, or choose {' or '.join(kinds)}"
            )
            return f"training.schedule.{name}", problem
    return None


def _stabilisers(trial: TrialConfig) -> Found:
    training, model = trial.training, trial.model
    for name, value in (("spectral_norm", training.spectral_norm), ("residual_gain", training.residual_gain)):
        if value and FAMILIES.get(model.family).blocks_end_in_norm:
            problem = (
                f"= {value} has no effect in the family {model.family}: its blocks end in a norm, which undoes "
                "the scale"
            )
            return f"training.{name}", f"{problem}; leave it out"
    if training.residual_gain is not None and model.pretrained is not None:
        problem = f"= {training.residual_gain} would change what the weights at {model.pretrained} compute"
        return "training.residual_gain", f"{problem}; leave it out"
    return None


def _memory(trial: TrialConfig) -> Found:
    training = trial.training
    if training.memory_bytes is not None and training.accumulation != 1:
        problem = f"= {training.accumulation} has no effect: training.memory_bytes chooses the accumulation"
        return "training.accumulation", f"{problem}; leave one of them out"
    return None


def _sharded(trial: TrialConfig) -> Found:
    training = trial.training
    if training.parallel == "sharded" and training.spectral_norm:
        problem = (
            "= true does not go with training.parallel: sharded: it needs whole matrices, and a worker has only a part"
        )
        return "training.spectral_norm", f"{problem}; write false, or training.parallel: replicated"
    if training.parallel == "sharded" and training.precision == "fp16":
        problem = (
            "= fp16 does not go with training.parallel: sharded: each worker would scale the loss by its own overflows"
        )
        return "training.precision", f"{problem}; choose bf16, or training.parallel: replicated"
    return None


def _compiled(trial: TrialConfig) -> Found:
    """With `compile: true` the forward pass is one graph, the same at every step."""
    training, end = trial.training, "or training.compile: false"
    if training.compile and training.parallel == "sharded":
        problem = "= sharded does not go with training.compile: true: a compiled pass cannot gather and free weights"
        return "training.parallel", f"{problem}; choose replicated, {end}"
    if training.compile and training.memory_bytes is not None:
        problem = (
            f"= {training.memory_bytes} does not go with training.compile: true: the memory of a compiled step "
            "is not known in advance"
        )
        return "training.memory_bytes", f"{problem}; set training.accumulation, {end}"
    return None


def _tf32(trial: TrialConfig) -> Found:
    if trial.training.tf32 and trial.training.device == "cpu":
        problem = "= true has no effect with training.device: cpu, because TF32 is a format of GPUs; write false"
        return "training.tf32", f"{problem}, or training.device: cuda"
    return None


RULES: tuple[Callable[[TrialConfig], Found], ...] = (
    _family,
    _corpus,
    _final_evaluation,
    whole_batches,
    _schedule,
    _stabilisers,
    _sharded,
    _memory,
    _compiled,
    _tf32,
    components_fit,
)
"""Of every trial, in the order in which they are asked."""
