"""Verdicts that may be looked at after every block, on one arm or on all arms of a table.

`sequential_verdict` and `compare_sequentially` are the public face; what is computed stands in `e_process`, what is
found in `verdict`. For a number of blocks that was fixed beforehand `significance.compare` is sharper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stackwise_ray.core.comparison_records import required_budget
from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import badness

from ..paired.comparison import YET_DIFFERENT
from ..paired.intervals import Interval
from ..table.blocks import check_goal, pair, resolve
from .e_process import PRIOR_VARIANCE, check_process, confidence_sequence, first_crossings, seeds_possible
from .verdict import SequentialComparison, Verdict

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

CORRECTIONS = ("bonferroni", "none")


def sequential_verdict(
    differences: ArrayLike,
    margin: float | None = None,
    alpha: float = 0.05,
    direction: Direction = "minimize",
    prior_variance: float = PRIOR_VARIANCE,
) -> Verdict:
    """The verdict on one arm after these blocks, valid however often one looked before.

    Args:
        differences: arm − baseline, one per block, in the order they came (the order matters: the interval is the
            intersection over all prefixes). Values that are not finite are left out with a note.
        margin: Largest difference that does not matter, declared beforehand; None: equivalence is not tested.
        alpha: Bound on the probability of ever deciding wrongly.
        direction: Whether a negative ("minimize") or a positive difference is better.
        prior_variance: Of the standardised effect; declared beforehand. Small values find small effects sooner and
            large ones later.

    Raises:
        AnalysisError: An argument outside its range, or differences that are not one list of numbers.

    >>> verdict = sequential_verdict([-0.31, -0.28, -0.35, -0.30])
    >>> verdict.decision, verdict.decided_at, verdict.seeds_possible
    ('better', 3, 3)
    """
    import numpy as np

    check_arguments(margin=margin, alpha=alpha, direction=direction, prior_variance=prior_variance)
    try:
        sample = np.asarray(differences, dtype=float)
    except (TypeError, ValueError) as error:
        raise AnalysisError(f"differences must be numbers ({error})") from None
    if sample.ndim != 1:
        raise AnalysisError(f"differences must be one list of numbers, not an array of shape {sample.shape}")
    finite = np.isfinite(sample)
    notes = []
    if not finite.all():
        places = ", ".join(str(index + 1) for index in np.flatnonzero(~finite)[:8])
        lost = int((~finite).sum())
        notes.append(f"{lost} of {sample.size} differences left out, not finite (number {places}): conditional on that")
    return _verdict(sample[finite], margin, alpha, direction, prior_variance, notes)


def compare_sequentially(
    table: pd.DataFrame,
    metric: str,
    baseline: str,
    arm: str = "arm",
    block: str | Sequence[str] = "seed",
    correction: str | None = "bonferroni",
    margin: float | None = None,
    direction: Direction | None = None,
    equal: str | None = "flops",
    tolerance: float = 0.01,
    alpha: float = 0.05,
    prior_variance: float = PRIOR_VARIANCE,
    family: int | None = None,
    assumed: bool = False,
) -> SequentialComparison:
    """Every arm against the baseline, anytime-valid; the arguments are those of `compare`.

    Blocks count in the order of the start times of their runs (a column started_at, start_time, Created, …), else of
    their labels where these hold numbers (seed 2 before seed 10), else of the rows, which the sentence then says.

    Args:
        correction: "bonferroni" (each of m arms at level α/m) or None (each at α).
        alpha: Bound on the probability that any arm is ever decided wrongly.
        prior_variance: As in `sequential_verdict`.
        family: How many arms were to be compared, where not all of them may be in the table; None: those that are.
        assumed: As in `compare`.

    Raises:
        AnalysisError: As `compare` does, and where the rows are the only order and are sorted by the metric.
    """
    if (correction or "none") not in CORRECTIONS:
        raise AnalysisError(f"correction = '{correction}' is not known; {did_you_mean(str(correction), CORRECTIONS)}")
    direction, assumed, equal = *resolve(metric, direction, assumed), required_budget(equal)
    check_arguments(margin=margin, alpha=alpha, direction=direction, prior_variance=prior_variance, tolerance=tolerance)
    pairing = pair(table, metric, baseline, arm=arm, block=block, equal=equal, tolerance=tolerance, ordered=True)
    arms = list(pairing.values)[1:]
    count, notes_of_family = pairing.family(family)
    level = alpha / count if correction not in (None, "none") else alpha
    verdicts, blocks = {}, {}
    for name in arms:
        places, ours, theirs = pairing.pairs(name)
        lost = any(item.arm in (name, baseline) for item in pairing.missing)
        notes = ["conditional on survival: blocks are missing"] if lost else []
        found = _verdict_of_pairs(ours, theirs, margin, level, direction, prior_variance, notes)
        verdicts[name] = replace(found, metric=metric)
        blocks[name] = tuple(places)
    return SequentialComparison(
        metric=metric,
        baseline=baseline,
        direction=direction,
        assumed=assumed,
        alpha=alpha,
        margin=margin,
        correction=correction or "none",
        block=block if isinstance(block, str) else " × ".join(block),
        budgets=pairing.budgets,
        verdicts=verdicts,
        blocks=blocks,
        missing=pairing.missing,
        notes=(*notes_of_family, *pairing.notes),
        family=count,
        exclusions=tuple(dict(item) for item in table.attrs.get("exclusions", ())),
        order=pairing.order,
    )


def check_arguments(
    *,
    margin: float | None,
    alpha: float,
    direction: str,
    prior_variance: float = PRIOR_VARIANCE,
    tolerance: float = 0.0,
) -> None:
    """Refuse an argument that is outside its range whatever the runs are.

    Raises:
        AnalysisError: By its name.
    """
    check_goal(direction, margin, tolerance)
    check_process(alpha, prior_variance)


def _verdict_of_pairs(
    ours: Sequence[float],
    theirs: Sequence[float],
    margin: float | None,
    alpha: float,
    direction: Direction,
    prior_variance: float,
    notes: list[str],
) -> Verdict:
    """As `_verdict`, with the rounding of differences known from the values themselves."""
    import numpy as np

    largest = np.maximum.accumulate(np.maximum(np.abs(ours), np.abs(theirs)))
    rounding = 8 * np.finfo(float).eps * largest
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    return _verdict(differences, margin, alpha, direction, prior_variance, notes, rounding)


def _verdict(
    sample: NDArray[np.float64],
    margin: float | None,
    alpha: float,
    direction: Direction,
    prior_variance: float,
    notes: list[str],
    rounding: ArrayLike | None = None,
) -> Verdict:
    """The verdict on finite differences; `notes` are what is already known about them."""
    n, possible = sample.size, seeds_possible(alpha, prior_variance)
    verdict = Verdict(
        decision="undecided",
        interval=None,
        e_value=None,
        n=n,
        decided_at=None,
        seeds_possible=possible,
        mean=None,
        alpha=alpha,
        margin=margin,
        direction=direction,
        prior_variance=prior_variance,
    )
    if n < possible:
        notes = [*notes, f"n = {n}: no decision is possible before {possible} differences"]
    if n == 0:
        return replace(verdict, notes=tuple(notes))
    sequence = confidence_sequence(sample, alpha, prior_variance, rounding)
    at, kind = (int(value) for value in first_crossings(sequence, alpha, margin))
    mean, low, high, log_e = (
        float(values[-1]) for values in (sequence.mean, sequence.low, sequence.high, sequence.log_e)
    )
    if at:
        better = -badness(direction)
        verdict = replace(
            verdict, decision="equivalent" if kind == 0 else "better" if kind == better else "worse", decided_at=at
        )
    if math.isfinite(low) and low <= high:
        interval = Interval(mean, low, high, 1 - alpha, "mixture t, running intersection", n)
        verdict = replace(verdict, interval=interval)
    notes = [*notes, *_remarks(verdict, low, high, log_e, mean)]
    e_value = None if math.isnan(log_e) else math.inf if log_e > _LARGEST_LOG else math.exp(log_e)
    return replace(verdict, mean=mean, e_value=e_value, notes=tuple(notes))


_LARGEST_LOG = 709.0
"""Beyond it exp is infinite in double precision."""


def _remarks(verdict: Verdict, low: float, high: float, log_e: float, mean: float) -> list[str]:
    """What a reader must know beside the decision."""
    notes = []
    n, margin = verdict.n, verdict.margin
    if math.isnan(log_e):
        same = f"identical in all {n} blocks" if mean == 0 else f"the difference is the same in all {n} blocks"
        notes.append(f"zero variance: {same}, so no test can weigh it; check that the blocks are different runs")
    if low > high:
        notes.append(
            "the interval is empty: no mean agrees with every prefix, so the differences drift or are far from normal; "
            "do not trust the decision before looking at them in order"
        )
    differs = low > 0 or high < 0
    within = margin is not None and -margin < low <= high < margin
    if differs and within:
        notes.append(YET_DIFFERENT)
    if verdict.decision in ("better", "worse") and not math.isnan(log_e) and log_e < -math.log(verdict.alpha):
        notes.append(
            f"the e-process has fallen below {1 / verdict.alpha:g} since it decided; the first crossing is the decision"
        )
    return notes
