"""Finished steps whose numbers were not read yet. Reading waits for the device, so on a GPU some steps are left unread.

The first step whose loss or gradient is not finite fails the trial, with what is needed to fix it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from stackwise_ray.core.errors import TrialError
from stackwise_ray.training.progress import TrainingProgress
from stackwise_ray.training.step import StepValues

_GPU_STEPS = 32
"""Steps after which a GPU is waited for, at the latest."""
_SMALLEST_SCALE = 1.0
"""fp16: a loss scale below this means that gradients overflow for a reason that no scale removes."""


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A finished step."""

    step: int
    lr: float
    values: StepValues


class PendingSteps:
    """The steps of one worker that wait to be looked at."""

    def __init__(self, device: torch.device) -> None:
        self._most = 1 if device.type == "cpu" else _GPU_STEPS
        self._steps: list[_Step] = []

    def __bool__(self) -> bool:
        return bool(self._steps)

    @property
    def full(self) -> bool:
        """Whether they are to be looked at now."""
        return len(self._steps) >= self._most

    def add(self, *, step: int, lr: float, values: StepValues) -> None:
        """A step that has just been started."""
        self._steps.append(_Step(step=step, lr=lr, values=values))

    def take_in(self, progress: TrainingProgress) -> None:
        """Waits for all of them and puts their numbers into `progress`.

        Raises:
            TrialError: A loss or gradient is not finite, or the loss scale of fp16 has collapsed.
        """
        for pending, (loss, norm, *scales) in zip(self._steps, self._numbers(), strict=True):
            skipped = bool(scales) and scales[1] < scales[0]
            where = f"loss = {loss:.6g}, lr = {pending.lr:.6g}, gradient norm = {norm:.6g}"
            if not math.isfinite(loss) or not (math.isfinite(norm) or skipped):
                what = "loss" if not math.isfinite(loss) else "gradient"
                raise TrialError(
                    f"non-finite {what} at step {pending.step}: {where}; a lower training.lr usually helps"
                )
            positions = pending.values.loss_positions
            progress.since_report.add(loss, positions)
            progress.since_evaluation.add(loss, positions)
            progress.latest["train/lr"] = pending.lr
            if not skipped:
                progress.latest["train/grad_norm"] = norm
                continue
            progress.skipped_steps += 1
            if scales[1] < _SMALLEST_SCALE:
                raise TrialError(
                    f"fp16 gradients overflow at step {pending.step} even at the least loss scale {scales[1]:g}: "
                    f"{where}; choose training.precision bf16, or a lower training.lr"
                )
        self._steps.clear()

    def _numbers(self) -> list[list[float]]:
        """Of each step loss, gradient norm and, in fp16, the loss scale before and after, in one copy."""
        rows = [
            torch.stack([step.values.loss, step.values.gradient_norm, *(step.values.scales or ())])
            for step in self._steps
        ]
        numbers: list[list[float]] = torch.stack(rows).cpu().tolist() if rows else []
        return numbers
