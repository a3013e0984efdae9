"""What a trial will cost, to the unit, before a weight exists: parameters, FLOPs, steps, memory, disk.

Called by `--plan`, by the sweep before it starts and by tests. The same functions (`budget.solve_steps`,
`planning.counted_costs`) decide the steps of the run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.data.windows import count_windows, fixed_validation_windows, strided_windows
from stackwise_ray.flags import apply_flags
from stackwise_ray.models.component import COMPONENTS
from stackwise_ray.planning.counted_costs import stage_bytes, stage_flops
from stackwise_ray.planning.micro_batch import within_memory
from stackwise_ray.training.budget import (
    TOLERANCE,
    StageCost,
    StageFlops,
    StageSteps,
    batch_sequences,
    check_counted,
    evaluation_steps,
    solve_steps,
    stage_costs,
    varies,
)
from stackwise_ray.training.checkpoints import KEPT
from stackwise_ray.training.clock import LEFT_OVER
from stackwise_ray.training.component_hooks import held_out_of
from stackwise_ray.training.initial import charged
from stackwise_ray.training.noise import MASKED_RATIOS, entered_blocks
from stackwise_ray.training.prefix_cache import cache_bytes, check_size
from stackwise_ray.training.stage import StagePlan
from stackwise_ray.training.stages import stage_plan


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """One stage of a trial: its name, its share of the budget, and its steps (None where the clock decides)."""

    name: str
    share: float
    steps: int | None


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """The cost of one trial. What depends on the number of steps is None under a budget of wall-clock time.

    Attributes:
        flops_forward_per_token, flops_backward_per_token: Of training, averaged over the stages' tokens.
        flops_optimizer_per_step: FLOPs of one update (averaged over the stages' steps).
        steps: Optimizer steps of all stages.
        full_step_sequences: Global sequences of a full step.
        tokens_total: Training tokens.
        steps_most: The most steps. It differs from `steps` only under a budget of FLOPs with a component that makes
            steps differ in cost. There `steps`, and all that follows from it, assume that every step is the costliest.
        flops_total: Training FLOPs, the filling of caches included: the run's `flops/total`. If a component makes steps
            differ in cost, this is the most (under a budget of FLOPs: the budget), and FLOPs per token are the most,
            too.
        flops_least: The fewest in that case; else the same as `flops_total`.
        flops_evaluation: FLOPs of the validations during training. With `split_tokens` also of the final evaluation:
            then the run's `flops/evaluation`. Exact, or the most if a component has an evaluation of its own.
        live_peak_bytes: Most bytes in live tensors during a step on one worker.
        saved_activation_bytes: Saved for the backward pass of a micro-batch.
        model_bytes: Weights, as they are kept in the end.
        cache_bytes: Of the cache of the frozen prefix; 0 where the trial has none.
        disk_bytes: Most bytes at the same time: checkpoints kept, the one being written, the final model, and the
            cache.
    """

    params: int
    params_non_embedding: int
    flops_forward_per_token: float
    flops_backward_per_token: float
    flops_optimizer_per_step: int
    steps: int | None
    full_step_sequences: int
    tokens_total: int | None
    steps_most: int | None
    flops_total: int | None
    flops_least: int | None
    flops_evaluation: int | None
    live_peak_bytes: int
    saved_activation_bytes: int
    model_bytes: int
    cache_bytes: int
    disk_bytes: int
    stages: tuple[PlannedStage, ...]


def plan_trial(
    trial: TrialConfig,
    *,
    vocab_size: int,
    special_ids: Mapping[str, int] | None = None,
    split_tokens: Mapping[str, int] | None = None,
    final_evaluation: bool = True,
) -> TrialPlan:
    """Plans a trial on fake tensors (measured: 0.3 to 1 s per arm, once torch is imported).

    Args:
        vocab_size: Entries of the tokenizer.
        split_tokens: Number of tokens by split. The cost of evaluation depends on the validation and test splits. The
            cost and size of a cache depend on the train split.
        final_evaluation: As the run will have it (a replicate's is full, a tuning trial's is not).

    Raises:
        ConfigError: The trial contradicts itself, or its budget cannot be met within 1 %; the message gives the
            smallest budget that can. Or its cache is too large, or saves nothing.
        ValueError: The trial has a cache, and the size of the train split is not given.
    """
    trial = within_memory(charged(apply_flags(trial)), vocab_size=vocab_size, special_ids=special_ids)
    plan = stage_plan(trial)
    flops = [stage_flops(trial, s, vocab_size=vocab_size, special_ids=special_ids) for s in plan.stages]
    sizes = [stage_bytes(trial, s, vocab_size=vocab_size, special_ids=special_ids) for s in plan.stages]
    plan = split_by_cost(trial, plan, flops)
    windows = cache_windows(trial, (split_tokens or {}).get("train"))
    steps = planned_steps(trial, plan, flops, windows)
    cache = cache_bytes(trial, windows)
    check_size(trial, cache)
    weights = max(size.weights for size in sizes)
    state = max(size.optimizer_state for size in sizes)
    seq_len = trial.data.seq_len
    costs, cheapest = (stage_costs(plan, flops, windows, least=least) for least in (False, True))
    total = None if steps is None else _total(steps, costs)
    least, steps_most = total, None if steps is None else sum(stage.steps for stage in steps)
    if steps is not None:
        least = _total(steps, cheapest)
    elif trial.training.budget.flops is not None:
        total, least = round(trial.training.budget.flops), round((1 - TOLERANCE) * trial.training.budget.flops)
        steps, slowest = _steps_between(trial, costs), _steps_between(trial, cheapest)
        steps_most = sum(stage.steps for stage in slowest) + _smaller_steps(trial, costs[-1], cheapest[-1])
    return TrialPlan(
        params=sizes[-1].params,
        params_non_embedding=sizes[-1].params_non_embedding,
        flops_forward_per_token=_mean([f.forward_per_sequence for f in flops], _sequences(plan, steps)) / seq_len,
        flops_backward_per_token=_mean([f.backward_per_sequence for f in flops], _sequences(plan, steps)) / seq_len,
        flops_optimizer_per_step=round(_mean([f.optimizer_per_step for f in flops], _steps(plan, steps))),
        steps=None if steps is None else sum(stage.steps for stage in steps),
        full_step_sequences=batch_sequences(trial),
        tokens_total=None if steps is None else seq_len * sum(stage.sequences_total for stage in steps),
        steps_most=steps_most,
        flops_total=total,
        flops_least=least,
        flops_evaluation=_evaluation_flops(trial, plan, flops, steps, split_tokens, final_evaluation),
        live_peak_bytes=max(size.live_peak for size in sizes),
        saved_activation_bytes=max(size.saved_activations for size in sizes),
        model_bytes=sizes[-1].model,
        cache_bytes=cache,
        disk_bytes=(KEPT + 1) * (weights + state) + sizes[-1].model + cache,
        stages=tuple(
            PlannedStage(name=stage.name, share=stage.share, steps=None if steps is None else steps[number].steps)
            for number, stage in enumerate(plan.stages)
        ),
    )


def split_by_cost(trial: TrialConfig, plan: StagePlan, flops: Sequence[StageFlops]) -> StagePlan:
    """The plan with the shares of `stage_split: flop_proportional`; the loop calls this too.

    Stages with a share of their own keep it. The other stages divide the rest in proportion to the FLOPs of one full
    step, optimizer included. Under a budget of FLOPs these stages then train on equal numbers of tokens. Under a budget
    of time this is true as far as time is proportional to FLOPs.
    """
    if trial.training.stage_split != "flop_proportional":
        return plan
    batch, costs = batch_sequences(trial), stage_costs(plan, flops)
    steps = [batch * cost.flops_per_sequence + cost.flops_per_step for cost in costs]
    split = [not stage.fixed_share for stage in plan.stages]
    unit = sum(stage.share for stage in plan.stages if not stage.fixed_share) / sum(itertools.compress(steps, split))
    return StagePlan(
        stages=tuple(
            stage if stage.fixed_share else replace(stage, share=unit * step)
            for stage, step in zip(plan.stages, steps, strict=True)
        )
    )


def cache_windows(trial: TrialConfig, train_tokens: int | None) -> int:
    """Number of windows in a cache of the frozen prefix: all of the train split, or 0 without a cache."""
    if not trial.training.cache:
        return 0
    if train_tokens is None:
        raise ValueError("the cost of a cache depends on the train split: give split_tokens['train']")
    return count_windows(train_tokens, trial.data.seq_len, split="train")


def planned_steps(
    trial: TrialConfig, plan: StagePlan, flops: list[StageFlops], windows: int
) -> tuple[StageSteps, ...] | None:
    """The steps of each stage; None if they end by the clock or by a running count of FLOPs. The loop calls this too.

    Args:
        windows: As `cache_windows` gives them.

    Raises:
        ConfigError: The budget cannot be met, or a cached stage is too short for its cache to save anything.
    """
    if trial.training.budget.wall_seconds is not None:
        batch_sequences(trial)
        return None
    if trial.training.budget.flops is not None and varies(flops):
        check_counted(trial, stage_costs(plan, flops, windows))
        return None
    steps = solve_steps(
        trial.training.budget,
        stage_costs(plan, flops, windows),
        batch_sequences=batch_sequences(trial),
        seq_len=trial.data.seq_len,
    )
    for stage, taken in zip(plan.stages, steps, strict=True):
        if stage.cached and taken.sequences_total <= windows:
            raise ConfigError(
                f"= true saves nothing: {stage.name} trains on {taken.sequences_total} sequences, and its cache runs "
                f"the frozen prefix on all {windows} windows of the train split first; leave it out, or raise "
                "training.budget",
                path="training.cache",
            )
    return steps


def wants_full_evaluation(trial: TrialConfig, final_evaluation: bool) -> bool:
    """Whether whole splits are scored at the end, by `data.final_evaluation`.

    Its default is `full` for models that predict the next token, and `fixed` for models that fill in masks.
    """
    default = "fixed" if trial.fills_masks else "full"
    return final_evaluation and (trial.data.final_evaluation or default) == "full"


def _total(steps: Sequence[StageSteps], costs: Sequence[StageCost]) -> int:
    return sum(taken.flops(cost) for taken, cost in zip(steps, costs, strict=True))


def _steps_between(trial: TrialConfig, costs: Sequence[StageCost]) -> tuple[StageSteps, ...]:
    return solve_steps(trial.training.budget, costs, batch_sequences=batch_sequences(trial), seq_len=trial.data.seq_len)


def _smaller_steps(trial: TrialConfig, most: StageCost, least: StageCost) -> int:
    """At most how many steps of fewer sequences end a counted budget (`clock`): each is sized as if it were costliest,
    and costs least."""
    left, count = float(batch_sequences(trial) * most.flops_per_sequence + most.flops_per_step), 0
    smallest = max(most.flops_per_sequence + most.flops_per_step, LEFT_OVER * trial.training.budget.amount)
    while left >= smallest:
        fitting = max(1, int((left - most.flops_per_step) // most.flops_per_sequence))
        left -= fitting * least.flops_per_sequence + least.flops_per_step
        count += 1
    return count


def _component_passes(trial: TrialConfig, windows: int, n_tokens: int | None) -> Iterator[tuple[int, int]]:
    """At most how many sequences the work of each component after the last step runs over: (plain, in its own pass).

    Args:
        windows: Fixed validation windows.
        n_tokens: Length of the validation split; None: unknown, and long enough.
    """
    left = None if n_tokens is None else held_out_of(trial, n_tokens)
    for name, options in trial.model.components.items():
        component = COMPONENTS.get(name)
        wanted = -(-component.held_out_tokens(options) // trial.data.seq_len)
        held_out = wanted if left is None else len(left)
        yield component.evaluation_bound(options, validation=windows, held_out=held_out)


def _sequences(plan: StagePlan, steps: tuple[StageSteps, ...] | None) -> list[float]:
    return [s.share for s in plan.stages] if steps is None else [float(s.sequences_total) for s in steps]


def _steps(plan: StagePlan, steps: tuple[StageSteps, ...] | None) -> list[float]:
    return [s.share for s in plan.stages] if steps is None else [float(s.steps) for s in steps]


def _mean(values: list[int], weights: list[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def _evaluation_flops(
    trial: TrialConfig,
    plan: StagePlan,
    flops: list[StageFlops],
    steps: tuple[StageSteps, ...] | None,
    split_tokens: Mapping[str, int] | None,
    final_evaluation: bool,
) -> int | None:
    """Every validation is charged to the stage in which it falls, the final evaluation to the last stage."""
    if steps is None:
        return None
    seq_len, wanted = trial.data.seq_len, trial.data.validation_tokens
    available = wanted + seq_len if split_tokens is None else split_tokens["validation"]
    windows = len(fixed_validation_windows(available, seq_len, wanted))
    ends, end = [], 0
    for stage in steps:
        end += stage.steps
        ends.append(end)
    total = 0
    for step in evaluation_steps(end, trial.training.evaluations):
        stage_number = next(number for number, last in enumerate(ends) if step <= last)
        total += windows * flops[stage_number].evaluation_per_sequence
    if wants_full_evaluation(trial, final_evaluation) and split_tokens is not None:
        for split in ("validation", "test"):
            if split not in split_tokens:  # a corpus may have no test split
                continue
            offsets = strided_windows(split_tokens[split], seq_len).offsets
            total += len(offsets) * flops[-1].evaluation_per_sequence
    before_finish = plan.stages[-1].finishes  # then the same is scored once more
    total += before_finish * windows * flops[-1].evaluation_per_sequence
    total += sum(
        plain * flops[-1].evaluation_per_sequence + own * flops[-1].component_pass_per_sequence
        for plain, own in _component_passes(trial, windows, None if split_tokens is None else available)
    )
    if trial.fills_masks:  # the loss at each of `MASKED_RATIOS`, in tuning too
        costs = {stage.active_blocks: cost for stage, cost in zip(plan.stages, flops, strict=True)}
        entered = sum(windows * costs[entered_blocks(trial, r)].evaluation_per_sequence for r in MASKED_RATIOS)
        total += entered * (1 + before_finish)
    return total
