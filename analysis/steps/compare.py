"""`- compare: {metric: …}`: a paired comparison of every arm with a baseline, by a fixed number of seeds or adaptively.

Its verdicts also lead the report: the table of arms shows those of the first comparison, and a sweep that declares
none, but has a baseline, is compared as if it did (the report says so).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from stackwise_ray.core.analysis_step import DeclaredComparison, MetricRead, PlannedArm, PlannedSweep, StepOptions
from stackwise_ray.core.comparison_records import Correction, ResolvedComparison, required_budget
from stackwise_ray.core.errors import AnalysisError, ConfigError, did_you_mean
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.quantities import format_share
from stackwise_ray.core.registries import ANALYSES

from ..anytime.adaptive_verdicts import anytime_arguments, compare_in_order
from ..anytime.adaptive_verdicts import method as adaptive_method
from ..paired.comparison import CORRECTION_NAMES, Comparison, test_name
from ..paired.hypotheses import check_question
from ..render import Grid
from ..report.page import Items, Picture, arm_sources, arms_anchor, file_name, plain, sourced
from ..report.reported_steps import Finding, ReportedStep
from ..table.sweep_directory import Sweep

if TYPE_CHECKING:
    from ..anytime.verdict import SequentialComparison

KIND = "compare"
_RATIOS = (
    "throughput/tokens_per_s",
    "flops/total",
    "tokens/total",
    "memory/peak_bytes",
    "memory/saved_activation_bytes",
    "model/bytes",
    "model/params",
    "model/params_non_embedding",
)
_SETTINGS = (
    "metric",
    "baseline",
    "direction",
    "assumed",
    "target",
    "hypothesis",
    "side",
    "test",
    "correction",
    "alpha",
    "margin",
    "equal",
    "tolerance",
    "budgets",
    "block",
)


@dataclass(frozen=True, kw_only=True)
class Compare(StepOptions):
    """What is compared and how it is decided; the options are those of `analysis.compare`."""

    metric: str = "validation/loss"
    baseline: str | None = None  # None: design.baseline
    correction: Correction = "holm"
    margin: Annotated[float, Field(gt=0)] | None = None  # within ± margin, in the metric's unit: equivalent
    hypothesis: Literal["different", "non_inferior"] = "different"  # the second: not worse by the margin, one-sided
    side: Literal["both", "better", "worse"] = "both"  # which differences are looked for; one side: a one-sided test
    target: float | None = None  # a value that every arm is compared with, in place of a baseline
    direction: Direction | None = None  # None: of the objective with this metric, else what the metric's record says
    test: Literal["t", "sign_flip", "wilcoxon"] = "t"
    equal: Literal["budget", "flops", "tokens", "wall_seconds", "peak_bytes", "none", "None"] | None = "budget"
    """What must agree in every pair; budget: the unit that the budgets have; none or null: nothing."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.01  # largest relative difference of what `equal` names
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "equal", required_budget(self.equal))  # one spelling, so that one plan has one hash


class CompareStep(ReportedStep):
    """Every arm against the baseline, paired by seed."""

    options = Compare
    title = "Comparison"
    figure = "comparison_plots"
    compares = True
    refuses_search = "compares arms, and a search has none; compare its winner with others in design.kind: arms"

    def reads(self, options: Compare) -> tuple[MetricRead, ...]:
        """What is compared."""
        common = "compare validation/masked_loss, which is the same for all"
        return (MetricRead(metric=options.metric, key="metric", instead=common),)

    def comparison(self, options: Compare) -> DeclaredComparison:
        """The options themselves."""
        return options

    def check(self, options: Compare, planned: PlannedSweep) -> None:
        """It needs a baseline and another arm, or a target; equal budgets where asked; a test that suits the seeds."""
        _check_question(options)
        if options.target is None:
            _check_arms(options, planned)
            _check_budgets(options, planned.arms)
        if planned.adaptive:
            _check_adaptive(options)
        else:
            _check_seeds(options, planned)

    def asked(self, sweep: Sweep, declared: list[Mapping[str, Any]]) -> list[ResolvedComparison]:
        """The declared comparisons with what the sweep fills in, or the one that suggests itself."""
        if sweep.is_search:
            return []
        found = [comparison for comparison in sweep.questions.comparisons if comparison.step == KIND]
        return [comparison for comparison in found if comparison.target is not None or len(sweep.arms) > 1]

    def called(self, options: ResolvedComparison) -> str:
        """The comparison by its metric."""
        return f"comparison on {options.metric}"

    def compute(self, sweep: Sweep, options: ResolvedComparison) -> Finding:
        """The comparison; with adaptive seeds, that of verdicts which hold at any time."""
        if options.baseline is None and options.target is None:
            raise AnalysisError(f"the comparison on {options.metric} names no baseline, and the design has none")
        # where the number of seeds depends on the results, no test of a fixed number holds
        if options.test == "mixture_t":
            return _adaptive(sweep, compare_in_order(sweep.runs, anytime_arguments(options)), *sweep.adaptive_seeds)
        from ..paired.significance import compare, fixed_arguments

        found = compare(sweep.runs, **fixed_arguments(options))
        return Finding(
            sentence=found.sentence,
            facts=found.to_dict(),
            result=found,
            opening=(sourced(found.verdict_grid, arm_sources(sweep, found.verdict_grid)),),
            blocks=(
                plain(_method(found)),
                _remarks(sweep, found),
                sourced(found.detail_grid, arm_sources(sweep, found.detail_grid)),
            ),
            draw=partial(_forest, found),
            records=tuple((_file(arm, found), _pair(sweep, found, arm)) for arm in found.verdicts),
        )


