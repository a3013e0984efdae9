"""Which declared analyses a sweep can answer; `config.space.sweep_rules` calls these rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stackwise_ray.config.space.designs import Design
from stackwise_ray.config.space.metric_names import why_unreported
from stackwise_ray.config.space.sweep_config import (
    AdaptiveSeeds,
    IsoflopDesign,
    LadderDesign,
    SearchDesign,
    SweepConfig,
)
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core.errors import ConfigError
from stackwise_ray.core.records import NEXT_TOKENS, OWN_MASKS, loss_kind

FEWEST_SIZES = 4
"""A valley through three points is exact whatever the noise, so its floor would be believed for no reason."""


def _refuse(sweep: SweepConfig, path: str, problem: str) -> ConfigError:
    return ConfigError(problem, path=path, source=sweep.source)


def _check_steps(sweep: SweepConfig) -> None:
    for number, step in enumerate(sweep.analysis):
        place = f"analysis.{number}"
        if len(step.kinds) != 1:
            raise _refuse(sweep, place, "must hold exactly one of compare, scaling_law, isoflop")
        if isinstance(sweep.design, SearchDesign):
            problem = "compares arms, and a search has none; compare its winner with others in design.kind: arms"
            if step.compare is None:
                problem = "is about sizes and budgets, and a search has none; use design.kind: isoflop or ladder"
            raise _refuse(sweep, f"{place}.{step.kinds[0]}", problem)
        if step.scaling_law is not None and step.scaling_law.law == "data_constrained":
            problem = "= data_constrained needs the unique tokens of each run, which a sweep does not record"
            raise _refuse(sweep, f"{place}.scaling_law.law", f"{problem}; choose chinchilla, or fit it from a table")


def _check_adaptive(sweep: SweepConfig) -> None:
    """Adaptive replicates follow one rule, so nothing may be declared that another rule would decide."""
    if not isinstance(sweep.replicates.seeds, AdaptiveSeeds):
        return
    if not sweep.comparisons:
        problem = "= {min, max, until: decided} needs an analysis: - compare, whose verdict it waits for"
        raise _refuse(sweep, "replicates.seeds", f"{problem}; declare one, or give a number of seeds")
    for number, step in enumerate(sweep.analysis):
        if step.compare is None:
            continue
        place, compare = f"analysis.{number}.compare", step.compare
        if compare.test != "t":
            problem = f"= {compare.test} is for a fixed number of seeds; adaptive replicates have a test of their own"
            raise _refuse(sweep, f"{place}.test", f"{problem} (an e-process of the t test): remove it")
        if compare.alpha >= 0.5:
            raise _refuse(sweep, f"{place}.alpha", f"= {compare.alpha:g} is no level of a verdict; choose below 0.5")
        if compare.correction not in ("holm", "bonferroni"):
            problem = f"= {compare.correction}: adaptive replicates decide each of m arms at alpha / m"
            raise _refuse(sweep, f"{place}.correction", f"{problem}; write bonferroni")


def _check_sizes(sweep: SweepConfig) -> None:
    design = sweep.design
    if not isinstance(design, IsoflopDesign | LadderDesign):
        return
    key = "flops" if isinstance(design, IsoflopDesign) else "tokens_per_parameter"
    for value, count in Counter(f"{value:g}" for value in getattr(design, key)).items():
        if count > 1:  # an arm's name shows six digits of it
            raise _refuse(sweep, f"design.{key}", f"holds {value} twice; remove one")


ANALYSIS_RULES = (_check_sizes, _check_steps, _check_adaptive)


def check_reported(sweep: SweepConfig, design: Design) -> None:
    """Every arm reports what is compared, and one at least what is optimised: else the sweep would run for nothing.

    Raises:
        ConfigError: With an arm that does not, and why.
    """
    compared = [
        (f"analysis.{number}.compare.metric", step.compare.metric)
        for number, step in enumerate(sweep.analysis)
        if step.compare is not None
    ]
    optimised = [(f"objective.{number}.metric", goal.metric) for number, goal in enumerate(sweep.objective)]
    for place, metric in (*compared, *optimised):
        found = {arm.name: why for arm in design.arms if (why := why_unreported(metric, arm.trial))}
        if found and ((place, metric) in compared or len(found) == len(design.arms)):
            name, why = next(iter(found.items()))
            raise _refuse(sweep, place, f"= {metric} is not reported by {name}, which {why}")


def check_optimised(sweep: SweepConfig, points: Sequence[TrialConfig], place: str) -> None:
    """Tuning, search and early stopping choose among points that all report what decides, and mean the same by it.

    Args:
        points: From all over the space.
        place: Dotted path of the space.

    Raises:
        ConfigError: A point does not report it, or reports it of other masks, other tokens or other text.
    """
    kinds = {loss_kind(to_plain(point)) for point in points}
    texts = sorted({f"{point.data.corpus} in {point.data.tokenizer}" for point in points})
    chosen = [(f"objective.{number}.metric", goal.metric) for number, goal in enumerate(sweep.objective)]
    if sweep.scheduler is not None and sweep.scheduler.metric is not None:
        chosen.append(("scheduler.metric", sweep.scheduler.metric))
    for path, metric in chosen:
        why = next((why for point in points if (why := why_unreported(metric, point))), None)
        if why is not None:
            raise _refuse(sweep, path, f"= {metric} is not reported in all of {place}: a trial there {why}")
        fix = None
        if len(texts) > 1:
            fix = f"search each text apart ({', '.join(texts)})"
        elif metric in OWN_MASKS and len(kinds) > 1:
            fix = "search next tokens and masks apart" if NEXT_TOKENS in kinds else "take validation/masked_loss"
        if fix is not None:
            easier = f"is of other questions from point to point of {place}, so the easiest question would win"
            raise _refuse(sweep, path, f"= {metric} {easier}; {fix}")


def check_isoflop(sweep: SweepConfig, design: Design) -> None:
    """An IsoFLOP analysis needs budgets of FLOPs with enough sizes at one of them.

    Raises:
        ConfigError: It does not have them.
    """
    for number, step in enumerate(sweep.analysis):
        if step.isoflop is None:
            continue
        place, budgets = f"analysis.{number}.isoflop", [arm.trial.training.budget for arm in design.arms]
        other = next((arm.name for arm, b in zip(design.arms, budgets, strict=True) if b.unit != "flops"), None)
        if other is not None:
            raise _refuse(sweep, place, f"needs budgets of FLOPs, and {other} has another; use design.kind: isoflop")
        if max(Counter(budget.amount for budget in budgets).values()) < FEWEST_SIZES:
            problem = f"needs at least {FEWEST_SIZES} sizes at a budget; add sizes"
            raise _refuse(sweep, place, problem)
