"""Verdicts that may be looked at after every block, on one arm or on all arms of a table.

`sequential_verdict` and `compare_sequentially` are the public face; what is computed stands in `e_process`, what is
found in `verdict`. For a number of blocks that was fixed beforehand `significance.compare` is sharper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stackwise_ray.core.comparison_records import Hypothesis, Side, required_budget
from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import badness

from ..paired.answer_words import Decision
from ..paired.comparison import YET_DIFFERENT, YET_WORSE
from ..paired.hypotheses import Asked
from ..paired.intervals import Interval
from ..table.blocks import check_goal, pair, resolve
from .e_process import (
    PRIOR_VARIANCE,
    ConfidenceSequence,
    check_process,
    confidence_sequence,
    first_crossings,
    seeds_possible,
)
from .one_sided import first_claims, one_sided_seeds_possible, one_sided_sequence
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
    hypothesis: Hypothesis = "different",
    side: Side = "both",
) -> Verdict:
    """The verdict on one arm after these blocks, valid however often one looked before.

    Args:
        differences: arm − baseline, one per block, in the order they came (the order matters: the interval is the
            intersection over all prefixes). Values that are not finite are left out with a note.
        margin: Largest difference that does not matter, declared beforehand; None: equivalence is not tested.
        alpha: Bound on the probability of ever deciding wrongly; for non-inferiority, of each kind of claim.
        hypothesis, side: As in `compare`; one-sided verdicts have a one-sided e-process (`one_sided`).
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
    asked = Asked(direction=direction, hypothesis=hypothesis, side=side, margin=margin)
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
    return _verdict(sample[finite], asked, alpha, prior_variance, notes)


def compare_sequentially(
    table: pd.DataFrame,
    metric: str,
    baseline: str | None = None,
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
    *,
    target: float | None = None,
    hypothesis: Hypothesis = "different",
    side: Side = "both",
) -> SequentialComparison:
    """Every arm against the baseline or a target, anytime-valid; the arguments are those of `compare`.

    Blocks count in the order of the start times of their runs (a column started_at, start_time, Created, …), else of
    their labels where these hold numbers (seed 2 before seed 10), else of the rows, which the sentence then says.

    Args:
        correction: "bonferroni" (each of m arms at level α/m) or None (each at α).
        alpha: Bound on the probability that any arm is ever decided wrongly; for non-inferiority, by each kind of
            claim.
        prior_variance: As in `sequential_verdict`.
        family: How many arms were to be compared, where not all of them may be in the table; None: those that are.
        assumed: As in `compare`.

    Raises:
        AnalysisError: As `compare` does, and where the rows are the only order and are sorted by the metric.
    """
    if (correction or "none") not in CORRECTIONS:
        raise AnalysisError(f"correction = '{correction}' is not known; {did_you_mean(str(correction), CORRECTIONS)}")
    direction, assumed, equal = *resolve(table, metric, direction, assumed), required_budget(equal)
    equal = None if target is not None else equal
    check_arguments(margin=margin, alpha=alpha, direction=direction, prior_variance=prior_variance, tolerance=tolerance)
    asked = Asked(direction=direction, hypothesis=hypothesis, side=side, margin=margin)
    pairing = pair(
        table,
        metric,
        baseline,
        arm=arm,
        block=block,
        equal=equal,
        tolerance=tolerance,
        target=target,
        ordered=True,
    )
    count, notes_of_family = pairing.family(family)
    level = alpha / count if correction not in (None, "none") else alpha
    verdicts, blocks = {}, {}
    for name in pairing.arms:
        places, ours, theirs = pairing.pairs(name)
        notes = ["conditional on survival: blocks are missing"] if pairing.lost(name) else []
        found = _verdict_of_pairs(ours, theirs, asked, level, prior_variance, notes)
        verdicts[name] = replace(found, metric=metric)
        blocks[name] = tuple(places)
    return SequentialComparison(
        metric=metric,
        baseline=baseline,
        target=target,
        hypothesis=hypothesis,
        side=side,
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
    asked: Asked,
    alpha: float,
    prior_variance: float,
    notes: list[str],
) -> Verdict:
    """As `_verdict`, with the rounding of differences known from the values themselves."""
    import numpy as np

    largest = np.maximum.accumulate(np.maximum(np.abs(ours), np.abs(theirs)))
    rounding = 8 * np.finfo(float).eps * largest
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    return _verdict(differences, asked, alpha, prior_variance, notes, rounding)


