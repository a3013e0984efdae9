"""The learning rate of each step: pure functions of the step's index, written to be checked by hand.

Called by the training loop before each update, and by tests. There is no scheduler object, so a continued run needs
nothing but its step.
"""

from __future__ import annotations

import math

from stackwise_ray.config.trial import Schedule


def warmup_steps(total_steps: int, schedule: Schedule) -> int:
    """Steps with rising rate: the share of the total, rounded, and at least one where the share is not 0."""
    return max(1, round(schedule.warmup * total_steps)) if schedule.warmup > 0 else 0


def learning_rate(step: int, total_steps: int, lr: float, schedule: Schedule) -> float:
    """The learning rate of update `step` (0 is the first) of `total_steps`.

    With w warm-up steps the rate is lr·(step + 1)/w for step < w, so the last of them has the peak. From there
    u = (step − p)/(total_steps − 1 − p) runs from 0 at the peak step p = max(w − 1, 0) to 1 at the last step, and the
    share of the peak is, with f = `schedule.final`:

    - cosine: f + (1 − f)·(1 + cos πu)/2
    - linear: 1 − (1 − f)·u
    - wsd (warm-up, stable, decay): 1, then over the last d = round(decay·total_steps) steps linear from 1 to f
      (at most the steps after the warm-up)
    - constant: 1

    Raises:
        ValueError: `step` is not in [0, total_steps).

    >>> s = Schedule(kind="linear", warmup=0.2, final=0.0)
    >>> [learning_rate(i, 10, 8.0, s) for i in (0, 1, 5, 9)]
    [4.0, 8.0, 4.0, 0.0]
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step {step} is outside [0, {total_steps})")
    warm = warmup_steps(total_steps, schedule)
    if step < warm:
        return lr * (step + 1) / warm
    return lr * _share_of_peak(step, total_steps, warm, schedule)


def _share_of_peak(step: int, total_steps: int, warm: int, schedule: Schedule) -> float:
    last = total_steps - 1
    match schedule.kind:
        case "constant":
            return 1.0
        case "wsd":
            decay = min(round(schedule.decay * total_steps), total_steps - warm)
            start = last - decay
        case "cosine" | "linear":
            start = max(warm - 1, 0)
    if step <= start or start >= last:
        return 1.0
    progress = (step - start) / (last - start)
    if schedule.kind == "cosine":
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2
    return 1 - (1 - schedule.final) * progress
