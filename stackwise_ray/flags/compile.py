"""Flag: compile the forward and backward pass of a training step."""

from __future__ import annotations

from dataclasses import replace

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.rules import first_broken
from stackwise_ray.flags import FLAGS, Flag, Measure


def _needs(trial: TrialConfig) -> str | None:
    found = first_broken(replace(trial, training=replace(trial.training, compile=True)))
    return None if found is None else "does not go with {} {}".format(*found)


FLAGS.register("compile")(
    Flag(
        name="compile",
        summary="Makes one graph of a stage's pass and fuses its operations (torch.compile), outside the clock.",
        claim="More tokens per second once it is compiled; losses the same to rounding.",
        measured_by=(
            Measure(metric="throughput/tokens_per_s"),
            Measure(metric="validation/loss", form="difference"),
        ),
        needs=_needs,
        edits=lambda trial: {"training.compile": True},
    )
)
