"""Scores a model that is already trained: a run's final weights on its own data, or any transformers model.

The command `evaluate` comes here. The losses and perplexities are those of `training.evaluation`, as a run computes
them at its end.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.reading.yaml import load_yaml
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import from_plain
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import PreparedData, TrainingOrder, fixed_validation_windows, prepare
from stackwise_ray.flags import apply_flags
from stackwise_ray.models.growth.insertion import make_growable
from stackwise_ray.models.saved import load_saved, saved_config, saved_folder
from stackwise_ray.training.assembly import Assembly, choose_device, deterministic
from stackwise_ray.training.evaluation import Evaluator
from stackwise_ray.training.measure import Meter
from stackwise_ray.training.objectives import OBJECTIVES
from stackwise_ray.training.parallel.collectives import Alone
from stackwise_ray.training.parallel.parallelism import SingleWorker
from stackwise_ray.training.stages import stage_plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH_TOKENS = 4096
"""Tokens of a forward pass: the fastest on one CPU thread for the smallest models, and small for large ones."""
_CARRIER = "model=decoder/llama_family/tiny"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What was measured.

    Attributes:
        model: Where the weights came from.
        metrics: By path, as in a run's `outputs/metrics.json`.
        data_fingerprint: Of the data scored.
    """

    model: str
    metrics: dict[str, float]
    data_fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"model": self.model, "data_fingerprint": self.data_fingerprint, "metrics": self.metrics}


def score_run(directory: Path) -> Scores:
    """The final weights of a finished run on the run's own data.

    Raises:
        ConfigError: The folder is no run, has no weights, or its data is not the data found here.
    """
    config = directory / "config.yaml"
    if not config.is_file():
        raise ConfigError(f"= {directory} is no trial's folder: there is no config.yaml in it", path="--run")
    if not (directory / "model" / "config.json").is_file():
        raise ConfigError(
            f"= {directory} has no model/: the trial has not finished, or its weights were not kept "
            "(tracking.keep_models)",
            path="--run",
        )
    trial = apply_flags(from_plain(load_yaml(config), source=str(config)))
    data = prepare(trial.data)
    then = json.loads((directory / "metadata" / "data.json").read_text())["fingerprint"]
    if then != data.fingerprint:
        raise ConfigError(
            f"= {directory} was trained on data {then[:12]}, and {data.fingerprint[:12]} is what is found here "
            "(another Python has another standard library); evaluate it where it was trained, or use --model with "
            "data=…",
            path="--run",
        )
    return _score(trial, data, str(directory / "model"))


def score_model(source: str, words: Sequence[str]) -> Scores:
    """Any transformers model with a tokenizer, on the data that the words name, in its own tokens.

    Args:
        source: A path or hub name; safetensors weights only.
        words: ``data=…`` and ``data.…=…``, as for `train`.

    Raises:
        ConfigError: No data is named, a word is about something else, or the model cannot be read.
    """
    if "/" in source and Path(source).parent.is_dir() and not Path(source).exists():
        raise ConfigError(f"= {source}: there is no such folder", path="--model")
    others = [word for word in words if not word.startswith(("data=", "data."))]
    if others:
        raise ConfigError(f"'{others[0]}' does not belong here: only data=… and data.…=… do", source="command line")
    if not words:
        raise ConfigError("needs data to score on: add data=python_stdlib, data=wikitext2, …", path="--model")
    given = any(word.startswith("data.tokenizer=") for word in words)
    # The preset only makes the trial whole: of the model's part nothing but the role is used.
    trial = load_trial([_CARRIER, *words, *([] if given else [f"data.tokenizer={source}"])])
    trial = replace(trial, model=replace(trial.model, role=_role(source)))
    return _score(trial, prepare(trial.data), source)


def _score(trial: TrialConfig, data: PreparedData, source: str) -> Scores:
    device = choose_device("auto")
    model = load_model(source, trial.model.role).to(device)  # type: ignore[arg-type]
    size = model.get_input_embeddings().weight.shape[0]
    if data.vocab_size > size:
        raise ConfigError(
            f"= {trial.data.tokenizer} has {data.vocab_size} tokens and the model at {source} {size}; give its own "
            "tokenizer",
            path="data.tokenizer",
        )
    if trial.training.entry != "full":
        make_growable(model)  # it is entered in the middle
    seq_len = trial.data.seq_len
    assembly = Assembly(
        trial=trial,
        data=data,
        model=model,
        plan=stage_plan(trial),
        order=TrainingOrder(data.splits["train"].n_tokens, seq_len, 0),
        validation_windows=fixed_validation_windows(
            data.splits["validation"].n_tokens, seq_len, trial.data.validation_tokens
        ),
        device=device,
        rank=0,
        world_size=1,
        parallelism=SingleWorker(),
    )
    stage = assembly.plan.stages[-1]
    objective = OBJECTIVES.get(stage.objective)(trial, stage, data, assembly.order)
    alone = Alone()
    evaluator = Evaluator(
        assembly=assembly,
        collectives=alone,
        meter=Meter(model, device, alone, count=False),
        batch_windows=max(1, _BATCH_TOKENS // seq_len),
    )
    with deterministic(device):
        metrics = dict(_finish(evaluator.validate(objective)))
        if trial.fills_masks:
            metrics.update(_finish(evaluator.masked_ratios()))
        if objective.left_to_right:
            for split in ("validation", "test"):
                metrics.update(_finish(evaluator.whole_split(split)))
    return Scores(model=source, metrics=metrics, data_fingerprint=data.fingerprint)


def _finish(evaluation: Generator[None, None, dict[str, float]]) -> dict[str, float]:
    while True:
        try:
            next(evaluation)
        except StopIteration as end:
            result: dict[str, float] = end.value
            return result


def load_model(source: str, role: str) -> PreTrainedModel:
    """A model with its weights from a path or the hub, as `models.saved` loads it.

    Raises:
        ConfigError: Nothing readable is there, or weights are missing.
    """
    return load_saved(saved_folder(source, path="--model"), role, path="--model")


def _role(source: str) -> Any:
    config = saved_config(saved_folder(source, path="--model"), path="--model")
    names = " ".join(config.architectures or ())
    if "MaskedLM" not in names and not getattr(config, "is_causal", True):
        raise ConfigError(
            f"= {source} is a decoder that sees both sides (is_causal: false): a next-token loss of it would mean "
            "nothing; score the run that it comes from (--run)",
            path="--model",
        )
    return "encoder" if "MaskedLM" in names else "decoder"
