"""How far a run is in its budget: its share used, the end of a stage, the next evaluation, the learning rate.

A budget of FLOPs, tokens or steps is counted in steps, which `budget.solve_steps` gave; one of wall-clock time by the
first worker's seconds; one of FLOPs whose steps differ in cost by the FLOPs counted so far, and the last steps are made
smaller so that it is met. The loop asks; nothing here trains.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.optim import learning_rate
from stackwise_ray.training.budget import StageCost, StageSteps, batch_sequences, evaluation_steps
from stackwise_ray.training.parallel.collectives import Collectives
from stackwise_ray.training.progress import TrainingProgress
from stackwise_ray.training.stage import StagePlan

LEFT_OVER = 0.002
"""Share of a counted budget of FLOPs that may be left over: smaller steps than it pays for teach nothing."""
_RESOLUTION = 10_000
"""Steps into which a stage's part of a budget of wall-clock time is cut for the learning-rate schedule."""


class BudgetClock:
    """The budget of one run on one worker.

    Args:
        trial: With the edits of its flags.
        steps: Steps of each stage; None where the budget is wall-clock time, or FLOPs of steps that differ in cost.
        costs: Most that a sequence and a step cost in each stage; asked where FLOPs are counted.
        rank: Number of this worker.
    """

    def __init__(
        self,
        trial: TrialConfig,
        plan: StagePlan,
        steps: tuple[StageSteps, ...] | None,
        collectives: Collectives,
        rank: int,
        costs: Sequence[StageCost] = (),
    ) -> None:
        self._training, self._batch = trial.training, batch_sequences(trial)
        self._shares = [stage.share for stage in plan.stages]
        self._ends = list(itertools.accumulate(self._shares))
        self._steps, self._collectives, self._rank = steps, collectives, rank
        self._total = None if steps is None else sum(stage.steps for stage in steps)
        self._evaluations = () if self._total is None else evaluation_steps(self._total, self._training.evaluations)
        self._measured, self._costs = 0.0, costs
        self._counts_flops = steps is None and trial.training.budget.flops is not None

    def read(self, progress: TrainingProgress) -> None:
        """Reads the clock, between two steps; under wall-clock time all workers look together."""
        if self._counts_flops:
            self._measured = self._flops_share(progress)
        elif self._total is None:
            budget = self._training.budget.amount
            mine = round(1e9 * min(1.0, progress.seconds.train / budget)) if self._rank == 0 else 0
            self._measured = self._collectives.sum_number(mine) / 1e9

    def _flops_share(self, progress: TrainingProgress) -> float:
        """Share of the FLOPs that is spent; 1 where no step is left that would not overdraw them."""
        left = self._flops_left(progress)
        cost = self._costs[progress.stage]
        over = left <= LEFT_OVER * self._training.budget.amount
        return 1.0 if over or left < cost.flops_per_sequence + cost.flops_per_step else 1 - left / self._amount

    def _flops_left(self, progress: TrainingProgress) -> float:
        return self._amount - progress.flops.training

    @property
    def _amount(self) -> float:
        return self._training.budget.amount

    def share(self, progress: TrainingProgress) -> float:
        """Share of the budget used; under wall-clock time as of the last look."""
        return self._measured if self._total is None else progress.step / self._total

    def finished(self, progress: TrainingProgress) -> bool:
        """Whether the budget is used up."""
        if self._total is not None:
            return progress.step >= self._total
        last = progress.stage + 1 == len(self._shares)
        return last and progress.stage_step > 0 and self._measured >= 1  # every stage takes a step, however short

    def stage_is_over(self, progress: TrainingProgress) -> bool:
        """Whether the next step belongs to the next stage."""
        if progress.stage + 1 == len(self._shares):
            return False
        if self._steps is not None:
            return progress.stage_step >= self._steps[progress.stage].steps
        return self._measured >= self._ends[progress.stage]

    def sequences(self, progress: TrainingProgress) -> int:
        """Global sequences of the next step."""
        if self._counts_flops:
            cost = self._costs[progress.stage]
            fitting = int((self._flops_left(progress) - cost.flops_per_step) // cost.flops_per_sequence)
            return max(1, min(self._batch, fitting))
        return self._batch if self._steps is None else self._steps[progress.stage].sequences(progress.stage_step)

    def stage_share(self, progress: TrainingProgress) -> float:
        """Share of the current stage's part of the budget that is used, in [0, 1]."""
        stage = progress.stage
        if self._steps is not None:
            return progress.stage_step / self._steps[stage].steps
        return min(max(1 - (self._ends[stage] - self._measured) / self._shares[stage], 0.0), 1.0)

    def learning_rate(self, progress: TrainingProgress) -> float:
        """The schedule over the current stage: what a stage trains is frozen at its end, and must have decayed."""
        lr, schedule, stage = self._training.lr, self._training.schedule, progress.stage
        if self._steps is not None:
            return learning_rate(progress.stage_step, self._steps[stage].steps, lr, schedule)
        step = min(int(self.stage_share(progress) * _RESOLUTION), _RESOLUTION - 1)
        return learning_rate(step, _RESOLUTION, lr, schedule)

    def evaluation_due(self, progress: TrainingProgress) -> bool:
        """Whether to validate now."""
        done = progress.evaluations
        if self._total is not None:
            return done < len(self._evaluations) and progress.step >= self._evaluations[done]
        if progress.step == 0 or done >= self._training.evaluations:
            return False
        return self._measured >= (done + 1) / self._training.evaluations

    def evaluated(self, progress: TrainingProgress) -> None:
        """Counts an evaluation as done, with those points of the clock that a long step jumped over."""
        progress.evaluations += 1
        if self._total is None:
            passed = math.floor(self._measured * self._training.evaluations + 1e-9)
            progress.evaluations = max(progress.evaluations, passed)
