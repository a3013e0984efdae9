"""Flag: every layer learns to predict, and tokens leave the model where the prediction is confident enough."""

from __future__ import annotations

from stackwise_ray.flags import FLAGS, Flag, Measure

FLAGS.register("early_exit")(
    Flag(
        name="early_exit",
        summary="Trains an exit after every layer with layer dropout (LayerSkip, 2404.16710), and lets tokens leave at "
        "the first exit whose confidence reaches a threshold calibrated on held-out text (CALM, 2207.07061).",
        claim="Fewer FLOPs per evaluated token at a loss within the declared tolerance of the full depth's.",
        measured_by=(
            Measure(metric="early_exit/flops_per_token", against="early_exit/flops_per_token_full"),
            Measure(metric="early_exit/loss", against="validation/loss", form="difference"),
        ),
        needs=lambda trial: None,
        edits=lambda trial: {"model.components.early_exit": {}},
    )
)
