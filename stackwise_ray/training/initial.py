"""Initial weights that are not random: where they come from, what they cost, what is left of the budget.

`model.pretrained` names a saved model. `training.init_from`, of the regime hybrid, names a finished run or a saved
model and must have the trial's own tokenizer; what the run spent is charged to the trial's budget. What a trial starts
from is part of its identity, by content. No torch here: a sweep's driver asks.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from stackwise_ray.config.identity import digest, trial_id
from stackwise_ray.config.trial import TrialConfig, replace_training
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.models.saved import saved_fingerprint, saved_folder

_RECORDED = {"flops": "flops/total", "tokens": "tokens/total", "steps": "steps/total", "wall_seconds": "time/train_s"}
"""Where a run's folder says what it spent, by the unit of a budget."""
CHARGED = "init/charged"
"""Metric of a trial that began from saved weights: 1 where its budget paid for them too, else 0."""
_PATH = "training.init_from"


def identify(trial: TrialConfig, data_fingerprint: str) -> str:
    """The identity of a trial on this data, from these initial weights.

    Raises:
        ConfigError: The weights that it starts from are not there.
    """
    return trial_id(trial, data_fingerprint, initial_fingerprint(trial))


def initial_model(trial: TrialConfig) -> Path | None:
    """The folder of the saved model that the trial starts from; None where its weights are drawn.

    Raises:
        ConfigError: It is not there, or the run that it names has not finished or kept no weights.
    """
    if trial.training.init_from is None:
        source = trial.model.pretrained
        return None if source is None else saved_folder(source, path="model.pretrained")
    folder = Path(trial.training.init_from).expanduser()
    if (folder / "config.yaml").is_file():
        if not _metrics_file(folder).is_file():
            raise ConfigError(f"= {folder} is a run that has not finished; finish it with the same command", path=_PATH)
        if not (folder / "model" / "config.json").is_file():
            raise ConfigError(
                f"= {folder} is a run whose weights were not kept; repeat it with tracking.keep_models: all",
                path=_PATH,
            )
        return folder / "model"
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"= {folder} contains neither a finished run (config.yaml, model/) nor a saved model (config.json)",
            path=_PATH,
        )
    return folder


def initial_fingerprint(trial: TrialConfig) -> str | None:
    """The content of what the trial starts from, with its cost where that is charged; None: weights are drawn."""
    folder = initial_model(trial)
    if folder is None:
        return None
    found = saved_fingerprint(folder)
    if trial.training.init_from is None or not trial.training.charge_init:
        return found
    return digest(f"{found}\n{json.dumps(_cost(trial), sort_keys=True)}")


def initial_metrics(trial: TrialConfig) -> dict[str, float]:
    """`init/charged`, and `init/<unit>`: what the initial weights had cost, where that is known."""
    if initial_model(trial) is None:
        return {}
    cost = {} if trial.training.init_from is None else _spent(Path(trial.training.init_from).expanduser()) or {}
    charge = trial.training.init_from is not None and trial.training.charge_init
    return {CHARGED: float(charge), **{f"init/{unit}": spent for unit, spent in cost.items()}}


def charged(trial: TrialConfig) -> TrialConfig:
    """The trial with what its initial weights leave of its budget; nothing more is charged to that.

    Raises:
        ConfigError: Nothing is left, or the cost of the weights is unknown.
    """
    training = trial.training
    if training.init_from is None or not training.charge_init:
        return trial
    unit, amount, spent = training.budget.unit, training.budget.amount, _cost(trial)[training.budget.unit]
    if amount <= spent:
        raise ConfigError(
            f"= {amount:g}, but training.init_from = {training.init_from} has cost {spent:g} and nothing is left; "
            f"give more than {spent:g}, or set training.charge_init: false",
            path=f"training.budget.{unit}",
        )
    left: dict[str, Any] = {unit: int(amount - spent) if unit == "steps" else amount - spent}
    return replace(
        trial, training=replace_training(training, budget=replace(training.budget, **left), charge_init=False)
    )