def _check_question(options: Compare) -> None:
    """The parts of the question must suit each other."""
    try:
        check_question(options.hypothesis, options.side, options.margin)
    except AnalysisError as error:
        path = "hypothesis" if options.hypothesis == "non_inferior" and options.margin is None else "side"
        raise ConfigError(str(error), path=path) from None
    if options.target is None:
        return
    if options.baseline is not None:
        problem = f"= {options.target:g} and baseline = {options.baseline}: an arm is compared with one of them"
        raise ConfigError(f"{problem}; remove the other", path="target")
    if options.equal not in ("budget", None):
        problem = f"= {options.equal}, and a target has spent nothing that could be equal; remove it"
        raise ConfigError(problem, path="equal")


def _check_arms(options: Compare, planned: PlannedSweep) -> None:
    names = [arm.name for arm in planned.arms]
    baseline = planned.baseline if options.baseline is None else options.baseline
    if baseline is None:
        raise ConfigError(f"is required, as is a design.baseline; {did_you_mean('', names)}", path="baseline")
    if baseline not in names:
        raise ConfigError(f"= {baseline} is no arm; {did_you_mean(baseline, names)}", path="baseline")
    if len(names) < 2:
        raise ConfigError(f"needs two arms; there is only {names[0]}")


def _check_budgets(options: Compare, arms: tuple[PlannedArm, ...]) -> None:
    """A comparison at equal budget needs one budget; what the runs achieve is checked again on their table."""
    if options.equal != "budget":
        return
    first = arms[0]
    for arm in arms[1:]:
        far = abs(first.budget - arm.budget) > options.tolerance * max(first.budget, arm.budget)
        if first.budget_unit != arm.budget_unit or far:
            problem = (
                f"= budget, but {first.name} has {first.budget_unit}: {first.budget:g} and {arm.name} has "
                f"{arm.budget_unit}: {arm.budget:g}; give every arm one budget, or set equal: flops or none"
            )
            raise ConfigError(problem, path="equal")


def _check_adaptive(options: Compare) -> None:
    """Adaptive replicates follow one rule, so nothing may be declared that another rule would decide."""
    if options.test != "t":
        problem = f"= {options.test} is for a fixed number of seeds; adaptive replicates have a test of their own"
        raise ConfigError(f"{problem} (an e-process of the t test): remove it", path="test")
    if options.correction not in ("holm", "bonferroni"):
        problem = f"= {options.correction}: adaptive replicates decide each of m arms at alpha / m"
        raise ConfigError(f"{problem}; write bonferroni", path="correction")


def _check_seeds(options: Compare, planned: PlannedSweep) -> None:
    """A test of signs or ranks has a least p at every number of seeds: one that is above its level decides nothing."""
    if options.test == "t":
        return
    from ..paired.deciding_tests import fewest_to_reject

    # of m equal p values, Benjamini and Hochberg adjust none; Holm and Bonferroni begin with the m-fold
    compared = len(planned.arms) - (options.target is None)
    shares = compared if options.correction in ("holm", "bonferroni") else 1
    one_sided = options.hypothesis == "non_inferior" or options.side != "both"
    fewest = fewest_to_reject(options.alpha / shares, sides=1 if one_sided else 2)
    if options.margin is not None and not one_sided:
        fewest = min(fewest, fewest_to_reject(2 * options.alpha))  # equivalence: two one-sided tests, not corrected
    if planned.seeds < fewest:
        over = f" over {shares} arms" if shares > 1 else ""
        problem = (
            f"= {options.test} cannot decide anything with {planned.seeds} seeds at level {options.alpha:g}{over}; set "
            f"replicates.seeds to {fewest} or more, or test: t"
        )
        raise ConfigError(problem, path="test")


