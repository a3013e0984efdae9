"""The rules that span several fields of a trial, in one place.

`check_trial` is called wherever a configuration enters: by `load_trial`, by the design generators for every arm, and
by a searcher for every point. What needs a tokenizer's vocabulary or counted FLOPs is checked by the planner.
"""

from __future__ import annotations

from collections.abc import Callable

from stackwise_ray.config.trial import (
    ADAPTED,
    AttentionMixer,
    ExpertsChannelMixer,
    Schedule,
    TrainingConfig,
    TrialConfig,
)
from stackwise_ray.config.trial.append_rules import OF_APPEND, cached_prefix, time_as_input
from stackwise_ray.config.trial.compile_rules import one_graph
from stackwise_ray.config.trial.component_rules import components_fit
from stackwise_ray.config.trial.growth_rules import GROWTH_RULES
from stackwise_ray.config.trial.validation import Locate, Origin
from stackwise_ray.core import registries
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.quantities import near_divisors

Found = tuple[str, str] | None
"""Path of the field to change and what is wrong with it, or nothing."""

ROLES = {"bert": "encoder", "modernbert": "encoder", "gpt2": "decoder", "llama": "decoder"}
"""Families that come in one role alone; the others take both. The families say the same (a contract test compares):
it stands here too so that a file is refused without importing them."""

POSITION_TABLES = ("gpt2", "bert")
"""Families with learned positions, which end where the table ends."""


def check_trial(trial: TrialConfig, *, locate: Locate | None = None) -> None:
    """Refuse a trial whose fields contradict each other.

    Args:
        locate: From a dotted path of the trial to where its value was written.

    Raises:
        ConfigError: With both values and what to choose instead.
    """
    find = locate or (lambda path: Origin(None, path))
    for rule in RULES:
        found = rule(trial)
        if found is not None:
            path, problem = found
            origin = find(path)
            raise ConfigError(problem, path=origin.path, source=origin.source)


# --------------------------------------------------------------------------------------------------- known names

_REGISTRIES = {
    "family": registries.FAMILIES,
    "corpus": registries.CORPORA,
    "optimizer": registries.OPTIMIZERS,
    "flag": registries.FLAGS,
    "regime": registries.REGIMES,
}


def _unknown(kind: str, name: str, path: str) -> Found:
    names = _REGISTRIES[kind].names()
    if name in names:
        return None
    return path, f"= {name} is an unknown {kind}; {did_you_mean(name, names)}"


def _names(trial: TrialConfig) -> Found:
    for number, flag in enumerate(trial.flags):
        if flag in trial.flags[:number]:
            return "flags", f"= {list(trial.flags)} lists '{flag}' twice; once is enough"
    return (
        _unknown("family", trial.model.family, "model.family")
        or _unknown("corpus", trial.data.corpus, "data.corpus")
        or _unknown("regime", trial.training.regime, "training.regime")
        or _unknown("optimizer", trial.optimizer.kind, "optimizer.kind")
        or next((found for flag in trial.flags if (found := _unknown("flag", flag, "flags"))), None)
    )


# --------------------------------------------------------------------------------------------------------- rules


def _heads(trial: TrialConfig) -> Found:
    model = trial.model
    counts = {"model.n_heads": model.n_heads}
    if isinstance(model.mixer, AttentionMixer):
        counts["model.mixer.n_heads"] = model.mixer.n_heads
    for path, heads in counts.items():
        if heads is not None and model.d_model % heads:
            choices = near_divisors(model.d_model, heads)
            return path, f"= {heads} does not divide d_model = {model.d_model}; choose {choices}"
    if model.n_kv_heads is not None and model.n_heads is not None and model.n_heads % model.n_kv_heads:
        choices = near_divisors(model.n_heads, model.n_kv_heads)
        return (
            "model.n_kv_heads",
            f"= {model.n_kv_heads} does not divide n_heads = {model.n_heads}; choose {choices}",
        )
    return None


def _mixer(trial: TrialConfig) -> Found:
    model = trial.model
    if model.family == "bk":
        if model.mixer is None:
            return "model.mixer", "is required in the bk family; give a kind, such as resolvent_apply"
        if model.n_heads is not None:
            return "model.n_heads", f"= {model.n_heads} has no effect in the bk family; set model.mixer.n_heads"
        return None
    if model.mixer is not None:
        kind = model.mixer.kind
        return "model.mixer", f"of kind {kind} goes with the family bk, not {model.family}; leave it out"
    if model.n_heads is None and model.family in ROLES:
        return "model.n_heads", f"is required in the {model.family} family"
    return None


