"""The final value of every metric, from the loop's counters: what `outputs/metrics.json` and the journal get."""

from __future__ import annotations

from torch import nn

from stackwise_ray.metrics.memory import process_peak_bytes
from stackwise_ray.models.counting import count_parameters
from stackwise_ray.training.measure import Meter
from stackwise_ray.training.progress import TrainingProgress


def final_metrics(progress: TrainingProgress, meter: Meter, model: nn.Module, share: float) -> dict[str, float]:
    """All metrics that were measured; one that was not is absent.

    `flops/forward`, `/backward`, `/optimizer`, `/recomputed` and `/step` are means over the steps; `flops/total`,
    `flops/evaluation` and `tokens/total` are sums over the whole run. Times are sums over all attempts, in seconds.

    Args:
        share: Of the budget that was used.
    """
    parameters = count_parameters(model)  # type: ignore[arg-type]
    flops, seconds, steps = progress.flops, progress.seconds, max(progress.step, 1)
    saved = [row["saved_activation_bytes"] for row in progress.stages if row["saved_activation_bytes"] is not None]
    metrics: dict[str, float | None] = {
        **progress.latest,
        "progress": share,
        "flops/forward": flops.forward / steps,
        "flops/backward": flops.backward / steps,
        "flops/optimizer": flops.optimizer / steps,
        "flops/recomputed": flops.recomputed / steps,
        "flops/step": flops.training / steps,
        "flops/total": flops.training,
        "flops/evaluation": progress.flops_evaluation,
        "tokens/total": progress.tokens,
        "steps/total": progress.step,
        "memory/peak_bytes": meter.device_peak(),
        "memory/process_peak_bytes": process_peak_bytes(),
        "memory/saved_activation_bytes": max(saved, default=None),
        "throughput/tokens_per_s": progress.plain_tokens / progress.plain_seconds if progress.plain_seconds else None,
        "model/params": parameters.total,
        "model/params_non_embedding": parameters.non_embedding,
        "model/bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "time/build_s": seconds.build,
        "time/train_s": seconds.train,
        "time/evaluation_s": seconds.evaluation,
        "time/checkpoint_s": seconds.checkpoint,
        "time/total_s": seconds.total,
    }
    if seconds.compile:
        metrics["time/compile_s"] = seconds.compile
    if progress.flops_cache:
        metrics["flops/cache"] = progress.flops_cache
    if progress.skipped_steps:
        metrics["train/skipped_steps"] = progress.skipped_steps
    return {name: value for name, value in metrics.items() if value is not None}
