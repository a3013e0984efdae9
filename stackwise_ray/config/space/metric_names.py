"""Which metrics a search space may name, so that one which nothing reports is refused before anything runs.

What there is to know about a metric is its record in `core.metric_catalogue`; here is what a trial must have for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise_ray.config.trial.flag_answers import components_selected
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.invocation import as_started
from stackwise_ray.core.metric_catalogue import find_metric, metric_called, metric_paths
from stackwise_ray.core.registries import COMPONENTS, CORPORA, TASKS

if TYPE_CHECKING:
    from stackwise_ray.config.trial import TrialConfig


def on_whole_splits(metric: str) -> bool:
    """Whether replicates alone measure it: tuning and search trials score the fixed windows."""
    found = find_metric(metric)
    return found is not None and "whole splits" in found.needs


def why_unreported(metric: str, trial: TrialConfig) -> str | None:
    """Why a replicate of this trial does not measure a metric; None where it does, or where its data decide."""
    found = find_metric(metric)
    needs = found.needs if found is not None else ()
    owner = metric.partition("/")[0]
    if owner in COMPONENTS and owner not in components_selected(trial):
        return f"lacks model.components.{owner}, which reports this metric"
    if "finish" in needs and not getattr(trial.training, "finish", 0):  # an option of some regimes
        return "has no training.finish, and this metric is measured right before the finish begins"
    offered = CORPORA.get(trial.data.corpus).offers()
    if "answers" in needs and "answers" not in offered:
        return f"has data.corpus = {trial.data.corpus}, a text without questions; compare validation/loss"
    if "known law" in needs and "known law" not in offered:
        return f"has data.corpus = {trial.data.corpus}, a text with no known entropy; compare validation/loss"
    if "masked tokens" in needs and not trial.fills_masks:
        return "predicts next tokens and masks none; compare validation/loss"
    if "next tokens" in needs and trial.fills_masks:
        return "predicts masked tokens, and this metric is about next tokens; compare validation/masked_loss"
    if "whole splits" in needs and trial.data.final_evaluation == "fixed":
        return "has data.final_evaluation = fixed, which does not score whole splits; write full"
    return None


def require_metric(metric: str, *, place: str, source: str | None) -> None:
    """Refuse a metric that no trial reports: one that nobody knows, or one of a task, which no sweep runs.

    Args:
        place: Dotted path at which it is named.

    Raises:
        ConfigError: With the nearest path, or the command that measures it.
    """
    task = metric.partition("/")[0]
    if task in TASKS:
        raise ConfigError(
            f"= {metric} belongs to the task {task}, and a sweep does not run tasks. Name a metric that trials report, "
            f"such as validation/loss. Score trained models on the task with: {as_started('evaluate')} "
            f"--run DIR --tasks {task}",
            path=place,
            source=source,
        )
    if find_metric(metric) is not None:
        return
    known = metric_called(metric)
    near = f"did you mean '{known.path}'?" if known is not None else did_you_mean(metric, _of_trials())
    raise ConfigError(f"= {metric} is not a metric of any trial; {near}", path=place, source=source)


def _of_trials() -> list[str]:
    return [path for path in metric_paths() if path.partition("/")[0] not in TASKS]
