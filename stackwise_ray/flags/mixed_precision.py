"""Flag: autocast to a 16-bit type, with master weights and the resolvent in float32."""

from __future__ import annotations

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.flags import FLAGS, Flag, Measure


def _edits(trial: TrialConfig) -> dict[str, str]:
    """bf16, except where the trial already asks for fp16 (GPUs older than Ampere, which have no bf16 units)."""
    return {"training.precision": "fp16" if trial.training.precision == "fp16" else "bf16"}


FLAGS.register("mixed_precision")(
    Flag(
        name="mixed_precision",
        summary="Runs matrix products in bf16 (or fp16 with a loss scaler) and keeps the master weights in float32.",
        claim="2x speed.",
        measured_by=(Measure(metric="throughput/tokens_per_s"),),
        needs=lambda trial: None,
        edits=_edits,
    )
)
