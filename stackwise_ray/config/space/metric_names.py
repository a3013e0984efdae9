"""The metric paths that a trial reports, so that a metric which nothing reports is refused before anything runs.

One name per concept, from YAML through MLflow to the figure. An evaluation task reports under its own name
(``cola/matthews``); its prefix is known from the file name in `stackwise_ray/data/tasks`, without importing it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stackwise_ray.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from stackwise_ray.config.trial import TrialConfig

REPORTED = {
    "train/loss": "nats a predicted token, mean over the step",
    "validation/loss": "nats a predicted token on the fixed windows, at the end of the budget",
    "validation/masked_loss": "nats a masked token, mean of the five below (encoders, on the fixed windows)",
    "validation/masked_loss_15": "with 15 % of the positions masked, and one at least in each window",
    "validation/masked_loss_30": "with 30 %",
    "validation/masked_loss_50": "with 50 %",
    "validation/masked_loss_75": "with 75 %",
    "validation/masked_loss_90": "with 90 %",
    "validation/oracle_loss": "of the source itself on the same windows (markov, associative_recall)",
    "validation/answer_loss": "nats an answer on the same windows (associative_recall)",
    "validation/answer_accuracy": "share of answers that are right, on the same windows (associative_recall)",
    "validation/perplexity": "exp(validation/loss)",
    "validation/perplexity_token": "whole split, a token",
    "validation/perplexity_word": "whole split, a word",
    "validation/perplexity_byte": "whole split, a byte",
    "test/loss": "nats a predicted token, whole split",
    "test/perplexity_token": "whole split, a token",
    "test/perplexity_word": "whole split, a word",
    "test/perplexity_byte": "whole split, a byte",
    "flops/forward": "one training step, mean",
    "flops/backward": "one training step, mean",
    "flops/optimizer": "one training step, mean",
    "flops/step": "one training step, mean",
    "flops/total": "cumulative training",
    "flops/cache": "filling caches of the frozen prefix, a part of flops/total",
    "flops/evaluation": "outside the budget",
    "flops/recomputed": "outside the budget",
    "tokens/total": "cumulative training",
    "memory/peak_bytes": "of the device, or of live tensors on a CPU",
    "memory/saved_activation_bytes": "kept for the backward pass",
    "memory/process_peak_bytes": "resident, of the worker's process",
    "init/charged": "1 where the budget paid for the weights that training began from, 0 where it did not",
    "init/flops": "training of the weights that training began from",
    "init/tokens": "the same in tokens",
    "init/steps": "the same in steps",
    "init/wall_seconds": "the same in seconds",
    "time/train_s": "seconds in the loop, evaluation and checkpoints excluded",
    "time/compile_s": "seconds of making graphs (training.compile), in no other but time/total_s",
    "time/total_s": "seconds of the worker's function",
    "throughput/tokens_per_s": "training tokens a second",
    "model/params": "trained and frozen, embeddings included",
    "model/params_non_embedding": "without embeddings",
    "model/bytes": "of the saved weights",
}
"""Metric path to its unit or meaning."""

_MASKED = [name for name in REPORTED if name.startswith("validation/masked_loss")]
_WITHOUT_FINISH = "_without_finish"
REPORTED |= {f"{name}{_WITHOUT_FINISH}": "before training.finish began" for name in ("validation/loss", *_MASKED)}

_SHORT = {
    "loss": "validation/loss",
    "val_loss": "validation/loss",
    "eval_loss": "validation/loss",
    "perplexity": "validation/perplexity",
}
"""What people call a metric elsewhere."""

_OF_NEXT_TOKENS = ("test/", "validation/perplexity", "validation/oracle_loss", "validation/answer_")

_TASKS = Path(__file__).resolve().parents[2] / "data" / "tasks"


def task_names() -> tuple[str, ...]:
    """Evaluation tasks, by the file names of their package."""
    return tuple(sorted(file.stem for file in _TASKS.glob("*.py") if not file.stem.startswith("_")))


def on_whole_splits(metric: str) -> bool:
    """Whether replicates alone measure it: tuning and search trials score the fixed windows."""
    return metric.startswith(("test/", "validation/perplexity_"))


def why_unreported(metric: str, trial: TrialConfig) -> str | None:
    """Why a replicate of this trial does not measure a metric; None where it does, or where its data decide."""
    if metric.endswith(_WITHOUT_FINISH) and trial.training.finish == 0:
        return "has no training.finish, which this is of before"
    if metric.startswith("validation/masked_loss"):
        return None if trial.fills_masks else "predicts next tokens, and has no masks; take validation/loss"
    if trial.fills_masks and metric.startswith(_OF_NEXT_TOKENS):
        return "predicts masked tokens, and this is of next ones; take validation/masked_loss"
    if on_whole_splits(metric) and trial.data.final_evaluation == "fixed":
        return "has data.final_evaluation = fixed, which leaves whole splits out; write full"
    return None


def require_metric(metric: str, *, place: str, source: str | None) -> None:
    """Refuse a metric that no trial reports.

    Args:
        place: Dotted path at which it is named.

    Raises:
        ConfigError: With the nearest path.
    """
    if metric in REPORTED or metric.partition("/")[0] in task_names():
        return
    near = f"did you mean '{_SHORT[metric]}'?" if metric in _SHORT else did_you_mean(metric, REPORTED)
    problem = f"= {metric} is reported by nothing; {near}"
    raise ConfigError(problem, path=place, source=source)
