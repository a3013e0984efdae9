"""How many steps a budget buys, and which sequences each step, worker and micro-batch takes.

Arithmetic alone, no torch. The planner and the loop call the same functions, so what was planned is what runs. A step
takes `batch_tokens / seq_len` sequences; the last step of a stage may take fewer, so that a budget of FLOPs or tokens
is met within 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stackwise_ray.config.trial import Budget, TrialConfig
from stackwise_ray.config.trial.rules import whole_batches
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.quantities import format_count
from stackwise_ray.training.stage import StagePlan

TOLERANCE = 0.01
"""Largest share by which what is spent may differ from the budget."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A step that costs other FLOPs than those it was planned with.

    Attributes:
        beyond_tolerance: Whether the budget is missed by more than `TOLERANCE` if all steps do.
    """

    message: str
    beyond_tolerance: bool


@dataclass(frozen=True, kw_only=True)
class StageFlops:
    """FLOPs of one stage: forward and backward of one sequence, the optimizer's of one step.

    `evaluation_per_sequence` is the forward pass in evaluation mode; `prefix_per_sequence` that of the frozen blocks of
    a cached stage, which each window of the train split takes once. `modelled_…` are forward and
    backward, and the prefix's forward, by formula: what counted FLOPs are held against; of one block and of the head
    beside them. Where a component makes FLOPs depend on the step, forward and backward are the costliest step's, and
    `cheapest_per_sequence` is both of the cheapest one; `component_pass_per_sequence` is the costliest evaluation pass
    of its own.
    """

    forward_per_sequence: int
    backward_per_sequence: int
    evaluation_per_sequence: int
    optimizer_per_step: int
    prefix_per_sequence: int = 0
    modelled_per_sequence: float = 0.0
    modelled_prefix_per_sequence: float = 0.0
    modelled_block_per_sequence: float = 0.0
    modelled_head_per_sequence: float = 0.0
    cheapest_per_sequence: int | None = None
    component_pass_per_sequence: int = 0

    @property
    def most_per_sequence(self) -> int:
        """Forward and backward FLOPs of one sequence in the costliest step."""
        return self.forward_per_sequence + self.backward_per_sequence

    @property
    def least_per_sequence(self) -> int:
        """Those in the cheapest step: the same where every step costs the same."""
        return self.most_per_sequence if self.cheapest_per_sequence is None else self.cheapest_per_sequence

    def difference(self, counted: int, n_sequences: int) -> Difference | None:
        """How a step's counted forward and backward FLOPs differ from the planned ones; None: they do not."""
        least, most = n_sequences * self.least_per_sequence, n_sequences * self.most_per_sequence
        if least <= counted <= most:
            return None
        planned = f"{most}" if least == most else f"{least} to {most}"
        return Difference(
            message=f"a step of {n_sequences} sequences costs {counted} FLOPs and was planned with {planned}",
            beyond_tolerance=counted < (1 - TOLERANCE) * least or counted > (1 + TOLERANCE) * most,
        )


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What training costs in one stage.

    Attributes:
        share: The stage's share of the budget; the shares of a plan sum to 1.
        flops_per_sequence: Forward and backward FLOPs of one sequence of `seq_len` tokens.
        flops_per_step: FLOPs of a step whatever its batch: the optimizer.
        flops_once: FLOPs of the stage whatever its steps: filling a cache.
    """

    share: float = 1.0
    flops_per_sequence: int
    flops_per_step: int
    flops_once: int = 0


@dataclass(frozen=True, kw_only=True)
class StageSteps:
    """The steps of one stage: all take `batch_sequences`, except the last, which takes `last_sequences`."""

    steps: int
    batch_sequences: int
    last_sequences: int

    def sequences(self, step: int) -> int:
        """Global sequences of step `step` of this stage (0 is its first)."""
        return self.last_sequences if step == self.steps - 1 else self.batch_sequences

    @property
    def sequences_total(self) -> int:
        """Sequences of the whole stage."""
        return (self.steps - 1) * self.batch_sequences + self.last_sequences

    def flops(self, cost: StageCost) -> int:
        """Training FLOPs of the whole stage."""
        return cost.flops_once + self.sequences_total * cost.flops_per_sequence + self.steps * cost.flops_per_step


def stage_costs(
    plan: StagePlan, flops: Sequence[StageFlops], windows: int = 0, *, least: bool = False
) -> list[StageCost]:
    """What a sequence and a step of each stage cost at most, or at least.

    Args:
        windows: Of the train split that a cached stage runs its prefix on.
    """
    return [
        StageCost(
            share=stage.share,
            flops_per_sequence=cost.least_per_sequence if least else cost.most_per_sequence,
            flops_per_step=cost.optimizer_per_step,
            flops_once=windows * cost.prefix_per_sequence,
        )
        for stage, cost in zip(plan.stages, flops, strict=True)
    ]


def varies(flops: Sequence[StageFlops]) -> bool:
    """Whether steps of one stage differ in cost, so that a budget of FLOPs is spent by counting."""
    return any(cost.least_per_sequence != cost.most_per_sequence for cost in flops)


def check_counted(trial: TrialConfig, costs: Sequence[StageCost]) -> None:
    """Refuses a budget of FLOPs that counting cannot meet: what is left over is up to one sequence in one step.

    Raises:
        ConfigError: That is more than 1 % of the budget.
    """
    wanted, batch = trial.training.budget.amount, batch_sequences(trial)
    one = max(cost.flops_per_sequence + cost.flops_per_step for cost in costs)
    stage = sum(batch * cost.flops_per_sequence + cost.flops_per_step for cost in costs)
    if one > TOLERANCE * wanted or (len(costs) > 1 and stage > TOLERANCE * wanted):
        smallest = round(max(one, stage if len(costs) > 1 else 0) / TOLERANCE) + 1
        raise ConfigError(
            f"= {wanted:g} cannot be met within {TOLERANCE:.0%}: steps differ in cost (model.components), and up to "
            f"{format_count(smallest * TOLERANCE)} FLOPs are left over; give at least {smallest}",
            path="training.budget.flops",
        )


def batch_sequences(trial: TrialConfig) -> int:
    """Global sequences of a full optimizer step.

    Raises:
        ConfigError: A configuration that nobody checked breaks the rule `config.trial.rules.whole_batches`.
    """
    found = whole_batches(trial)
    if found is not None:
        path, problem = found
        raise ConfigError(problem, path=path)
    return trial.training.batch_tokens // trial.data.seq_len


def solve_steps(
    budget: Budget, costs: Sequence[StageCost], *, batch_sequences: int, seq_len: int
) -> tuple[StageSteps, ...]:
    """The steps of each stage such that all of them together meet the budget.

    Each stage spends its share plus what the stages before it left over or overdrew.

    Raises:
        ConfigError: Nothing comes within 1 % of the budget (the message gives the smallest budget from there on that
            can be met), or there are fewer steps than stages.
        ValueError: The budget is one of time, which is spent by the clock.
    """
    if budget.wall_seconds is not None:
        raise ValueError("a budget of wall_seconds has no number of steps")
    if budget.steps is not None:
        counts = split_steps(budget.steps, [cost.share for cost in costs])
        return tuple(
            StageSteps(steps=count, batch_sequences=batch_sequences, last_sequences=batch_sequences) for count in counts
        )
    if budget.tokens is not None:
        unit, wanted = "tokens", budget.tokens
        costs = [StageCost(share=cost.share, flops_per_sequence=seq_len, flops_per_step=0) for cost in costs]
    else:
        assert budget.flops is not None  # config.editing: exactly one unit is set
        unit, wanted = "flops", budget.flops
    plan, spent, share = [], 0, 0.0
    for cost in costs:
        share += cost.share
        stage = _nearest(wanted * share - spent, cost, batch_sequences)
        spent += stage.flops(cost)
        plan.append(stage)
    if abs(spent - wanted) > TOLERANCE * wanted:
        raise ConfigError(_refusal(unit, wanted, spent, costs, batch_sequences), path=f"training.budget.{unit}")
    return tuple(plan)


def _nearest(wanted: float, cost: StageCost, batch: int) -> StageSteps:
    """The steps whose cost is nearest to `wanted`; at least one step of one sequence."""
    full = batch * cost.flops_per_sequence + cost.flops_per_step
    left = wanted - cost.flops_once
    n_full = max(0, math.floor(left / full))
    rest = (left - n_full * full - cost.flops_per_step) / cost.flops_per_sequence
    candidates = [(n_full + 1, min(max(1, math.floor(rest) + more), batch)) for more in (0, 1)]
    if n_full:
        candidates.insert(0, (n_full, batch))
    stages = [StageSteps(steps=n, batch_sequences=batch, last_sequences=last) for n, last in candidates]
    return min(stages, key=lambda stage: abs(stage.flops(cost) - wanted))


def _refusal(unit: str, wanted: float, spent: int, costs: Sequence[StageCost], batch: int) -> str:
    cost = costs[-1]
    before = sum(_nearest(wanted * c.share, c, batch).flops(c) for c in costs[:-1])
    stage = _nearest(wanted - before, cost, batch)
    feasible = before + stage.flops(cost)
    while feasible < wanted:  # at most once: the nearest lies below, the next above
        last = stage.last_sequences % batch + 1
        steps = stage.steps + (stage.last_sequences == batch)
        stage = StageSteps(steps=steps, batch_sequences=batch, last_sequences=last)
        feasible = before + stage.flops(cost)
    name = "FLOPs" if unit == "flops" else "tokens"
    smallest = "one sequence in one step costs" if stage.sequences_total == 1 else "the nearest that can be met is"
    return (
        f"= {wanted:g} cannot be met within {TOLERANCE:.0%}: the closest is {format_count(spent)} {name}; {smallest} "
        f"{feasible:,} {name}, so give at least {feasible}"
    )


def split_steps(total: int, shares: Sequence[float]) -> list[int]:
    """`total` split by `shares`, at least one each, by largest remainder.

    Raises:
        ConfigError: There are fewer steps than stages.
    """
    if total < len(shares):
        raise ConfigError(
            f"= {total} is fewer than the {len(shares)} stages, and each stage needs a step; give at least "
            f"{len(shares)}",
            path="training.budget.steps",
        )
    spare = total - len(shares)
    exact = [max(0.0, total * share - 1) for share in shares]
    scale = spare / sum(exact) if sum(exact) else 0.0
    counts = [1 + math.floor(value * scale) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (math.floor(exact[i] * scale) - exact[i] * scale, i))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def evaluation_steps(total_steps: int, evaluations: int) -> tuple[int, ...]:
    """After how many steps to validate: spread evenly, the last at the end; fewer where there are fewer steps.

    >>> evaluation_steps(10, 4), evaluation_steps(2, 5)
    ((3, 5, 8, 10), (1, 2))
    """
    return tuple(sorted({-(-total_steps * i // evaluations) for i in range(1, evaluations + 1)} - {0}))


def shares(first: int, count: int, parts: int) -> tuple[range, ...]:
    """`count` consecutive numbers from `first` in `parts` runs whose lengths differ by at most one.

    Splits the sequences of a step over workers, and those of a worker over micro-batches; a run may be empty.

    >>> shares(10, 5, 2)
    (range(10, 13), range(13, 15))
    """
    small, larger = divmod(count, parts)
    pieces, start = [], first
    for index in range(parts):
        stop = start + small + (index < larger)
        pieces.append(range(start, stop))
        start = stop
    return tuple(pieces)
