"""The comparisons of a search space, fully resolved: the one place that fills in what a file leaves out.

`designs.expand` calls it once; the result travels with the design and is journaled by the driver, and whoever compares
or optimises reads it (`core.comparison_records`).
"""

from __future__ import annotations

from collections.abc import Sequence

from stackwise_ray.config.space.declared_steps import COMPARE
from stackwise_ray.config.space.sweep_config import AdaptiveSeeds, ObjectiveEntry, SweepConfig
from stackwise_ray.core.analysis_step import DeclaredComparison
from stackwise_ray.core.comparison_records import Goal, Questions, ResolvedComparison
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.registries import ANALYSES

OPEN_BUDGET = "flops"
"""What must be equal in a comparison that suggests itself, where the arms have budgets in several units."""


def resolve_questions(sweep: SweepConfig, arms: Sequence[str], budget: str | None) -> Questions:
    """What a sweep over these arms asks.

    Args:
        arms: Names of the arms; none where a search draws them.
        budget: The unit of all arms' budgets; None where they differ.
    """
    declared = [
        _resolve(sweep, comparison, arms, budget, step=entry.kind, declared=True)
        for entry in sweep.steps
        if (comparison := entry.comparison()) is not None
    ]
    suggested = []
    if not declared and sweep.baseline is not None:
        suggestion = ANALYSES.get(COMPARE).options(metric=sweep.objective[0].metric)
        suggested = [_resolve(sweep, suggestion, arms, budget, step=COMPARE, declared=False)]
    goals = tuple(Goal.of(entry.metric, _written(sweep, entry.metric)) for entry in sweep.objective)
    stopping = None if sweep.scheduler is None else sweep.scheduler.metric
    return Questions(
        arms=tuple(arms),
        baseline=sweep.baseline,
        goals=goals,
        stopping=goals[0] if stopping is None else Goal.of(stopping, _written(sweep, stopping)),
        comparisons=tuple(declared or suggested),
    )


def _resolve(
    sweep: SweepConfig,
    compare: DeclaredComparison,
    arms: Sequence[str],
    budget: str | None,
    *,
    step: str,
    declared: bool,
) -> ResolvedComparison:
    goal = Goal.of(compare.metric, _written(sweep, compare.metric))
    baseline = sweep.baseline_of(compare)
    equal = budget or OPEN_BUDGET if compare.equal == "budget" else compare.equal
    adaptive = isinstance(sweep.replicates.seeds, AdaptiveSeeds)
    return ResolvedComparison(
        metric=compare.metric,
        direction=goal.direction,
        assumed=goal.assumed,
        baseline=baseline,
        target=compare.target,
        hypothesis=compare.hypothesis,
        side=compare.side,
        margin=compare.margin,
        equal=None if compare.target is not None else equal,  # of a pair: a target has spent nothing
        tolerance=compare.tolerance,
        alpha=compare.alpha,
        correction="bonferroni" if adaptive else compare.correction,
        test="mixture_t" if adaptive else compare.test,
        family=tuple(arm for arm in arms if arm != baseline),
        step=step,
        declared=declared,
    )


def _written(sweep: SweepConfig, metric: str) -> Direction | None:
    """The direction that the file gives for a metric anywhere (`sweep_rules` lets it give one)."""
    entries: tuple[ObjectiveEntry | DeclaredComparison, ...] = (*sweep.objective, *sweep.comparisons)
    return next((entry.direction for entry in entries if entry.metric == metric and entry.direction), None)
