"""Is an arm better than the baseline, or than a target? One deciding test, intervals and a verdict each.

`compare` is the public face; `sweep`, `report` and the command line call it. Pairing and refusals live in `blocks`,
intervals in `intervals`, the result and its renderings in `comparison`.

What decides: the two-sided paired t test (hypothesis: the mean difference arm − baseline is 0; assumption: normal
differences), its p corrected over the arms. Equivalence: two one-sided tests (hypothesis: the true difference lies
outside ±margin), by the 1 − 2α interval of the same test. One side and non-inferiority: `hypotheses`. With a target the
differences are arm − target, one per run, and the test is of one sample. All other numbers decide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.comparison_records import Hypothesis, ResolvedComparison, Side, required_budget
from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric import Direction

from ..table.blocks import check_goal, check_level, pair, resolve
from ..table.outlier_search import outliers_of_arms
from .arm_verdicts import decide, measured
from .comparison import ArmComparison, Comparison
from .deciding_tests import Test, adjust_p
from .hypotheses import Asked

if TYPE_CHECKING:
    import pandas as pd

CORRECTIONS = ("holm", "bonferroni", "benjamini_hochberg", "none")


def compare(
    table: pd.DataFrame,
    metric: str,
    baseline: str | None = None,
    arm: str = "arm",
    block: str | Sequence[str] = "seed",
    correction: str | None = "holm",
    margin: float | None = None,
    direction: Direction | None = None,
    test: Test = "t",
    equal: str | None = "flops",
    tolerance: float = 0.01,
    alpha: float = 0.05,
    family: int | None = None,
    assumed: bool = False,
    *,
    target: float | None = None,
    hypothesis: Hypothesis = "different",
    side: Side = "both",
) -> Comparison:
    """Every arm against the baseline on one metric, paired by block; or every arm against a target value.

    Args:
        table: One row per run, e.g. from `load_runs`. Rows of another role than "replicate" or another status than
            "finished" are left out with a note, where these columns exist.
        metric: Column to compare.
        baseline: The arm that the others are compared with.
        arm: Column with the arms.
        block: Column that pairs runs, or several (seed and item). With a target it only tells the runs apart.
        correction: Over the arms: "holm", "bonferroni", "benjamini_hochberg" or None.
        margin: Largest difference that does not matter, in the metric's unit, declared beforehand; None: equivalence
            is not tested.
        direction: Whether small ("minimize") or large values are good; None: what the source says, else the
            metric's record or name; where none says it, small ones, which the sentence calls assumed.
        test: What decides: "t", "sign_flip" (exact to 2^16) or "wilcoxon" (exact to 500 differences).
        equal: Budget that must agree in every pair: "flops", "tokens", "wall_seconds", "peak_bytes"; None: none.
            Nothing has to agree with a target.
        tolerance: Largest relative difference of budgets.
        alpha: Level of the test after correction, and of each one-sided test.
        family: How many arms were to be compared, where not all of them may be in the table; None: those that are.
        assumed: Whether `direction` was assumed already, by whoever resolved the comparison.
        target: A value that every arm's mean is compared with (one-sample tests), in place of a baseline.
        hypothesis: "different", or "non_inferior": the arm is not worse by `margin` or more (one-sided, level α).
        side: "both"; "better" or "worse": only such differences are looked for (one-sided test and interval).

    Returns:
        A `Comparison`, one `ArmComparison` per arm.

    Raises:
        AnalysisError: A column or arm that is not there, two differing runs of one arm in one block, mixed data
            fingerprints, unequal budgets, text among the numbers, or an argument outside its range.

    Source: Student (1908); Holm (1979); Schuirmann (1987); Fisher (1935) for sign flips; `hypotheses` for one side.
    """
    direction, assumed, equal = *resolve(table, metric, direction, assumed), required_budget(equal)
    equal = None if target is not None else equal
    _check_arguments(correction, margin, direction, test, alpha, tolerance)
    asked = Asked(direction=direction, hypothesis=hypothesis, side=side, margin=margin)
    pairing = pair(table, metric, baseline, arm=arm, block=block, equal=equal, tolerance=tolerance, target=target)
    count, notes_of_family = pairing.family(family)
    found = [measured(pairing, metric, name, test, asked, alpha) for name in pairing.arms]
    results = _corrected(found, correction, count)
    # sharpest level that an arm may meet, so the number of seeds asked for is enough wherever it stands in the order
    strict = alpha / count if correction not in (None, "none") else alpha
    return Comparison(
        metric=metric,
        baseline=baseline,
        target=target,
        hypothesis=hypothesis,
        side=side,
        direction=direction,
        assumed=assumed,
        test=test,
        alpha=alpha,
        margin=margin,
        correction=correction or "none",
        equal=equal,
        tolerance=tolerance,
        budgets=pairing.budgets,
        block=block if isinstance(block, str) else " × ".join(block),
        arms=tuple(decide(result, asked, test=test, alpha=alpha, planning_alpha=strict) for result in results),
        baseline_values=pairing.baseline_values,
        missing=pairing.missing,
        notes=(*notes_of_family, *pairing.notes),
        family=count,
        outliers=outliers_of_arms(pairing.values, block if isinstance(block, str) else " × ".join(block)),
        exclusions=tuple(dict(item) for item in table.attrs.get("exclusions", ())),
    )


def fixed_arguments(asked: ResolvedComparison) -> dict[str, Any]:
    """A sweep's comparison as arguments of `compare`."""
    names = (
        "metric",
        "baseline",
        "direction",
        "assumed",
        "target",
        "hypothesis",
        "side",
        "margin",
        "equal",
        "tolerance",
        "alpha",
        "correction",
        "test",
    )
    return {**{name: getattr(asked, name) for name in names}, "family": len(asked.family)}


def _check_arguments(
    correction: str | None, margin: float | None, direction: str, test: str, alpha: float, tolerance: float
) -> None:
    if (correction or "none") not in CORRECTIONS:
        raise AnalysisError(f"correction = '{correction}' is not known; {did_you_mean(str(correction), CORRECTIONS)}")
    check_goal(direction, margin, tolerance)
    if test not in ("t", "sign_flip", "wilcoxon"):
        raise AnalysisError(f"test = '{test}' is not known; choose t, sign_flip or wilcoxon")
    check_level(alpha)


def _corrected(results: Sequence[ArmComparison], correction: str | None, family: int) -> list[ArmComparison]:
    """Every p with its correction over the family: the p of the test, and that of each one-sided claim by its kind."""
    absent = [None] * (family - len(results))

    def adjusted(ps: Sequence[float | None]) -> list[float | None]:
        return adjust_p([*ps, *absent], correction)[: len(results)]

    whole = [
        result.with_values(p_adjusted=p)
        for result, p in zip(results, adjusted([result.p for result in results]), strict=True)
    ]
    kinds = next((result.claims for result in results if result.claims), ())
    columns = [
        adjusted([result.claims[place].p if result.claims else None for result in results])
        for place in range(len(kinds))
    ]
    return [
        result.with_values(
            claims=tuple(replace(claim, p_adjusted=columns[place][row]) for place, claim in enumerate(result.claims))
        )
        for row, result in enumerate(whole)
    ]
