"""Flag: compile the forward and backward pass of a training step."""

from __future__ import annotations

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.compile_rules import not_one_graph
from stackwise_ray.flags import FLAGS, Flag


def _needs(trial: TrialConfig) -> str | None:
    found = not_one_graph(trial)
    return None if found is None else "does not go with {} {}".format(*found)


FLAGS.register("compile")(
    Flag(
        name="compile",
        summary="Makes one graph of a stage's pass and fuses its operations (torch.compile), outside the clock.",
        claim="More tokens a second once it is compiled; losses the same to rounding.",
        needs=_needs,
        edits=lambda trial: {"training.compile": True},
    )
)
