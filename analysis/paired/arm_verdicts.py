"""What is found of one arm: its numbers, its verdict, and how many blocks would decide it.

Called by `significance`, which reads the table and corrects over the arms.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

from stackwise_ray.core.errors import AnalysisError

from ..table.blocks import Pairing
from .answer_words import Decision
from .comparison import FEWEST_BLOCKS, YET_DIFFERENT, YET_WORSE, ArmComparison, ClaimTest
from .deciding_tests import (
    Alternative,
    Test,
    fewest_to_reject,
    paired_t,
    ranked_differences,
    sign_flip_p,
    smallest_sign_flip_p,
    wilcoxon_p,
)
from .effect_sizes import cliffs_delta, hedges_g, probability_of_improvement
from .hypotheses import Asked, Claim
from .intervals import MOST_EXACT_RANKS, Interval, bca_interval, sign_flip_interval, t_interval, walsh_interval
from .power import MOST_SEEDS, equivalence_power, minimum_detectable_effect, seeds_needed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


PLANNED_POWER = 0.8
"""Power behind the minimum detectable effect and the seeds still needed."""


def measured(pairing: Pairing, metric: str, name: str, test: Test, asked: Asked, alpha: float) -> ArmComparison:
    """Everything about one arm that does not depend on the others: all but the adjusted p and the verdict."""
    import numpy as np

    blocks, ours, theirs = pairing.pairs(name)
    differences = np.asarray(ours) - np.asarray(theirs)
    n, values = len(blocks), pairing.values[name]
    result = ArmComparison(
        metric=metric,
        arm=name,
        n=n,
        blocks=tuple(blocks),
        values=dict(values),
        differences=tuple(float(value) for value in differences),
        mean=float(np.mean(list(values.values()))) if values else None,
        difference=float(differences.mean()) if n else None,
        missing=tuple(pairing.lost(name)),
    )
    if n == 0:
        return result
    sides, alternative, threshold = (1, asked.main.alternative, asked.main.threshold) if asked.claims else _TWO_SIDES
    result = result.with_values(
        cliffs_delta=cliffs_delta(ours, theirs),
        probability_of_improvement=probability_of_improvement(differences, minimize=asked.direction == "minimize"),
        p_sign_flip=sign_flip_p(differences - threshold, alternative=alternative),
        smallest_p_sign_flip=smallest_sign_flip_p(n, sides),
    )
    if n == 1:
        return result
    sd = float(differences.std(ddof=1))
    # rounding leaves a spread of a few ulp on differences that are equal: no noise was observed
    if sd <= 8 * np.finfo(float).eps * max(np.abs(ours).max(), np.abs(theirs).max()):
        return result.with_values(sd_difference=0.0)
    narrow = _interval(differences, test, 1 - 2 * alpha)
    claims = tuple(_tested(claim, differences, test) for claim in asked.claims)
    interval = _interval(differences, test, 1 - alpha)
    if claims:
        interval = None if narrow is None else _one_sided(narrow, asked, alpha)
    return result.with_values(
        sd_difference=sd,
        interval=interval,
        equivalence_interval=None if claims else narrow,
        claims=claims,
        p=_p(differences - threshold, test, alternative),
        p_equivalence=_equivalence_p(differences, asked) if test == "t" else None,
        bca=None if claims else bca_interval(differences, 1 - alpha),
        hedges_g=hedges_g(differences),
        minimum_detectable_effect=minimum_detectable_effect(sd, n=n, power=PLANNED_POWER, alpha=alpha, sides=sides),
        notes=_of_ranks(differences - threshold) if test == "wilcoxon" else (),
    )


_TWO_SIDES: tuple[int, Alternative, float] = (2, "two-sided", 0.0)


def _p(differences: NDArray[np.float64], test: Test, alternative: Alternative) -> float:
    if test == "t":
        return float(paired_t(differences, alternative))
    if test == "sign_flip":
        return sign_flip_p(differences, alternative=alternative)
    return wilcoxon_p(differences, alternative)


def _interval(differences: NDArray[np.float64], test: Test, level: float) -> Interval | None:
    """The means that the two-sided test does not reject at 1 − level: each end is a one-sided bound at half of it."""
    make = {"t": t_interval, "sign_flip": sign_flip_interval, "wilcoxon": walsh_interval}[test]
    found: Interval | None = make(differences, level)
    return found


def _one_sided(narrow: Interval, asked: Asked, alpha: float) -> Interval:
    """The 1 − 2α interval of two one-sided bounds, or the one bound that is asked for, then at 1 − α."""
    low, high = asked.ends(narrow.low, narrow.high)
    both = len(asked.claims) > 1
    level, method = (1 - 2 * alpha, narrow.method) if both else (1 - alpha, f"{narrow.method}, one-sided")
    return Interval(narrow.estimate, low, high, level, method, narrow.n)


def _tested(claim: Claim, differences: NDArray[np.float64], test: Test) -> ClaimTest:
    p = _p(differences - claim.threshold, test, claim.alternative)
    return ClaimTest(decision=claim.decision, threshold=claim.threshold, alternative=claim.alternative, p=p)


def _equivalence_p(differences: NDArray[np.float64], asked: Asked) -> float | None:
    """The p of two one-sided t tests that the mean lies outside ± margin; None: no margin is asked for."""
    from scipy.special import stdtr

    if asked.equivalence is None:
        return None
    error = float(differences.std(ddof=1)) / math.sqrt(differences.size)
    return float(stdtr(differences.size - 1, (abs(float(differences.mean())) - asked.equivalence) / error))


def _of_ranks(differences: NDArray[np.float64]) -> tuple[str, ...]:
    """What a reader must know of a signed-rank test: dropped zeros, ties, and whether it is exact."""
    ranked, zeros, tied = ranked_differences(differences)
    notes = []
    if zeros:
        notes.append(f"{zeros} differences of 0 are dropped from the ranks (Wilcoxon's way)")
    if tied:
        notes.append(f"{tied} differences share their size with another and have mean ranks")
    if ranked.size > MOST_EXACT_RANKS:
        notes.append(f"more than {MOST_EXACT_RANKS} differences: p by the normal approximation")
    return tuple(notes)


def decide(result: ArmComparison, asked: Asked, *, test: Test, alpha: float, planning_alpha: float) -> ArmComparison:
    """`result` with its verdict, the reasons as notes, and the blocks still needed where it is undecided."""
    notes = [*result.notes, *(["conditional on survival: blocks are missing"] if result.missing else [])]
    if result.n < FEWEST_BLOCKS:
        blocks = "1 complete block" if result.n == 1 else "no complete block"
        notes.append(f"{blocks}; {FEWEST_BLOCKS} are the least for a verdict")
        return result.with_values(verdict="undecided", notes=tuple(notes))
    if result.sd_difference == 0:
        return _without_variance(result, asked, notes)
    verdict, differs = _claimed(result, alpha) if asked.claims else _two_sided(result, asked, alpha)
    if differs and verdict == "equivalent":
        notes.append(YET_DIFFERENT)
    if differs and verdict == "non_inferior":
        notes.append(YET_WORSE)
    if result.interval is None:
        notes.append(f"{result.n} blocks are too few for a finite interval of this test")
    elif verdict == "undecided" and _uncorrected(result, alpha):
        alone = "one test alone would decide" if asked.claims else "the interval leaves 0 out"
        notes.append(f"{alone}, the correction over the arms does not allow the verdict")
    more = None
    if verdict == "undecided":
        more = _more_seeds(result, asked, test, alpha, planning_alpha)
        if more is None:
            notes.append(_out_of_reach(result, asked))
    return result.with_values(
        verdict=verdict,
        notes=tuple(notes),
        more_seeds=more,
        yet_different=differs and verdict in ("equivalent", "non_inferior"),
    )


def _two_sided(result: ArmComparison, asked: Asked, alpha: float) -> tuple[Decision, bool]:
    """The verdict of the two-sided test and of equivalence, and whether a difference was found."""
    narrow, margin = result.equivalence_interval, asked.equivalence
    assert result.difference is not None
    assert result.p_adjusted is not None
    differs = result.p_adjusted <= alpha
    if margin is not None and narrow is not None and -margin < narrow.low and narrow.high < margin:
        return "equivalent", differs
    if not differs:
        return "undecided", False
    return ("better" if (result.difference < 0) == (asked.direction == "minimize") else "worse"), True


def _claimed(result: ArmComparison, alpha: float) -> tuple[Decision, bool]:
    """The first one-sided claim that holds, and whether an arm that is not inferior is worse all the same."""
    for claim in result.claims:
        if claim.p_adjusted is not None and claim.p_adjusted <= alpha:
            if claim.decision != "non_inferior" or result.interval is None:
                return claim.decision, False
            low, high = result.interval.low, result.interval.high
            return claim.decision, low > 0 if claim.alternative == "less" else high < 0
    return "undecided", False


def _uncorrected(result: ArmComparison, alpha: float) -> bool:
    """Whether the test itself would decide, without the correction over the arms."""
    if result.claims:
        return any(claim.p <= alpha for claim in result.claims)
    return result.interval is not None and not result.interval.low <= 0 <= result.interval.high


def _without_variance(result: ArmComparison, asked: Asked, notes: list[str]) -> ArmComparison:
    verdict: Decision = "undecided"
    if result.difference == 0:
        notes.append(f"identical in all {result.n} blocks")
        if asked.margin is not None:
            verdict = "non_inferior" if asked.claims else "equivalent"
    else:
        notes.append(
            f"zero variance: the difference is the same in all {result.n} blocks, so no test can weigh it; check that "
            f"the blocks are different runs"
        )
    return result.with_values(verdict=verdict, notes=tuple(notes), p_adjusted=None)


def _more_seeds(result: ArmComparison, asked: Asked, test: Test, alpha: float, planning_alpha: float) -> int | None:
    """Blocks beyond these until the t test decides with 80 % power, if what was observed is the truth.

    The permutation tests need about as many (their efficiency is near one), and never fewer than let them reject.
    """
    sd, observed = result.sd_difference, result.difference
    assert sd is not None
    assert observed is not None
    sides = 1 if asked.claims else 2
    fewest = 2 if test == "t" else fewest_to_reject(planning_alpha, sides)
    # how far the truth lies on the side of each claim, if it is as observed
    effects = [(claim.threshold - observed) * (1 if claim.alternative == "less" else -1) for claim in asked.claims] or [
        abs(observed)
    ]
    needed = []
    for effect in effects:
        if effect <= 0:
            continue
        with suppress(AnalysisError):  # beyond MOST_SEEDS; another claim may still be within reach
            planned = seeds_needed(sd, effect=effect, power=PLANNED_POWER, alpha=planning_alpha, sides=sides)
            needed.append(max(planned, fewest))
    margin = asked.equivalence
    if margin is not None and abs(observed) < margin:
        n = max(result.n, 2 if test == "t" else fewest_to_reject(2 * alpha))
        while n <= MOST_SEEDS:
            reached = equivalence_power(sd, effect=observed, margin=margin, n=n, alpha=alpha)
            if reached >= PLANNED_POWER:
                needed.append(n)
                break
            n += max(1, n // 20)  # 5 % steps: the count is a plan, not a measurement
    return max(1, min(needed) - result.n) if needed else None


def _out_of_reach(result: ArmComparison, asked: Asked) -> str:
    """Why no number of seeds is given."""
    side = asked.side
    if side != "both" and result.difference is not None:
        found = (result.difference < 0) == (asked.main.alternative == "less")
        if not found:
            return f"the observed difference is not on the side that is asked for ({side})"
    return f"at the observed difference and noise more than {MOST_SEEDS:,} seeds would be needed"
