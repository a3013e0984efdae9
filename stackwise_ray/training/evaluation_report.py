"""outputs/evaluation_report.md: one trial's results as a page to read. It computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.metric import Metric
from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.quantities import format_count
from stackwise_ray.core.trial_metrics import COST_METRICS, QUALITY_METRICS
from stackwise_ray.flags import apply_flags
from stackwise_ray.models.component import COMPONENTS


def evaluation_report(
    trial: TrialConfig,
    trial_id: str,
    metrics: Mapping[str, float],
    stages: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
) -> str:
    """The page as Markdown; a metric that was not measured has no row."""
    model = trial.model
    quality, cost = (
        [f"| {_title(one)} | {format_metric(one.path, metrics[one.path])} |" for one in group if one.path in metrics]
        for group in ((one for one in QUALITY_METRICS if one.form != "count"), COST_METRICS)  # counts are in `context`
    )
    rows = [
        f"| {stage['name']} | {len(stage['active_blocks'])} | {format_count(stage['trainable_params'])} "
        f"| {format_count(stage['tokens'])} | {format_count(stage['flops_counted'])} |"
        for stage in stages
    ]
    context = [
        f"{split.capitalize()} split in full: {metrics[f'{split}/tokens']:,.0f} tokens scored once each, "
        f"{metrics[f'{split}/words']:,.0f} words, {metrics[f'{split}/bytes']:,.0f} bytes; every prediction but those "
        f"of the first window sees at least {metrics[f'{split}/min_context']:.0f} tokens."
        for split in ("validation", "test")
        if f"{split}/tokens" in metrics
    ]
    lines = [
        f"# Trial {trial_id}",
        "",
        f"{model.family} ({model.role}), {model.n_layers} blocks of width {model.d_model}, on {trial.data.corpus} "
        f"with {trial.data.tokenizer} tokens, windows of {trial.data.seq_len}, seed {trial.seed}, "
        f"regime {trial.training.regime}.",
        "",
        "| Quality | |",
        "|---|---|",
        *quality,
        "",
        *[line for paragraph in context for line in (paragraph, "")],
        *_components(trial, metrics),
        "| Cost | |",
        "|---|---|",
        *cost,
        "",
        "| Stage | Active blocks | Trained parameters | Tokens | Training FLOPs (forward + backward) |",
        "|---|---|---|---|---|",
        *rows,
        "",
        *_initial(trial, metrics),
        f"stackwise_ray {environment.get('stackwise_ray')}, torch {environment.get('torch')}, "
        f"{environment.get('device')}, {environment.get('threads')} threads, "
        f"data {environment.get('data_fingerprint', '')[:12]}.",
    ]
    return "\n".join(lines) + "\n"


def _components(trial: TrialConfig, metrics: Mapping[str, float]) -> list[str]:
    """What each component of the trial has to show, under a heading of its own."""
    lines = []
    for name in apply_flags(trial).model.components:
        lines += [f"## {name}", "", *COMPONENTS.get(name).report(metrics), ""]
    return lines


def _title(metric: Metric) -> str:
    """What a row is called: with its unit, where the number does not bring its own."""
    title = metric.axis if metric.form == "number" or metric.unit.endswith("per second") else metric.name
    return title[0].upper() + title[1:]


def _initial(trial: TrialConfig, metrics: Mapping[str, float]) -> list[str]:
    """Where the weights came from and who paid for them, as a paragraph; nothing where they were drawn."""
    source = trial.training.init_from or trial.model.pretrained
    if source is None:
        return []
    known = "init/flops" in metrics
    cost = f"{format_count(metrics['init/flops'])} training FLOPs, " if known else "unknown, "
    paid = "paid for by this budget" if metrics["init/charged"] else "**not charged to this budget**"
    return [f"Training began from the weights at {source}; their cost: {cost}{paid}. It is not in the table.", ""]
