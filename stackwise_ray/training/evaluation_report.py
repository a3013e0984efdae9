"""outputs/evaluation_report.md: one trial's results as a page to read. It computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.quantities import format_bytes, format_count, format_seconds
from stackwise_ray.flags import apply_flags
from stackwise_ray.models.component import COMPONENTS

_QUALITY = (
    ("validation/loss", "Validation loss, fixed windows (nats a token)"),
    ("validation/loss_without_finish", "The same before the finish"),
    ("validation/masked_loss", "Loss of masked tokens, mean over five shares of masks (nats a token)"),
    ("validation/masked_loss_without_finish", "The same before the finish"),
    ("validation/oracle_loss", "Loss of the source itself on the same windows"),
    ("validation/answer_loss", "Loss of the answers on the same windows (nats an answer)"),
    ("validation/answer_accuracy", "Share of the answers that are right"),
    ("validation/perplexity", "Validation perplexity, fixed windows (token)"),
    ("validation/perplexity_token", "Validation perplexity, whole split (token)"),
    ("validation/perplexity_word", "Validation perplexity, whole split (word)"),
    ("validation/perplexity_byte", "Validation perplexity, whole split (byte)"),
    ("test/perplexity_token", "Test perplexity, whole split (token)"),
    ("test/perplexity_word", "Test perplexity, whole split (word)"),
    ("test/perplexity_byte", "Test perplexity, whole split (byte)"),
    ("train/loss", "Train loss over the last evaluation interval"),
)
_COST = (
    ("tokens/total", "Training tokens", format_count),
    ("flops/total", "Training FLOPs", format_count),
    ("flops/evaluation", "Evaluation FLOPs", format_count),
    ("model/params", "Parameters", format_count),
    ("model/params_non_embedding", "Parameters without embeddings", format_count),
    ("memory/peak_bytes", "Peak memory", format_bytes),
    ("memory/saved_activation_bytes", "Saved activations", format_bytes),
    ("throughput/tokens_per_s", "Training tokens a second", format_count),
    ("time/train_s", "Time in training steps", format_seconds),
    ("time/evaluation_s", "Time in evaluation", format_seconds),
    ("time/compile_s", "Time in compiling", format_seconds),
    ("time/total_s", "Time in all", format_seconds),
)


def evaluation_report(
    trial: TrialConfig,
    trial_id: str,
    metrics: Mapping[str, float],
    stages: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
) -> str:
    """The page as Markdown; a metric that was not measured has no row."""
    model = trial.model
    quality = [f"| {title} | {metrics[name]:.4f} |" for name, title in _QUALITY if name in metrics]
    cost = [f"| {title} | {write(metrics[name])} |" for name, title, write in _COST if name in metrics]
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


def _initial(trial: TrialConfig, metrics: Mapping[str, float]) -> list[str]:
    """Where the weights came from and who paid for them, as a paragraph; nothing where they were drawn."""
    source = trial.training.init_from or trial.model.pretrained
    if source is None:
        return []
    known = "init/flops" in metrics
    cost = f"{format_count(metrics['init/flops'])} training FLOPs, " if known else "unknown, "
    paid = "paid for by this budget" if metrics["init/charged"] else "**not charged to this budget**"
    return [f"Training began from the weights at {source}; their cost: {cost}{paid}. It is not in the table.", ""]