def _verdict(
    sample: NDArray[np.float64],
    asked: Asked,
    alpha: float,
    prior_variance: float,
    notes: list[str],
    rounding: ArrayLike | None = None,
) -> Verdict:
    """The verdict on finite differences; `notes` are what is already known about them."""
    n, possible = sample.size, least_seeds(asked, alpha, prior_variance)
    verdict = Verdict(
        decision="undecided",
        interval=None,
        e_value=None,
        n=n,
        decided_at=None,
        seeds_possible=possible,
        mean=None,
        alpha=alpha,
        margin=asked.margin,
        hypothesis=asked.hypothesis,
        side=asked.side,
        direction=asked.direction,
        prior_variance=prior_variance,
    )
    if n < possible:
        notes = [*notes, f"n = {n}: no decision is possible before {possible} differences"]
    if n == 0:
        return replace(verdict, notes=tuple(notes))
    sequence, at, decision = _decided(sample, asked, alpha, prior_variance, rounding)
    mean, low, high, log_e = (
        float(values[-1]) for values in (sequence.mean, sequence.low, sequence.high, sequence.log_e)
    )
    if at:
        verdict = replace(verdict, decision=decision, decided_at=at)
    shown = asked.ends(low, high)
    if any(map(math.isfinite, shown)) and low <= high:
        level = 1 - 2 * alpha if len(asked.claims) > 1 else 1 - alpha
        form = "one-sided mixture t" if asked.claims else "mixture t"
        verdict = replace(verdict, interval=Interval(mean, *shown, level, f"{form}, running intersection", n))
    notes = [*notes, *_remarks(verdict, asked, sequence)]
    e_value = None if math.isnan(log_e) else math.inf if log_e > _LARGEST_LOG else math.exp(log_e)
    return replace(verdict, mean=mean, e_value=e_value, notes=tuple(notes))


_LARGEST_LOG = 709.0
"""Beyond it exp is infinite in double precision."""


def least_seeds(asked: Asked, alpha: float, prior_variance: float = PRIOR_VARIANCE) -> int:
    """First n at which any decision is possible, on two sides or on one."""
    return (one_sided_seeds_possible if asked.claims else seeds_possible)(alpha, prior_variance)


def _decided(
    sample: NDArray[np.float64], asked: Asked, alpha: float, prior_variance: float, rounding: ArrayLike | None
) -> tuple[ConfidenceSequence, int, Decision]:
    """The sequence of the question, the n of the first crossing (0: none), and what it decides."""
    if asked.claims:
        sequence = one_sided_sequence(sample, asked.main, alpha, prior_variance, rounding)
        at, place = (int(value) for value in first_claims(sequence, asked.claims))
        if not at:
            return sequence, 0, "undecided"
        better = int(first_claims(sequence, asked.claims[:1])[0])
        if asked.claims[place].decision == "non_inferior" and better:  # says more, and does not take it back
            return sequence, better, "better"
        return sequence, at, asked.claims[place].decision
    sequence = confidence_sequence(sample, alpha, prior_variance, rounding)
    at, kind = (int(value) for value in first_crossings(sequence, alpha, asked.margin))
    if not at:
        return sequence, 0, "undecided"
    return sequence, at, "equivalent" if kind == 0 else "better" if kind == -badness(asked.direction) else "worse"


def _remarks(verdict: Verdict, asked: Asked, sequence: ConfidenceSequence) -> list[str]:
    """What a reader must know beside the decision."""
    mean, low, high, log_e = (
        float(values[-1]) for values in (sequence.mean, sequence.low, sequence.high, sequence.log_e)
    )
    notes = []
    n, margin = verdict.n, asked.equivalence
    if math.isnan(log_e):
        same = f"identical in all {n} blocks" if mean == 0 else f"the difference is the same in all {n} blocks"
        notes.append(f"zero variance: {same}, so no test can weigh it; check that the blocks are different runs")
    if low > high:
        notes.append(
            "the interval is empty: no mean agrees with every prefix, so the differences drift or are far from normal; "
            "do not trust the decision before looking at them in order"
        )
    differs = low > 0 or high < 0
    if differs and margin is not None and -margin < low <= high < margin:
        notes.append(YET_DIFFERENT)
    if asked.hypothesis == "non_inferior" and verdict.decided_at:
        notes += _beside_the_decision(verdict, asked, sequence)
    decided = ("better", "worse") if not asked.claims else (asked.main.decision,)
    if verdict.decision in decided and not math.isnan(log_e) and log_e < -math.log(verdict.alpha):
        notes.append(
            f"the e-value has fallen below {1 / verdict.alpha:.4g} since it decided; the first crossing is the decision"
        )
    return notes


def _beside_the_decision(verdict: Verdict, asked: Asked, sequence: ConfidenceSequence) -> list[str]:
    """When a better arm was known to be non-inferior, and whether a non-inferior one is worse all the same."""
    if verdict.decision == "better":
        first = int(first_claims(sequence, asked.claims[1:2])[0])
        return [f"non-inferior from n = {first} on"] if first < (verdict.decided_at or 0) else []
    worse = sequence.low > 0 if asked.main.alternative == "less" else sequence.high < 0
    return [YET_WORSE] if verdict.decision == "non_inferior" and worse.any() else []
