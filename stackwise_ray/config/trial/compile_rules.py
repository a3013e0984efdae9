"""What does not go with `training.compile`: whatever keeps a forward pass from being one graph, or hides in it.

`checks.RULES` holds the rule; the flag `compile` asks the same.
"""

from __future__ import annotations

from stackwise_ray.config.trial import TrialConfig


def one_graph(trial: TrialConfig) -> tuple[str, str] | None:
    """With `compile: true` the forward pass is one graph, which begins at the tokens and is the same at every step."""
    return not_one_graph(trial) if trial.training.compile else None


def not_one_graph(trial: TrialConfig) -> tuple[str, str] | None:
    """What of the trial could not be compiled, whether or not it asks for that."""
    training, end = trial.training, "or training.compile: false"
    if training.parallel == "sharded":
        problem = "= sharded gathers weights and gives them back inside the pass, which a compiled one cannot"
        return "training.parallel", f"{problem}; choose replicated, {end}"
    if training.trunk == "qlora":
        problem = "= qlora reads its matrices by operations of bitsandbytes, which were never seen in a compiled graph"
        return "training.trunk", f"{problem}; choose lora, {end}"
    if training.cache:
        problem = "= true begins a pass above the frozen prefix, and a compiled one begins at the tokens"
        return "training.cache", f"{problem}; leave it out, {end}"
    if training.consistency > 0:
        problem = f"= {training.consistency:g} takes a stack's output out of the middle of the pass"
        return "training.consistency", f"{problem}, where a compiled one has none; choose 0, {end}"
    if training.memory_bytes is not None:
        problem = f"= {training.memory_bytes} is fitted to the memory of a step that is not compiled, which takes other"
        return "training.memory_bytes", f"{problem}; set training.accumulation, {end}"
    return None
