"""The largest micro-batch whose step fits into `training.memory_bytes`, for arms of equal memory.

`plan_trial` and the run both call it, so that the run accumulates as planned. An arm that saves memory (by recomputed
activations, or moments in 8 bits) then gets a larger micro-batch.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import replace

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.quantities import format_bytes
from stackwise_ray.flags import apply_flags
from stackwise_ray.planning.counted_costs import stage_bytes
from stackwise_ray.training.budget import batch_sequences
from stackwise_ray.training.initial import charged
from stackwise_ray.training.stages import stage_plan


def within_memory(trial: TrialConfig, *, vocab_size: int, special_ids: Mapping[str, int] | None) -> TrialConfig:
    """The trial with the smallest `training.accumulation` whose predicted peak fits; itself where no limit is set.

    Args:
        trial: A trial to which the edits of its flags have been applied.

    Raises:
        ConfigError: Not even micro-batches of one sequence fit; the message gives the bytes that they need.
    """
    limit = trial.training.memory_bytes
    if limit is None:
        return trial

    def accumulating(parts: int) -> TrialConfig:
        return replace(trial, training=replace(trial.training, accumulation=parts))

    def peak(parts: int) -> int:
        cut, stages = accumulating(parts), stage_plan(trial).stages
        return max(stage_bytes(cut, s, vocab_size=vocab_size, special_ids=special_ids).live_peak for s in stages)

    n = batch_sequences(accumulating(1))
    whole, *cuts = sorted({-(-n // size) for size in range(1, n + 1)})  # for each size the fewest that are no larger
    if peak(whole) <= limit:
        return accumulating(whole)
    fitting = bisect.bisect_left(cuts, True, key=lambda parts: peak(parts) <= limit)  # smaller ones need less
    if fitting == len(cuts):
        needed = min(peak(parts) for parts in (whole, *cuts[-1:]))
        raise ConfigError(
            f"= {limit} ({format_bytes(limit)}) is less than the {needed} ({format_bytes(needed)}) of a step in "
            f"micro-batches of one sequence; write {needed} or more, or save memory by "
            "training.activation_checkpointing or optimizer.kind: adamw_8bit",
            path="training.memory_bytes",
        )
    return accumulating(cuts[fitting])


def fitted_accumulation(
    trial: TrialConfig, *, vocab_size: int, special_ids: Mapping[str, int] | None, world_size: int
) -> int | None:
    """Micro-batches per step of a run of `trial` (its flags not yet applied); None where it sets no limit of memory.

    Raises:
        ConfigError: As `within_memory`, or the trial has several workers.
    """
    if trial.training.memory_bytes is None:
        return None
    if world_size > 1:
        raise ConfigError(
            f"= {trial.training.memory_bytes} is fitted to one worker's step, and this trial has {world_size} workers; "
            "write null and set training.accumulation",
            path="training.memory_bytes",
        )
    fitted = within_memory(charged(apply_flags(trial)), vocab_size=vocab_size, special_ids=special_ids)
    return fitted.training.accumulation
