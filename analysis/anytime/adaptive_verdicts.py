"""Sweeps that add seeds until they have decided: what the driver asks on the way, and what the report says at the end.

Both are `compare_sequentially` over blocks in the order of their seeds, each arm at its share of the level, so that the
report prints the very decision that ended an arm. Called by the sweep command, the step `compare`, `summary` and
`python -m analysis sequential`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.comparison_records import ResolvedComparison
from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.records import TrialRecord, table_row

from ..paired.hypotheses import Asked
from .sequential import check_arguments, compare_sequentially, least_seeds
from .verdict import SequentialComparison

if TYPE_CHECKING:
    import pandas as pd


def is_undecided(trials: Iterable[TrialRecord], arm: str, comparison: ResolvedComparison) -> bool:
    """Whether another seed may still decide about `arm`.

    Args:
        trials: Finished trials of the arm and of the baseline.
        comparison: What the sweep asks.

    Returns:
        False also where the runs cannot be compared, which further seeds do not change: unequal budgets, or an arm of
        which no trial has finished. The report then gives the reason.

    Raises:
        AnalysisError: The comparison itself is outside its range (level, margin, tolerance), whatever the runs are.
    """
    import pandas as pd

    arguments = anytime_arguments(comparison)
    check_arguments(**{name: arguments[name] for name in ("margin", "alpha", "direction", "tolerance")})
    try:
        found = compare_in_order(pd.DataFrame([table_row(trial) for trial in trials]), arguments)
    except AnalysisError:
        return False
    return found[arm].decision == "undecided"


def compare_in_order(runs: pd.DataFrame, arguments: Mapping[str, Any]) -> SequentialComparison:
    """Every arm of `runs` against the baseline, its blocks in the order of their seeds.

    Raises:
        AnalysisError: As `compare_sequentially` does.
    """
    if runs.empty:
        raise AnalysisError("no replicate has finished: there is nothing to compare")
    return compare_sequentially(runs, **arguments)


def anytime_arguments(comparison: ResolvedComparison) -> dict[str, Any]:
    """A sweep's comparison as arguments of `compare_sequentially`, whose test and correction are its own."""
    names = (
        "metric",
        "baseline",
        "target",
        "hypothesis",
        "side",
        "direction",
        "assumed",
        "margin",
        "equal",
        "tolerance",
        "alpha",
    )
    return {**{name: getattr(comparison, name) for name in names}, "family": len(comparison.family)}


def first_decision(comparison: ResolvedComparison) -> int:
    """First number of seeds at which any verdict on an arm is possible, at its share of the level."""
    asked = Asked(
        direction=comparison.direction,
        hypothesis=comparison.hypothesis,
        side=comparison.side,
        margin=comparison.margin,
    )
    return least_seeds(asked, comparison.level)


def method(comparison: SequentialComparison, least: int, most: int) -> str:
    """How an adaptive sweep decided, in words."""
    if comparison.target is None:
        text = (
            f"Every arm is compared with {comparison.baseline}, paired by {comparison.block}, in the order of the "
            f"seeds. After {least} seeds each, an arm and its baseline were given one more as long as its verdict was "
            f"undecided, up to {most}."
        )
    else:
        text = (
            f"Every arm is compared with {comparison.reference}, in the order of the seeds. After {least} seeds each, "
            f"an arm was given one more as long as its verdict was undecided, up to {most}."
        )
    text += (
        f" A mixture-t e-process decides, each arm at level {comparison.level:.3g}, so that one of them or more is "
        f"decided wrongly at most {comparison.alpha:g} of the time, whenever one looks. The p values of a fixed number "
        f"of seeds do not hold here and are not shown."
    )
    if comparison.hypothesis == "non_inferior":
        return (
            f"{text} Non-inferior means: the one-sided bound of the difference lies within {comparison.margin:g} of "
            f"{comparison.reference}; better and inferior are one-sided claims of their own at the same level."
        )
    if comparison.side != "both":
        return f"{text} It is one-sided: only whether an arm is {comparison.side} is looked for."
    if comparison.margin is None:
        return text
    return f"{text} Equivalent means: the interval lies inside ±{comparison.margin:g}."