def check_tokenizer(trial: TrialConfig, tokenizer: Path) -> None:
    """Refuses to go on from weights whose tokens are others than the trial's.

    Args:
        tokenizer: Folder of the trial's own.

    Raises:
        ConfigError: `training.init_from` or `model.pretrained` has another tokenizer, or none.
    """
    folder = initial_model(trial)
    if folder is None:
        return
    path = "model.pretrained" if trial.training.init_from is None else _PATH
    named = str(trial.model.pretrained if trial.training.init_from is None else folder)
    if _same_source(trial.data.tokenizer, named):
        return
    mine, theirs = _tokenizer(tokenizer / "tokenizer.json"), _saved_tokenizer(folder, named, path)
    if mine == theirs:
        return
    sizes = f"{len(theirs['vocabulary'])} tokens, the trial's {len(mine['vocabulary'])}"
    odd = sorted(dict(theirs["vocabulary"].items() ^ mine["vocabulary"].items()))
    differ = f"for example {odd[0]!r} is not the same in both" if odd else "text is cut in another way"
    raise ConfigError(
        f"= {named} has another tokenizer than data.tokenizer = {trial.data.tokenizer} on {trial.data.corpus} "
        f"({sizes}; {differ}); use the tokenizer of the checkpoint: data.tokenizer={named}",
        path=path,
    )


def _same_source(tokenizer: str, named: str) -> bool:
    """Whether the trial takes its tokenizer from where the weights are."""
    return tokenizer == named or (
        Path(tokenizer).expanduser().is_dir()
        and Path(tokenizer).expanduser().resolve() == Path(named).expanduser().resolve()
    )


def _saved_tokenizer(folder: Path, named: str, path: str) -> dict[str, Any]:
    """The tokenizer beside saved weights, or that of the same name on the hub.

    Raises:
        ConfigError: There is none.
    """
    if (folder / "tokenizer.json").is_file():
        return _tokenizer(folder / "tokenizer.json")
    from stackwise_ray.data.pretrained_tokenizers import PretrainedSource

    try:
        return _parts(PretrainedSource(named).load().backend_tokenizer)
    except ConfigError:
        raise ConfigError(
            f"= {named} has no tokenizer.json beside its weights, so the meaning of its token ids is unknown; save "
            "its tokenizer there (tokenizer.save_pretrained)",
            path=path,
        ) from None


def _tokenizer(file: Path) -> dict[str, Any]:
    from tokenizers import Tokenizer

    return _parts(Tokenizer.from_file(str(file)))


def _parts(tokenizer: Any) -> dict[str, Any]:
    """What decides which ids a text becomes."""
    parts = json.loads(tokenizer.to_str())
    return {
        "vocabulary": tokenizer.get_vocab(),
        **{name: parts[name] for name in ("model", "normalizer", "pre_tokenizer")},
    }


def _cost(trial: TrialConfig) -> dict[str, float]:
    """What `training.init_from` cost, by unit.

    Raises:
        ConfigError: Nobody knows, or there is no such checkpoint.
    """
    initial_model(trial)
    folder = Path(trial.training.init_from or "").expanduser()
    found = _spent(folder)
    if found is None:
        run = folder.parent if _metrics_file(folder.parent).is_file() else None
        hint = f"; give the run's folder, {run}, or" if run is not None else ";"
        raise ConfigError(
            f"= {folder} has no recorded cost to charge to the budget{hint} set training.charge_init: false",
            path=_PATH,
        )
    return found


def _spent(folder: Path) -> dict[str, float] | None:
    """What a finished run and all that it came from cost, by unit; None where that is not recorded."""
    if not _metrics_file(folder).is_file():
        return None
    metrics = json.loads(_metrics_file(folder).read_text())
    inherited = CHARGED in metrics
    if inherited and not all(f"init/{unit}" in metrics for unit in _RECORDED):
        return None
    return {unit: metrics[name] + (metrics[f"init/{unit}"] if inherited else 0) for unit, name in _RECORDED.items()}


def _metrics_file(folder: Path) -> Path:
    return folder / "outputs" / "metrics.json"
