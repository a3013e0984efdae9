"""Which declared analyses a sweep can answer; `config.space.sweep_rules` calls these rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stackwise_ray.config.space.designs import Design
from stackwise_ray.config.space.metric_names import why_unreported
from stackwise_ray.config.space.seeds import first_seeds
from stackwise_ray.config.space.sweep_config import (
    AdaptiveSeeds,
    IsoflopDesign,
    LadderDesign,
    SearchDesign,
    SweepConfig,
)
from stackwise_ray.config.trial import TrialConfig
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core.analysis_step import MetricRead, PlannedArm, PlannedSweep
from stackwise_ray.core.errors import ConfigError, did_you_mean
from stackwise_ray.core.records import NEXT_TOKENS, OWN_MASKS, loss_kind
from stackwise_ray.core.registries import ANALYSES


def _refuse(sweep: SweepConfig, path: str, problem: str) -> ConfigError:
    return ConfigError(problem, path=path, source=sweep.source)


def _check_entries(sweep: SweepConfig) -> None:
    for number, entry in enumerate(sweep.analysis):
        if len(entry) != 1:
            problem = f"must have exactly one of {', '.join(ANALYSES.names())}"
            raise _refuse(sweep, f"analysis.{number}", problem)


def _check_search(sweep: SweepConfig) -> None:
    """A search has no arms, sizes or budgets before it has drawn them."""
    for declared in sweep.steps:
        if isinstance(sweep.design, SearchDesign) and (why := declared.refuses_search()) is not None:
            raise _refuse(sweep, declared.place(), why)


def _check_adaptive(sweep: SweepConfig) -> None:
    """Adaptive replicates follow a verdict, so there must be one."""
    if isinstance(sweep.replicates.seeds, AdaptiveSeeds) and not sweep.comparisons:
        problem = "= {min, max, until: decided} adds seeds until a comparison is decided, and no comparison is declared"
        raise _refuse(
            sweep, "replicates.seeds", f"{problem}; add a compare step to analysis, or give a number of seeds"
        )


def _check_sizes(sweep: SweepConfig) -> None:
    design = sweep.design
    if not isinstance(design, IsoflopDesign | LadderDesign):
        return
    key = "flops" if isinstance(design, IsoflopDesign) else "tokens_per_parameter"
    for value, count in Counter(f"{value:g}" for value in getattr(design, key)).items():
        if count > 1:  # an arm's name shows six digits of it
            raise _refuse(sweep, f"design.{key}", f"contains {value} twice; remove one")


def metrics_read(sweep: SweepConfig) -> list[tuple[str, MetricRead]]:
    """Every metric that a declared step compares between arms, with the dotted path of what asks for it."""
    return [(declared.place(read.key), read) for declared in sweep.steps for read in declared.reads()]


ANALYSIS_RULES = (_check_entries, _check_sizes, _check_search, _check_adaptive)


def check_analysis(sweep: SweepConfig, design: Design) -> None:
    """Every declared step can be answered by what the sweep expands to.

    Raises:
        ConfigError: As the step's own check says.
    """
    planned = PlannedSweep(
        arms=tuple(
            PlannedArm(
                name=arm.name,
                config=to_plain(arm.trial),
                budget_unit=arm.trial.training.budget.unit,
                budget=arm.trial.training.budget.amount,
            )
            for arm in design.arms
        ),
        baseline=sweep.baseline,
        seeds=len(first_seeds(sweep)),
        adaptive=isinstance(sweep.replicates.seeds, AdaptiveSeeds),
    )
    for declared in sweep.steps:
        declared.check(planned)
        comparison = declared.comparison()
        if comparison is not None and comparison.target is None and design.arms:
            _check_baseline(sweep, declared.place("baseline"), sweep.baseline_of(comparison), planned)


def _check_baseline(sweep: SweepConfig, place: str, baseline: str | None, planned: PlannedSweep) -> None:
    """Whoever declares a comparison: what its verdicts are against is an arm."""
    names = [arm.name for arm in planned.arms]
    if baseline is None:
        raise _refuse(
            sweep, place, f"is absent, and so is design.baseline; give one of them: {did_you_mean('', names)}"
        )
    if baseline not in names:
        raise _refuse(sweep, place, f"= {baseline} is not an arm; {did_you_mean(baseline, names)}")


def check_masks(sweep: SweepConfig, design: Design) -> None:
    """validation/loss is of a model's own masks, or of next tokens: between arms it compares what they are asked.

    Raises:
        ConfigError: A step compares it between arms that differ in that.
    """
    kinds = {arm.name: loss_kind(to_plain(arm.trial)) for arm in design.arms}
    if len(set(kinds.values())) < 2:
        return
    first, *others = kinds
    other = next(name for name in others if kinds[name] != kinds[first])
    for place, read in metrics_read(sweep):
        if read.metric not in OWN_MASKS:
            continue
        says = f"= {read.metric}" if read.key is not None else f"is fitted to {read.metric}"
        if NEXT_TOKENS in (kinds[first], kinds[other]):
            problem = (
                f"{says} cannot be compared between {first} and {other}: one predicts masked tokens, the "
                "other next tokens; put them into two search spaces"
            )
        else:
            problem = (
                f"{says} cannot be compared between {first} and {other}: they are measured on different masks; "
                f"{read.instead}"
            )
        raise _refuse(sweep, place, problem)


def check_reported(sweep: SweepConfig, design: Design) -> None:
    """Every arm reports what is compared, and one at least what is optimised: else the sweep would run for nothing.

    Raises:
        ConfigError: With an arm that does not, and why.
    """
    compared = [(place, read.metric) for place, read in metrics_read(sweep)]
    optimised = [
        (sweep.place_of_objective(number, "metric"), goal.metric) for number, goal in enumerate(sweep.objective)
    ]
    for place, metric in (*compared, *optimised):
        found = {arm.name: why for arm in design.arms if (why := why_unreported(metric, arm.trial))}
        if found and ((place, metric) in compared or len(found) == len(design.arms)):
            name, why = next(iter(found.items()))
            raise _refuse(sweep, place, f"= {metric} is not reported by the arm {name}: it {why}")


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
    chosen = [(sweep.place_of_objective(number, "metric"), goal.metric) for number, goal in enumerate(sweep.objective)]
    if sweep.scheduler is not None and sweep.scheduler.metric is not None:
        chosen.append(("scheduler.metric", sweep.scheduler.metric))
    for path, metric in chosen:
        why = next((why for point in points if (why := why_unreported(metric, point))), None)
        if why is not None:
            raise _refuse(sweep, path, f"= {metric} is not reported by every point of {place}: one of them {why}")
        fix = None
        if len(texts) > 1:
            fix = f"search each text by itself ({', '.join(texts)})"
        elif metric in OWN_MASKS and len(kinds) > 1:
            fix = (
                "search next-token and masked-token models by themselves"
                if NEXT_TOKENS in kinds
                else "compare validation/masked_loss"
            )
        if fix is not None:
            easier = (
                f"cannot choose among the points of {place}: it is not the same task for all, and the easiest would win"
            )
            raise _refuse(sweep, path, f"= {metric} {easier}; {fix}")