def _channel_mixer(trial: TrialConfig) -> Found:
    model, channel_mixer = trial.model, trial.model.channel_mixer
    if channel_mixer is not None and model.family != "bk":
        kind = channel_mixer.kind
        return "model.channel_mixer", f"of kind {kind} goes with the family bk, not {model.family}; leave it out"
    if isinstance(channel_mixer, ExpertsChannelMixer) and channel_mixer.top_k > channel_mixer.n_experts:
        problem = f"= {channel_mixer.top_k} is more than n_experts = {channel_mixer.n_experts}"
        return "model.channel_mixer.top_k", f"{problem}; choose 1 to {channel_mixer.n_experts}"
    return None


def _role(trial: TrialConfig) -> Found:
    role = ROLES.get(trial.model.family)
    if role is not None and trial.model.role != role:
        article = "an" if role == "encoder" else "a"
        return "model.role", f"= {trial.model.role}, but {trial.model.family} is {article} {role}; write {role}"
    return None


def _positions(trial: TrialConfig) -> Found:
    rows, seq_len = trial.model.max_positions, trial.data.seq_len
    if trial.model.family in POSITION_TABLES and rows is not None and seq_len > rows:
        problem = f"= {seq_len} is beyond the {rows} learned positions of this {trial.model.family}"
        return "data.seq_len", f"{problem}; choose at most {rows}, or raise model.max_positions"
    return None


def _generated(trial: TrialConfig) -> Found:
    data = trial.data
    for corpus, source in (("markov", data.markov), ("associative_recall", data.associative_recall)):
        path = f"data.{corpus}"
        if data.corpus == corpus and source is None:
            return path, f"is required with corpus: {corpus}; give the source, or {{}} for its defaults"
        if data.corpus != corpus and source is not None:
            return path, f"goes with corpus: {corpus}, not {data.corpus}; write {path}: null"
    return None


def _paths(trial: TrialConfig) -> Found:
    if trial.data.corpus == "text_files" and trial.data.path is None:
        return "data.path", "is required with corpus: text_files; give a file, a folder or a glob"
    return None


def _final_evaluation(trial: TrialConfig) -> Found:
    if trial.data.final_evaluation == "full" and trial.fills_masks:
        problem = "= full scores every token given those before it, and this model sees both sides"
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
        problem = f"= {parts} micro-batches share {sequences} sequences a step; choose at most {sequences}"
        return "training.accumulation", f"{problem}, or raise training.batch_tokens"
    return None


_GROWTH = ("blocks_per_stack", "stage_split", "trunk", "lora", "embeddings", "finish")
"""Fields of `training` that only a regime which grows the model reads."""

_HYBRID = ("hybrid", "init_from", "charge_init", "pretraining_share")
"""Those of the regime that goes on from a checkpoint."""

_RIGHT_TO_LEFT = ("consistency", "entry")
"""Fields of `training` that need suffixes of stacks which trained on fewer and fewer masks."""


def _regime(trial: TrialConfig) -> Found:
    training = trial.training
    default = TrainingConfig(budget=training.budget)
    reads: dict[str, tuple[str, ...]] = {
        "classical": (),
        "classical_random_ratio": ("noise", "decoder_objective", "blocks_per_stack", "time"),
        "depth_time": ("noise", "decoder_objective", *_GROWTH, *_RIGHT_TO_LEFT),
        "append": ("noise", "decoder_objective", *_GROWTH, *OF_APPEND),
        "hybrid": ("noise", *_GROWTH, *_HYBRID),
    }
    for name in ("noise", "decoder_objective", *_GROWTH, *_RIGHT_TO_LEFT, *OF_APPEND, *_HYBRID):
        value = getattr(training, name)
        if value != getattr(default, name) and name not in reads.get(training.regime, (name,)):
            fitting = " or ".join(regime for regime, fields in reads.items() if name in fields)
            shown = "" if name in ("noise", "lora") else f"= {list(value) if isinstance(value, tuple) else value} "
            problem = f"{shown}has no effect in the regime {training.regime}; it goes with {fitting}"
            return f"training.{name}", problem
    if training.regime == "classical_random_ratio" and training.noise.kind != "point":
        problem = f"= {training.noise.kind} has no effect in classical_random_ratio, which draws the stacks' own shares"
        return "training.noise.kind", f"{problem}; leave it out"
    if training.embeddings == "untied_all" and training.trunk == "trainable":
        problem = "= untied_all has no effect over a trainable trunk, where everything trains and a tie stays"
        return "training.embeddings", f"{problem}; leave it out"
    keeps_head = training.trunk not in ("frozen", *ADAPTED) or training.regime == "append"
    if training.embeddings == "tied_frozen" and keeps_head:
        why = "append" if training.regime == "append" else f"a {training.trunk} trunk"
        problem = f"= tied_frozen freezes the head after the first stage, and {why} needs it to train"
        return "training.embeddings", f"{problem}; choose untied_frozen_head or untied_all"
    if training.finish >= 1:
        return (
            "training.finish",
            f"= {training.finish:g} leaves nothing to the stages before it; choose less",
        )
    return None


