"""Is an arm better than the baseline? Paired comparisons with one deciding test, intervals and a verdict each.

`compare` is the public face; `sweep`, `report` and the command line call it. Pairing and refusals live in `blocks`,
intervals in `intervals`, the result and its renderings in `comparison`.

What decides: the two-sided paired t test (hypothesis: the mean difference arm − baseline is 0; assumption: normal
differences), its p corrected over the arms. Equivalence: two one-sided tests (hypothesis: the true difference lies
outside ±margin), by the 1 − 2α interval of the same test. All other numbers stand beside them and decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from stackwise_ray.core.comparison_records import ResolvedComparison, required_budget
from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric import Direction

from ..table.blocks import Pairing, check_goal, check_level, pair, resolve
from ..table.outlier_search import outliers_of_arms
from .answer_words import Decision
from .comparison import FEWEST_BLOCKS, YET_DIFFERENT, ArmComparison, Comparison
from .effect_sizes import cliffs_delta, hedges_g, probability_of_improvement
from .intervals import (
    MOST_EXACT_BLOCKS,
    Interval,
    bca_interval,
    rank_sum_probabilities,
    sign_flip_interval,
    t_interval,
    walsh_interval,
)
from .power import MOST_SEEDS, equivalence_power, minimum_detectable_effect, seeds_needed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

Test = Literal["t", "sign_flip", "wilcoxon"]
CORRECTIONS = ("holm", "bonferroni", "benjamini_hochberg", "none")
MOST_EXACT_RANKS = 50
PLANNED_POWER = 0.8
"""Power behind the minimum detectable effect and the seeds still needed."""


def compare(
    table: pd.DataFrame,
    metric: str,
    baseline: str,
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
) -> Comparison:
    """Every arm against the baseline on one metric, paired by block.

    Args:
        table: One row per run, e.g. from `load_runs`. Rows of another role than "replicate" or another status than
            "finished" are left out with a note, where these columns exist.
        metric: Column to compare.
        baseline: The arm that the others are compared with.
        arm: Column with the arms.
        block: Column that pairs runs, or several (seed and item).
        correction: Over the arms: "holm", "bonferroni", "benjamini_hochberg" or None.
        margin: Largest difference that does not matter, in the metric's unit, declared beforehand; None: equivalence
            is not tested.
        direction: Whether small ("minimize") or large values are good; None: what the metric's record says, and
            where it has none, small ones, which the sentence calls assumed.
        test: What decides: "t", "sign_flip" (exact to 2^16) or "wilcoxon".
        equal: Budget that must agree in every pair: "flops", "tokens", "wall_seconds", "peak_bytes"; None: none.
        tolerance: Largest relative difference of budgets.
        alpha: Level of the test after correction, and of each one-sided equivalence test.
        family: How many arms were to be compared, where not all of them may be in the table; None: those that are.
        assumed: Whether `direction` was assumed already, by whoever resolved the comparison.

    Returns:
        A `Comparison`, one `ArmComparison` per arm.

    Raises:
        AnalysisError: A column or arm that is not there, two differing runs of one arm in one block, mixed data
            fingerprints, unequal budgets, text among the numbers, or an argument outside its range.

    Source: Student (1908); Holm (1979); Schuirmann (1987); Fisher (1935) for sign flips.
    """
    direction, assumed, equal = *resolve(metric, direction, assumed), required_budget(equal)
    _check_arguments(correction, margin, direction, test, alpha, tolerance)
    pairing = pair(table, metric, baseline, arm=arm, block=block, equal=equal, tolerance=tolerance)
    count, notes_of_family = pairing.family(family)
    results = [_compare_arm(pairing, metric, name, test, margin, direction, alpha) for name in list(pairing.values)[1:]]
    absent = [None] * (count - len(results))
    adjusted = adjust_p([*(result.p for result in results), *absent], correction)[: len(results)]
    # sharpest level that an arm may meet, so the number of seeds asked for is enough wherever it stands in the order
    strict = alpha / count if correction not in (None, "none") else alpha
    decided = tuple(
        decide(result, p, test=test, margin=margin, direction=direction, alpha=alpha, planning_alpha=strict)
        for result, p in zip(results, adjusted, strict=True)
    )
    return Comparison(
        metric=metric,
        baseline=baseline,
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
        arms=decided,
        baseline_values=dict(pairing.values[baseline]),
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
        "margin",
        "equal",
        "tolerance",
        "alpha",
        "correction",
        "test",
    )
    return {**{name: getattr(asked, name) for name in names}, "family": len(asked.family)}


def adjust_p(p_values: Sequence[float | None], correction: str | None) -> list[float | None]:
    """Adjusted p values over the declared family; one that could not be computed (None, nan) counts as 1 and is None.

    The same numbers as statsmodels' `multipletests`, which costs a second of import and a garbage collection a call.

    Source: Holm (1979); Benjamini and Hochberg (1995).

    >>> adjust_p([0.01, 0.04, None], "holm")
    [0.03, 0.08, None]
    """
    import numpy as np

    known = [None if p is None or math.isnan(p) else p for p in p_values]
    if correction in (None, "none") or not known:
        return known
    filled = np.array([1.0 if p is None else p for p in known])
    m, order = len(filled), np.argsort(filled, kind="stable")
    ordered = filled[order]
    if correction == "holm":
        adjusted = np.maximum.accumulate(ordered * np.arange(m, 0, -1))
    elif correction == "bonferroni":
        adjusted = ordered * m
    else:  # step up: the least of all larger ones
        adjusted = np.minimum.accumulate((ordered * m / np.arange(1, m + 1))[::-1])[::-1]
    back = np.empty(m)
    back[order] = np.minimum(adjusted, 1.0)
    return [None if p is None else float(value) for p, value in zip(known, back, strict=True)]


def paired_t(differences: ArrayLike) -> NDArray[np.float64]:
    """Two-sided p of the t test that the mean of each row (last axis) of differences is 0; nan without variance."""
    import numpy as np
    from scipy.special import stdtr

    samples = np.asarray(differences, dtype=float)
    n = samples.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = samples.mean(axis=-1) / (samples.std(axis=-1, ddof=1) / math.sqrt(n))
    return np.asarray(2 * stdtr(n - 1, -np.abs(statistic)))


def sign_flip_p(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test: share of sign patterns whose |sum| reaches the observed one.

    Hypothesis: each difference is as likely as its negative (symmetry about 0). Exact to n = 16; beyond, 65,535
    random patterns and the observed one, so it is never 0.

    Source: Fisher (1935), The Design of Experiments, §21.
    """
    import numpy as np

    sample = np.asarray(differences, dtype=float)
    n = sample.size
    if n <= MOST_EXACT_BLOCKS:
        codes = np.arange(2**n, dtype=np.int64)
        signs = 1.0 - 2.0 * ((codes[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(2**MOST_EXACT_BLOCKS, n))
        signs[0] = 1.0
    sums = np.abs(signs @ sample)
    slack = 1e-12 * np.abs(sample).sum()  # equal sums may differ in the last bit by the order of addition
    return float((sums >= sums[0] - slack).mean())


def smallest_sign_flip_p(n: int) -> float:
    """The least two-sided p that n blocks allow: 2/2^n, and one of 2^16 patterns beyond n = 16.

    >>> smallest_sign_flip_p(3)
    0.25
    """
    return 0.5 ** (n - 1) if n <= MOST_EXACT_BLOCKS else 1.0 / 2**MOST_EXACT_BLOCKS


def fewest_to_reject(alpha: float) -> int:
    """Fewest blocks with which a sign-flip or signed-rank test can reject at level `alpha` at all.

    >>> fewest_to_reject(0.05)
    6
    """
    return max(2, 1 + math.ceil(-math.log2(alpha) - 1e-12))


def wilcoxon_p(differences: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; differences of 0 are dropped, ties share their mean rank.

    Exact up to 50 differences, with ties as well; beyond, the normal approximation with the correction for ties.

    Source: Wilcoxon (1945); Pratt and Gibbons (1981), Concepts of Nonparametric Theory, §3.6, for the exact form.
    """
    import numpy as np
    from scipy.stats import rankdata, wilcoxon

    sample = np.asarray(differences, dtype=float)
    scale = np.abs(sample).max() or 1.0
    sample = np.round(sample / scale, 12)  # differences that are equal but for rounding are ties
    sample = sample[sample != 0]
    if sample.size > MOST_EXACT_RANKS:
        return float(wilcoxon(sample).pvalue)
    doubled = np.rint(2 * rankdata(np.abs(sample))).astype(int)  # mean ranks are whole or half
    probabilities = rank_sum_probabilities(doubled)
    least = min(int(doubled[sample > 0].sum()), int(doubled[sample < 0].sum()))
    return min(1.0, 2 * float(probabilities[: least + 1].sum()))


def _check_arguments(
    correction: str | None, margin: float | None, direction: str, test: str, alpha: float, tolerance: float
) -> None:
    if (correction or "none") not in CORRECTIONS:
        raise AnalysisError(f"correction = '{correction}' is not known; {did_you_mean(str(correction), CORRECTIONS)}")
    check_goal(direction, margin, tolerance)
    if test not in ("t", "sign_flip", "wilcoxon"):
        raise AnalysisError(f"test = '{test}' is not known; choose t, sign_flip or wilcoxon")
    check_level(alpha)


def _compare_arm(
    pairing: Pairing, metric: str, name: str, test: Test, margin: float | None, direction: Direction, alpha: float
) -> ArmComparison:
    """Everything about one arm that does not depend on the others: all but the adjusted p and the verdict."""
    import numpy as np

    blocks, ours, theirs = pairing.pairs(name)
    differences = np.asarray(ours) - np.asarray(theirs)
    n = len(blocks)
    lost = [item for item in pairing.missing if item.arm in (name, pairing.baseline)]
    result = ArmComparison(
        metric=metric,
        arm=name,
        n=n,
        blocks=tuple(blocks),
        values=dict(pairing.values[name]),
        differences=tuple(float(value) for value in differences),
        mean=float(np.mean(list(pairing.values[name].values()))) if pairing.values[name] else None,
        difference=float(differences.mean()) if n else None,
        missing=tuple(lost),
    )
    if n == 0:
        return result
    result = result.with_values(
        cliffs_delta=cliffs_delta(ours, theirs),
        probability_of_improvement=probability_of_improvement(differences, minimize=direction == "minimize"),
        p_sign_flip=sign_flip_p(differences),
        smallest_p_sign_flip=smallest_sign_flip_p(n),
    )
    if n == 1:
        return result
    sd = float(differences.std(ddof=1))
    # rounding leaves a spread of a few ulp on differences that are equal: no noise was observed
    if sd <= 8 * np.finfo(float).eps * max(np.abs(ours).max(), np.abs(theirs).max()):
        return result.with_values(sd_difference=0.0)
    interval, narrow, p, p_equivalence = _test(differences, test, margin, alpha)
    return result.with_values(
        sd_difference=sd,
        interval=interval,
        equivalence_interval=narrow,
        p=p,
        p_equivalence=p_equivalence,
        bca=bca_interval(differences, 1 - alpha),
        hedges_g=hedges_g(differences),
        minimum_detectable_effect=minimum_detectable_effect(sd, n=n, power=PLANNED_POWER, alpha=alpha),
    )


def _test(
    differences: NDArray[np.float64], test: Test, margin: float | None, alpha: float
) -> tuple[Interval | None, Interval | None, float, float | None]:
    """The 1 − α and the 1 − 2α interval, p, and the p of equivalence (t only), all of the deciding test."""
    if test == "t":
        from scipy.special import stdtr

        p_equivalence = None
        if margin is not None:
            n = differences.size
            error = float(differences.std(ddof=1)) / math.sqrt(n)
            p_equivalence = float(stdtr(n - 1, (abs(float(differences.mean())) - margin) / error))
        return (
            t_interval(differences, 1 - alpha),
            t_interval(differences, 1 - 2 * alpha),
            float(paired_t(differences)),
            p_equivalence,
        )
    if test == "sign_flip":
        wide, narrow = (sign_flip_interval(differences, level) for level in (1 - alpha, 1 - 2 * alpha))
        return wide, narrow, sign_flip_p(differences), None
    return (
        walsh_interval(differences, 1 - alpha),
        walsh_interval(differences, 1 - 2 * alpha),
        wilcoxon_p(differences),
        None,
    )


def decide(
    result: ArmComparison,
    p_adjusted: float | None,
    *,
    test: Test,
    margin: float | None,
    direction: Direction,
    alpha: float,
    planning_alpha: float,
) -> ArmComparison:
    """`result` with its verdict, the reasons as notes, and the blocks still needed where it is undecided."""
    notes = ["conditional on survival: blocks are missing"] if result.missing else []
    if result.n < FEWEST_BLOCKS:
        blocks = "1 complete block" if result.n == 1 else "no complete block"
        notes.append(f"{blocks}; {FEWEST_BLOCKS} are the least for a verdict")
        return result.with_values(verdict="undecided", notes=tuple(notes))
    if result.sd_difference == 0:
        return _without_variance(result, margin, notes)
    difference, narrow = result.difference, result.equivalence_interval
    assert difference is not None
    assert p_adjusted is not None
    differs = p_adjusted <= alpha
    within = margin is not None and narrow is not None and -margin < narrow.low and narrow.high < margin
    verdict: Decision = "undecided"
    if within:
        verdict = "equivalent"
        if differs:
            notes.append(YET_DIFFERENT)
    elif differs:
        verdict = "better" if (difference < 0) == (direction == "minimize") else "worse"
    if result.interval is None:
        notes.append(f"{result.n} blocks are too few for a finite interval of this test")
    elif verdict == "undecided" and not result.interval.low <= 0 <= result.interval.high:
        notes.append("the interval leaves 0 out, the correction over the arms does not allow the verdict")
    more = None
    if verdict == "undecided":
        more = _more_seeds(result, test, margin, alpha, planning_alpha)
        if more is None:
            notes.append(f"at the observed difference and noise more than {MOST_SEEDS:,} seeds would be needed")
    return result.with_values(
        p_adjusted=p_adjusted,
        verdict=verdict,
        notes=tuple(notes),
        more_seeds=more,
        yet_different=within and differs,
    )


def _without_variance(result: ArmComparison, margin: float | None, notes: list[str]) -> ArmComparison:
    verdict: Decision = "undecided"
    if result.difference == 0:
        notes.append(f"identical in all {result.n} blocks")
        verdict = "equivalent" if margin is not None else "undecided"
    else:
        notes.append(
            f"zero variance: the difference is the same in all {result.n} blocks, so no test can weigh it; check that "
            f"the blocks are different runs"
        )
    return result.with_values(verdict=verdict, notes=tuple(notes))


def _more_seeds(
    result: ArmComparison, test: Test, margin: float | None, alpha: float, planning_alpha: float
) -> int | None:
    """Blocks beyond those at hand until the t test decides with 80 % power, if what was observed is the truth.

    The permutation tests need about as many (their efficiency is near one), and never fewer than let them reject.
    """
    assert result.sd_difference is not None
    assert result.difference is not None
    fewest = 2 if test == "t" else fewest_to_reject(planning_alpha)
    needed = []
    if result.difference != 0:
        with suppress(AnalysisError):  # beyond MOST_SEEDS; equivalence may still be within reach
            planned = seeds_needed(
                result.sd_difference, effect=result.difference, power=PLANNED_POWER, alpha=planning_alpha
            )
            needed.append(max(planned, fewest))
    if margin is not None and abs(result.difference) < margin:
        n = max(result.n, 2 if test == "t" else fewest_to_reject(2 * alpha))
        while n <= MOST_SEEDS:
            reached = equivalence_power(result.sd_difference, effect=result.difference, margin=margin, n=n, alpha=alpha)
            if reached >= PLANNED_POWER:
                needed.append(n)
                break
            n += max(1, n // 20)  # 5 % steps: the count is a plan, not a measurement
    return max(1, min(needed) - result.n) if needed else None
