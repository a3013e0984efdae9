"""Flag: compile the forward and backward pass of a training step."""

from __future__ import annotations

from stackwise_ray.flags import FLAGS, Flag, Measure

FLAGS.register("compile")(
    Flag(
        name="compile",
        summary="Makes one graph of a stage's pass and fuses its operations (torch.compile), outside the clock.",
        claim="More tokens per second once it is compiled; losses the same to rounding.",
        measured_by=(
            Measure(metric="throughput/tokens_per_s"),
            Measure(metric="validation/loss", form="difference"),
        ),
        needs=lambda trial: None,
        edits=lambda trial: {"training.compile": True},
    )
)
