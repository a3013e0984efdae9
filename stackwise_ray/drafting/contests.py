"""What a claim is about: the arms that a word stands for, beside a model to start from.

A word is the name of a model preset, a training preset or a flag; `deeper`, `wider` or `lr`; or ``path=value`` as on
every command line, with several values between commas.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stackwise_ray.config.loading import load_trial, parse_word, split_values
from stackwise_ray.config.reading.presets import list_presets
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.paths import GROUPS, require_trial_path
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.registries import FLAGS
from stackwise_ray.core.untuned_rates import RATE

DEEPER, WIDER, RATES = "deeper", "wider", "lr"
OTHER_WORDS = {
    DEEPER: "twice the layers, with as many parameters",
    WIDER: "half the layers, with as many parameters",
    RATES: "other learning rates: a third and three times",
}
PLACE = "--against"


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Arms that differ in one thing.

    Attributes:
        arms: Name of each to what it changes; the first one is the baseline and changes no value of the base.
        claim: The question that they answer; it is used if the user writes none.
        tuned: Whether each arm needs a learning rate of its own.
        role: decoder or encoder: what the arms predict.
        also: Metrics that are compared beside the loss.
    """

    arms: Mapping[str, Mapping[str, Any]]
    claim: str
    tuned: bool
    role: str
    also: tuple[str, ...] = ()

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with."""
        return next(iter(self.arms))

    def words(self, arm: str) -> list[str]:
        """What an arm changes, as words of a command line without blanks."""
        values = {
            path: value if isinstance(value, str) else json.dumps(value) for path, value in self.arms[arm].items()
        }
        return [f"{path}={value.replace(' ', '')}" for path, value in values.items()]

    @property
    def name(self) -> str:
        """The sweep's name."""
        first, *others = self.arms
        return f"{'_'.join(others)}_vs_{first}" if len(others) == 1 else f"{first}_and_{len(others)}_others"


def choices(model: str) -> dict[str, str]:
    """The words that can be offered beside a model, with what they mean; the first one is the default."""
    trial = load_trial([f"model={model}"])
    size = model.rpartition("/")[2]
    role = model.partition("/")[0]
    models = [name for name in list_presets("model") if name != model and name.startswith(f"{role}/")]
    models.sort(key=lambda name: name.rpartition("/")[2] != size)
    found = {name: "another model" for name in models if name.rpartition("/")[2] == size}
    found |= OTHER_WORDS
    found[RATES] += f" {trial.training.lr:g}"
    found |= {name: "another way to train" for name in list_presets("training") if name != "classical"}
    return found | _flags()


def every_word() -> dict[str, str]:
    """All words that `contest` knows, with what they mean where the name does not say it."""
    presets = dict.fromkeys((*list_presets("model"), *list_presets("training")), "")
    return {**presets, **_flags(), **OTHER_WORDS}


def _flags() -> dict[str, str]:
    """The flags with what they do."""
    return {name: flag.summary for name, flag in FLAGS.items()}


def contest(model: str, against: str) -> Contest:
    """The arms that `against` stands for.

    Args:
        model: A model preset.

    Raises:
        ConfigError: There is no such preset, word or path.
    """
    trial = load_trial([f"model={model}"])
    path, equals, text = against.partition("=")
    if equals:
        return _of_values(trial, model, path.strip(), text.strip())
    if against in (DEEPER, WIDER):
        return _of_shapes(trial, deeper=against == DEEPER)
    if against == RATES:
        rate = trial.training.lr
        return _of_values(trial, model, RATE, f"{rate / 3:.2g},{rate * 3:.2g}")
    if against in list_presets("model"):
        return _of_models(trial, model, against)
    if against in list_presets("training"):
        return _of_regimes(trial, model, against)
    if against in FLAGS:
        claim = f"What does the flag {against} change in {_short(model)}, at equal training FLOPs?"
        arms = {"without": {}, against: {"flags": [against]}}
        also = tuple(measure.metric for measure in FLAGS.get(against).measured_by if measure.against is None)
        return Contest(arms=arms, claim=claim, tuned=False, role=trial.model.role, also=also)
    near = did_you_mean(against, every_word())
    raise ConfigError(f"= {against} is no model, no way to train, no flag and no path=value; {near}", path=PLACE)


def _of_models(trial: TrialConfig, model: str, other: str) -> Contest:
    if other == model:
        raise ConfigError(f"= {other} is the model to start from; name another one", path=PLACE)
    role = load_trial([f"model={other}"]).model.role
    if role != trial.model.role:
        problem = f"= {other} is an {role} and {model} a {trial.model.role}: they predict different things"
        raise ConfigError(f"{problem}; name another {trial.model.role}", path=PLACE)
    first, second = _told_apart(model, other)
    claim = f"At equal training FLOPs, does {second} reach a lower loss than {first}?"
    return Contest(arms={first: {}, second: {"model": other}}, claim=claim, tuned=True, role=role)


