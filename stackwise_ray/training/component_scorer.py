"""Passes over validation windows, for what components do after the last step.

`loop` hands a `ComponentScorer` to each component. No component is known here by name.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from stackwise_ray.models.component import Forward, Scored, Windows
from stackwise_ray.training.evaluation import Evaluator
from stackwise_ray.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class ComponentScorer:
    """`models.component.Scorer` over the validation split of a trial."""

    evaluator: Evaluator
    objective: Objective

    def score(self, windows: Windows, forward: Forward) -> Generator[None, None, Scored]:
        """Runs `forward` on all windows in evaluation mode; its FLOPs are counted batch by batch."""
        evaluator = self.evaluator
        assembly = evaluator.assembly
        offsets = assembly.validation_windows if windows == "validation" else assembly.held_out_windows
        if offsets is None:
            raise ValueError("the component asks for held-out windows, and its held_out_tokens says that it wants none")
        before = evaluator.meter.evaluation_flops
        result = yield from evaluator.score(
            len(offsets), lambda numbers: self.objective.validation_batch(offsets[numbers]), forward=forward
        )
        flops = self.total(evaluator.meter.evaluation_flops - before)
        return Scored(loss=result.mean, flops=flops, tokens=len(offsets) * assembly.trial.data.seq_len)

    def total(self, number: int) -> int:
        """The sum of a number over all workers."""
        return self.evaluator.collectives.sum_number(number)
