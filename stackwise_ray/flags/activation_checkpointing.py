"""Flag: recompute each block in the backward pass and keep only its input."""

from __future__ import annotations

from stackwise_ray.flags import FLAGS, Flag, Measure

FLAGS.register("activation_checkpointing")(
    Flag(
        name="activation_checkpointing",
        summary="Keeps each block's input alone and recomputes the rest in the backward pass (Chen 2016, 1604.06174).",
        claim="Saved activations fall to about one hidden state a block, for one more forward pass; numbers unchanged.",
        measured_by=(
            Measure(metric="memory/saved_activation_bytes"),
            Measure(metric="flops/recomputed", against="flops/forward"),
            Measure(metric="validation/loss", form="difference"),
        ),
        needs=lambda trial: None,
        edits=lambda trial: {"training.activation_checkpointing": True},
    )
)