def _hybrid(trial: TrialConfig) -> Found:
    model, training = trial.model, trial.training
    if training.regime != "hybrid":
        return None
    own = training.pretraining_share
    if training.init_from is None and own is None:
        fixes = "give a finished run's folder or a saved model; or training.pretraining_share, such as 0.5, to train it"
        return "training.init_from", f"is required in the regime hybrid: {fixes} first, out of the same budget"
    if training.init_from is not None and own is not None:
        problem = f"= {own:g} has no effect beside training.init_from = {training.init_from}, which is trained already"
        return "training.pretraining_share", f"{problem}; leave one of them out"
    if training.init_from is None and not training.charge_init:
        problem = "= False has no effect without training.init_from: what is trained within the budget is part of it"
        return "training.charge_init", f"{problem}; leave it out"
    if model.pretrained is not None and own is None:
        return "model.pretrained", f"= {model.pretrained} has no effect beside training.init_from; leave it out"
    if training.noise.kind != "point":
        problem = f"= {training.noise.kind} has no effect in the regime hybrid, whose bands are its own"
        return "training.noise.kind", f"{problem}; leave it out"
    if training.trunk == "random_frozen":
        return "training.trunk", "= random_frozen, but the stacks of hybrid are a checkpoint's; choose depth_time"
    if training.hybrid == "finetune":
        default = TrainingConfig(budget=training.budget)
        for name in _GROWTH:
            if getattr(training, name) != getattr(default, name):
                return (
                    f"training.{name}",
                    "has no effect in training.hybrid = finetune, which has one stage; leave it out",
                )
        if training.noise.schedule != "linear":
            problem = "has no effect in training.hybrid = finetune, which goes from r_last to r_first"
            return "training.noise.schedule", f"{problem}; leave it out"
    return None


def _schedule(trial: TrialConfig) -> Found:
    schedule = trial.training.schedule
    if schedule.kind == "wsd" and schedule.warmup + schedule.decay > 1:
        problem = f"= {schedule.decay} and warmup = {schedule.warmup} together exceed the whole run"
        return "training.schedule.decay", f"{problem}; choose a decay of at most {round(1 - schedule.warmup, 6)}"
    for name, kinds in (("decay", ("wsd",)), ("final", ("cosine", "linear", "wsd"))):
        value = getattr(schedule, name)
        if schedule.kind not in kinds and value != getattr(Schedule(), name):
            problem = f"= {value:g} has no effect in a {schedule.kind} schedule; it goes with {' or '.join(kinds)}"
            return f"training.schedule.{name}", problem
    return None


def _memory(trial: TrialConfig) -> Found:
    training = trial.training
    if training.memory_bytes is not None and training.accumulation != 1:
        problem = f"= {training.accumulation} has no effect beside training.memory_bytes, which chooses it"
        return "training.accumulation", f"{problem}; leave one of them out"
    return None


def _parallel(trial: TrialConfig) -> Found:
    training = trial.training
    if training.parallel == "sharded" and trial.optimizer.kind == "adamw_8bit":
        problem = "= adamw_8bit scales 256 neighbours of a matrix together, and shards would part them by the number of"
        return "optimizer.kind", f"{problem} workers; choose adamw, or training.parallel: replicated"
    if training.parallel == "sharded" and training.consistency > 0:
        problem = (
            f"= {training.consistency:g} embeds tokens beside the forward pass, when the shards have been given back"
        )
        return "training.consistency", f"{problem}; choose 0, or training.parallel: replicated"
    if training.parallel == "sharded" and training.spectral_norm:
        problem = "= true needs whole matrices after each update, and every worker has a shard of them"
        return "training.spectral_norm", f"{problem}; write false, or training.parallel: replicated"
    if training.parallel == "sharded" and training.cache:
        problem = "= true begins a forward pass inside the model, and shards are gathered where a whole one begins"
        return "training.cache", f"{problem}; leave it out, or write training.parallel: replicated"
    if training.parallel == "sharded" and training.precision == "fp16":
        problem = "= fp16 scales the loss by what every worker sees overflow in its own shard, and they would differ"
        return "training.precision", f"{problem}; choose bf16, or training.parallel: replicated"
    return None


RULES: tuple[Callable[[TrialConfig], Found], ...] = (
    _names,
    _role,
    _mixer,
    _channel_mixer,
    _heads,
    _positions,
    _generated,
    _paths,
    _final_evaluation,
    whole_batches,
    _schedule,
    _regime,
    _hybrid,
    *GROWTH_RULES,
    time_as_input,
    cached_prefix,
    _parallel,
    _memory,
    one_graph,
    components_fit,
)