def _adaptive(sweep: Sweep, found: SequentialComparison, least: int, most: int) -> Finding:
    facts = found.to_dict()
    shared = {key: value for key, value in facts.items() if key not in ("verdicts", "blocks", "sentence")}
    grid = Grid(found.grid.columns, found.grid.rows, found.grid.title, (), found.grid.numeric)
    return Finding(
        sentence=found.sentence,
        facts=facts,
        result=found,
        blocks=(
            plain(adaptive_method(found, least, most)),
            sourced(grid, arm_sources(sweep, grid)),
            _remarks(sweep, found),
        ),
        records=tuple(
            (
                _file(arm, found),
                {**shared, "arm": arm, "seeds": found.blocks[arm], "result": verdict.to_dict()},
            )
            for arm, verdict in found.verdicts.items()
        ),
    )


def _forest(found: Comparison, path: Path) -> Picture:
    from ..plots.forest import forest_plot, how_to_read

    differences = "Paired differences" if found.target is None else "Differences"
    title = f"{differences} with their intervals: {found.metric} against {found.reference}"
    return Picture(title=title, figure=forest_plot(path, found), caption=how_to_read(found))


def _remarks(sweep: Sweep, found: Comparison | SequentialComparison) -> Items:
    """The remarks with the runs that they were found in."""
    remarks = found.remarks_of_arms()
    return Items(tuple(line for line, _ in remarks), tuple(arms_anchor(sweep, arms) for _, arms in remarks))


def _method(found: Comparison) -> str:
    name = CORRECTION_NAMES.get(found.correction)
    corrected = f"the {name} correction" if name else "no correction"
    arms = "one arm" if len(found.arms) == 1 else f"{len(found.arms)} arms"
    paired = f", paired by {found.block}" if found.target is None else ""
    sides = "two-sided" if found.side == "both" and found.hypothesis == "different" else "one-sided"
    text = (
        f"Every arm is compared with {found.reference} on {found.metric}{paired}. The {sides} "
        f"{test_name(found.test, found.target)} decides at level {found.alpha:g} after {corrected} over {arms}; the "
        f"intervals are of the same test and not widened for the number of arms."
    )
    if found.side != "both":
        return f"{text} Only whether an arm is {found.side} is tested: p and interval are one-sided."
    if found.hypothesis == "non_inferior":
        return (
            f"{text} Non-inferior means: the hypothesis that the arm is worse by {found.margin:g} or more is rejected. "
            f"Better (the hypothesis: not better) and inferior (the hypothesis: worse by less than the margin) are "
            f"one-sided tests at the same level, each corrected over the arms by itself. The ends of the "
            f"{format_share(1 - 2 * found.alpha)} interval are one-sided {format_share(1 - found.alpha)} bounds."
        )
    if found.margin is not None:
        text += (
            f" Equivalent means: the {format_share(1 - 2 * found.alpha)} interval lies inside ±{found.margin:g} (two "
            f"one-sided tests)."
        )
    return text


def _file(arm: str, found: Comparison | SequentialComparison) -> str:
    return f"comparisons/comparison_{file_name(arm)}_vs_{file_name(found.reference)}.json"


def _pair(sweep: Sweep, comparison: Comparison, arm: str) -> dict[str, Any]:
    """One verdict with all its numbers, and what the arm costs as a multiple of the baseline."""
    runs = sweep.runs
    ratios = {}
    for metric in _RATIOS:
        if metric in runs.columns and comparison.baseline is not None:
            ours = runs.loc[runs["arm"] == arm, metric].mean()
            theirs = runs.loc[runs["arm"] == comparison.baseline, metric].mean()
            if ours == ours and theirs == theirs and theirs != 0:  # both were measured
                ratios[metric] = float(ours / theirs)
    return {
        **{name: getattr(comparison, name) for name in _SETTINGS},
        "family": comparison.family,
        "arm": arm,
        "result": comparison[arm].to_dict(),
        "baseline_values": dict(comparison.baseline_values),
        "ratios": ratios,
        "notes": list(comparison.notes),
    }


ANALYSES.register(KIND)(CompareStep())
