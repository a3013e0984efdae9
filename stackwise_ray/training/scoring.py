"""Scores a model that is already trained: a run's final weights on its own data, or any transformers model.

The command `evaluate` comes here, and `tasks` for the model and its evaluator. The losses and perplexities are those of
`training.evaluation`, as a run computes them at its end.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stackwise_ray.config.loading import load_trial
from stackwise_ray.config.reading.yaml import load_yaml
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import from_plain
from stackwise_ray.core.callbacks import ProgressCallback
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data import PreparedData, TrainingOrder, fixed_validation_windows, prepare
from stackwise_ray.flags import apply_flags
from stackwise_ray.models.growth.insertion import make_growable
from stackwise_ray.models.saved import load_saved, saved_config, saved_fingerprint, saved_folder
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
class TrainedModel:
    """Saved weights, and what decides how they are scored.

    Attributes:
        source: Where the weights came from, as it was asked for.
        folder: Where they are.
        trial: Its context, role, precision and data; of the model's part nothing but the role is used.
        tokenizer: What `data.tokenizer` is to name so that a text comes in this model's own tokens.
        option: The option of the command that named it, for messages.
    """

    source: str
    folder: Path
    trial: TrialConfig
    tokenizer: str
    option: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of config and weights."""
        return saved_fingerprint(self.folder)

    @functools.cached_property
    def device(self) -> torch.device:
        """A GPU where there is one."""
        return choose_device("auto")

    @functools.cached_property
    def model(self) -> PreTrainedModel:
        """The model with its weights on its device, loaded when first asked for."""
        model = load_saved(self.folder, self.trial.model.role, path=self.option)
        model.to(self.device)  # type: ignore[arg-type]  # its stub wraps the method without its own argument
        if self.trial.training.entry != "full":
            make_growable(model)  # it is entered in the middle
        return model

    def evaluator(self, data: PreparedData) -> Evaluator:
        """What scores windows of `data`, which are in this model's tokens.

        Raises:
            ConfigError: The data have tokens that the model does not know, or windows longer than its positions.
        """
        seq_len, size = data.config.seq_len, next(self.model.get_input_embeddings().parameters()).shape[0]
        if data.vocab_size > size:
            raise ConfigError(
                f"= {data.config.tokenizer} has {data.vocab_size} tokens, but the model at {self.source} has {size}; "
                "give its own tokenizer",
                path="data.tokenizer",
            )
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None and positions < seq_len:
            raise ConfigError(
                f"= {seq_len}: the model at {self.source} has {positions} positions; choose {positions} or less",
                path="data.seq_len",
            )
        trial = replace(self.trial, data=data.config)
        alone = Alone()
        return Evaluator(
            assembly=Assembly(
                trial=trial,
                data=data,
                model=self.model,
                plan=stage_plan(trial),
                order=TrainingOrder(data.splits["train"].n_tokens, seq_len, 0),
                validation_windows=fixed_validation_windows(
                    data.splits["validation"].n_tokens, seq_len, data.config.validation_tokens
                ),
                device=self.device,
                rank=0,
                world_size=1,
                parallelism=SingleWorker(),
            ),
            collectives=alone,
            meter=Meter(self.model, self.device, alone, count=False),
            batch_windows=max(1, _BATCH_TOKENS // seq_len),
        )


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What was measured on a run's own data, or on those named for a model.

    Attributes:
        model: Where the weights came from.
        weights: Their fingerprint.
        metrics: By path, as in a run's `outputs/metrics.json`.
        data_fingerprint: Of the data scored.
    """

    model: str
    weights: str
    metrics: dict[str, float]
    data_fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "model": self.model,
            "weights": self.weights,
            "data_fingerprint": self.data_fingerprint,
            "metrics": self.metrics,
        }


def open_run(directory: Path) -> TrainedModel:
    """The final weights of a finished run; nothing heavy is read.

    Raises:
        ConfigError: The folder is no run, or has no weights.
    """
    config = directory / "config.yaml"
    if not config.is_file():
        raise ConfigError(f"= {directory} is not the folder of a trial: it has no config.yaml", path="--run")
    folder = directory / "model"
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"= {directory} has no model/: the trial has not finished, or its weights were not kept "
            "(tracking.keep_models)",
            path="--run",
        )
    trial = apply_flags(from_plain(load_yaml(config), source=str(config)))
    tokenizer = trial.data.tokenizer if trial.data.tokenizer == "bytes" else str(folder)
    return TrainedModel(source=str(folder), folder=folder, trial=trial, tokenizer=tokenizer, option="--run")


def open_model(source: str, words: Sequence[str]) -> TrainedModel:
    """Any transformers model with a tokenizer.

    Args:
        source: A path or hub name; safetensors weights only.
        words: ``data=…`` and ``data.…=…``, as for `train`.

    Raises:
        ConfigError: A word is about something else, or the model cannot be read.
    """
    if "/" in source and Path(source).parent.is_dir() and not Path(source).exists():
        raise ConfigError(f"= {source}: there is no such folder", path="--model")
    others = [word for word in words if not word.startswith(("data=", "data."))]
    if others:
        raise ConfigError(f"'{others[0]}' cannot be given here; only data=… and data.…=… can", source="command line")
    given = any(word.startswith("data.tokenizer=") for word in words)
    # The preset only makes the trial whole: of the model's part nothing but the role is used.
    trial = load_trial([_CARRIER, *words, *([] if given else [f"data.tokenizer={source}"])])
    folder = saved_folder(source, path="--model")
    return TrainedModel(
        source=source,
        folder=folder,
        trial=replace(trial, model=replace(trial.model, role=_role(source, folder))),
        tokenizer=trial.data.tokenizer,
        option="--model",
    )


def score_run(directory: Path, *, progress: ProgressCallback | None = None) -> Scores:
    """The final weights of a finished run on the run's own data.

    Raises:
        ConfigError: The folder is no run, has no weights, or its data is not the data found here.
    """
    trained = open_run(directory)
    data = prepare(trained.trial.data, progress=progress)
    then = json.loads((directory / "metadata" / "data.json").read_text())["fingerprint"]
    if then != data.fingerprint:
        raise ConfigError(
            f"= {directory} was trained on the data {then[:12]}, but the data here are {data.fingerprint[:12]} "
            "(another Python has another standard library); evaluate it where it was trained, or use --model with "
            "data=…",
            path="--run",
        )
    return _score(trained, data, progress)


def score_model(source: str, words: Sequence[str], *, progress: ProgressCallback | None = None) -> Scores:
    """Any transformers model with a tokenizer, on the data that the words name, in its own tokens.

    Args:
        source: As for `open_model`.
        words: As for `open_model`; they name data.

    Raises:
        ConfigError: No data is named, a word is about something else, or the model cannot be read.
    """
    if not words:
        raise ConfigError(
            "needs data to score on; add data=python_stdlib, data=wikitext2, …, or --tasks wikitext2", path="--model"
        )
    trained = open_model(source, words)
    return _score(trained, prepare(trained.trial.data, progress=progress), progress)


def _score(trained: TrainedModel, data: PreparedData, progress: ProgressCallback | None) -> Scores:
    evaluator = trained.evaluator(data)
    assembly = evaluator.assembly
    stage = assembly.plan.stages[-1]
    objective = OBJECTIVES.get(stage.objective)(assembly.trial, stage, data, assembly.order)
    with deterministic(trained.device):
        metrics = dict(to_end(evaluator.validate(objective), "scoring the validation windows", progress))
        if trained.trial.fills_masks:
            metrics.update(to_end(evaluator.masked_ratios(), "scoring five shares of masks", progress))
        if objective.left_to_right:
            for split in data.held_out:
                metrics.update(score_split(evaluator, split, progress))
    return Scores(model=trained.source, weights=trained.fingerprint, metrics=metrics, data_fingerprint=data.fingerprint)


def score_split(evaluator: Evaluator, split: str, progress: ProgressCallback | None) -> dict[str, float]:
    """`Evaluator.whole_split` to its end, with progress."""
    counts = evaluator.assembly.data.splits[split]  # type: ignore[index]
    stride = max(1, evaluator.assembly.trial.data.seq_len // 2)
    batches = -(-counts.n_tokens // (stride * evaluator.batch_windows))
    with deterministic(evaluator.assembly.device):
        return to_end(evaluator.whole_split(split), f"scoring the {split} split", progress, batches)


def to_end(
    evaluation: Generator[None, None, dict[str, float]],
    what: str,
    progress: ProgressCallback | None,
    total: int | None = None,
) -> dict[str, float]:
    """The result of an evaluation.

    Args:
        what: What is being done, for `progress`.
        total: About how many batches it has; None: not known.
    """
    done = 0
    while True:
        if progress is not None:
            progress(what, done if total is None else min(done, total), total)
        try:
            next(evaluation)
        except StopIteration as end:
            result: dict[str, float] = end.value
            return result
        done += 1


def load_model(source: str, role: str) -> PreTrainedModel:
    """A model with its weights from a path or the hub, as `models.saved` loads it.

    Raises:
        ConfigError: Nothing readable is there, or weights are missing.
    """
    return load_saved(saved_folder(source, path="--model"), role, path="--model")


def _role(source: str, folder: Path) -> Any:
    config = saved_config(folder, path="--model")
    names = " ".join(config.architectures or ())
    if "MaskedLM" not in names and not getattr(config, "is_causal", True):
        raise ConfigError(
            f"= {source} is a decoder that sees both sides (is_causal: false), so it has no next-token loss; score "
            "the run that it comes from (--run)",
            path="--model",
        )
    return "encoder" if "MaskedLM" in names else "decoder"