def _of_regimes(trial: TrialConfig, model: str, preset: str) -> Contest:
    regime = load_trial([f"model={model}"]).training.regime
    if preset == regime:
        raise ConfigError(f"= {preset} is how the model is trained to start with; name another way", path=PLACE)
    changes: dict[str, Any] = {"training": preset}
    if preset == "hybrid":  # from a checkpoint, which this file makes itself
        changes["training.pretraining_share"] = 0.5
    claim = f"At equal training FLOPs, does {preset} train {_short(model)} to a lower loss than {regime}?"
    return Contest(arms={regime: {}, preset: changes}, claim=claim, tuned=True, role=trial.model.role)


def _of_values(trial: TrialConfig, model: str, path: str, text: str) -> Contest:
    values = split_values(text)
    if path in GROUPS:
        if len(values) != 1:
            raise ConfigError(f"= {path}={text} names {len(values)} presets; name one", path=PLACE)
        if path in ("model", "training"):
            return contest(model, values[0])
        claim = f"At equal training FLOPs, does {path}={values[0]} reach a lower loss?"
        arms: dict[str, dict[str, Any]] = {"base": {}, values[0]: {path: values[0]}}
        return Contest(arms=arms, claim=claim, tuned=False, role=trial.model.role)
    require_trial_path(path, place=PLACE)
    if not all(values):
        raise ConfigError(f"= {path}={text} has no value; write {path}=VALUE", path=PLACE)
    parsed = {f"{path.rpartition('.')[2]}_{_name(value)}": parse_word(path, value) for value in values}
    claim = f"At equal training FLOPs, which {path} gives {_short(model)} the lowest loss?"
    arms = {"base": {}} | {arm: {path: value} for arm, value in parsed.items()}
    if path == RATE:
        for rate in parsed.values():
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate):
                raise ConfigError(f"= {path}={text} contains {rate}; it must be numbers, like 1e-3,3e-3", path=PLACE)
        arms = _rates(trial.training.lr, parsed, text)
        first, *others = (f"{change[RATE]:g}" for change in arms.values())
        claim = f"{claim[:-1]}: {', '.join([f'{first} (the baseline)', *others[:-1]])} or {others[-1]}?"
    return Contest(arms=arms, claim=claim, tuned=False, role=trial.model.role)


def _rates(own: float, others: Mapping[str, float], text: str) -> dict[str, dict[str, Any]]:
    """Arms of learning rates: the model's own one first, under its value, whether or not it is among the others."""
    same = next((arm for arm, rate in others.items() if rate == own), f"lr_{own:g}")
    arms = {same: {RATE: own}} | {arm: {RATE: rate} for arm, rate in others.items() if rate != own}
    if len(arms) < 2:
        problem = f"= {RATE}={text} is the learning rate that the model has to start with; name another value"
        raise ConfigError(problem, path=PLACE)
    return arms


def _of_shapes(trial: TrialConfig, *, deeper: bool) -> Contest:
    """The model, and one of another depth with as many parameters beside the embeddings."""
    from dataclasses import replace

    from stackwise_ray.models.sizes import non_embedding_params  # torch

    model = trial.model
    layers = model.n_layers * 2 if deeper else model.n_layers // 2
    if layers < 1:
        raise ConfigError(f"= {WIDER}: the model has one layer alone; name another comparison", path=PLACE)
    wanted = non_embedding_params(model)
    counts = [non_embedding_params(replace(model, n_layers=layers, d_ff=width)) for width in (64, 128)]
    width = round(64 + 64 * (wanted - counts[0]) / (counts[1] - counts[0]))
    if width < 1:
        raise ConfigError(
            f"= {DEEPER}: {layers} layers of width {model.d_model} have more parameters than the model, whatever their "
            "channel mixer; start from a wider model, or name another comparison",
            path=PLACE,
        )
    arms = ("shallow", "deep") if deeper else ("deep", "wide")
    claim = f"At equal training FLOPs and parameters, is a {arms[1]} model better than a {arms[0]} one?"
    changes = {"model.n_layers": layers, "model.d_ff": width}
    return Contest(arms={arms[0]: {}, arms[1]: changes}, claim=claim, tuned=True, role=model.role)


def _told_apart(one: str, other: str) -> tuple[str, str]:
    """Names of two presets without what they share.

    >>> _told_apart("decoder/gpt2_family/tiny", "decoder/llama_family/tiny")
    ('gpt2', 'llama')
    """
    parts = [name.replace("_family", "").split("/") for name in (one, other)]
    longest = max(map(len, parts))
    padded = [[*part, *[""] * (longest - len(part))] for part in parts]
    kept = [place for place in range(longest) if padded[0][place] != padded[1][place]]
    first, second = ("_".join(part[place] for place in kept if part[place]) for part in padded)
    return first or "base", second or "other"


def _short(preset: str) -> str:
    return " ".join(preset.replace("_family", "").split("/")[1:]) or preset


def _name(value: str) -> str:
    """A value as a part of an arm's name."""
    return "".join(character for character in value if character.isalnum() or character in "._+-") or "value"
