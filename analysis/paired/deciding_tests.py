"""Tests of paired differences, two-sided and one-sided, and what corrects their p values over the arms.

Called by `significance`, `items`, `ranking`, `simulation` and the certificate of a law. Each takes differences from
what the null says (0, or a margin taken off before), and none of them knows an arm or a direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from .intervals import MOST_EXACT_BLOCKS, MOST_EXACT_RANKS, rank_sum_probabilities, sign_patterns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Test = Literal["t", "sign_flip", "wilcoxon"]
Alternative = Literal["two-sided", "less", "greater"]
"""What a small p speaks for: a mean that is not 0, below 0 or above 0."""
_CHUNK = 4_000_000
"""Signs held at once."""


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


def paired_t(differences: ArrayLike, alternative: Alternative = "two-sided") -> NDArray[np.float64]:
    """p of the t test that the mean of each row (last axis) of differences is 0; nan without variance."""
    import numpy as np
    from scipy.special import stdtr

    samples = np.asarray(differences, dtype=float)
    n = samples.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = samples.mean(axis=-1) / (samples.std(axis=-1, ddof=1) / math.sqrt(n))
    if alternative == "two-sided":
        return np.asarray(2 * stdtr(n - 1, -np.abs(statistic)))
    return np.asarray(stdtr(n - 1, statistic if alternative == "less" else -statistic))


def sign_flip_p(differences: ArrayLike, seed: int = 0, alternative: Alternative = "two-sided") -> float:
    """p of the sign-flip test: share of sign patterns whose sum (|sum| for two sides) goes as far as the observed one.

    Hypothesis: each difference is as likely as its negative (symmetry about 0). Exact to n = 16; beyond, random
    patterns and the observed one (`sign_patterns` in all), so it is never 0.

    Source: Fisher (1935), The Design of Experiments, §21.
    """
    import numpy as np

    sample = np.asarray(differences, dtype=float)
    n, observed = sample.size, float(np.sum(sample))

    def distance(sums: NDArray[np.float64] | float) -> Any:
        return np.abs(sums) if alternative == "two-sided" else -sums if alternative == "less" else sums

    slack = 1e-12 * np.abs(sample).sum()  # equal sums may differ in the last bit by the order of addition
    goal, count = distance(observed) - slack, sign_patterns(n)
    if n <= MOST_EXACT_BLOCKS:
        codes = np.arange(2**n, dtype=np.int64)
        signs = 1.0 - 2.0 * ((codes[:, None] >> np.arange(n)) & 1)
        return float((distance(signs @ sample) >= goal).mean())
    rng, reached = np.random.default_rng(seed), 1
    step = max(1, _CHUNK // n)
    for start in range(1, count, step):
        signs = rng.choice([-1.0, 1.0], size=(min(step, count - start), n))
        reached += int((distance(signs @ sample) >= goal).sum())
    return reached / count


def smallest_sign_flip_p(n: int, sides: int = 2) -> float:
    """The least p that n blocks allow: 2/2^n (one-sided 1/2^n), and one of the patterns drawn beyond n = 16.

    >>> smallest_sign_flip_p(3), smallest_sign_flip_p(3, sides=1)
    (0.25, 0.125)
    """
    return (sides if n <= MOST_EXACT_BLOCKS else 1) / sign_patterns(n)


def fewest_to_reject(alpha: float, sides: int = 2) -> int:
    """Fewest blocks with which a sign-flip or signed-rank test can reject at level `alpha` at all.

    >>> fewest_to_reject(0.05), fewest_to_reject(0.05, sides=1)
    (6, 5)
    """
    return max(2, math.ceil(math.log2(sides) - math.log2(alpha) - 1e-12))


def wilcoxon_p(differences: ArrayLike, alternative: Alternative = "two-sided") -> float:
    """p of Wilcoxon's signed-rank test that the differences are symmetric about 0.

    Differences of 0 are dropped, as Wilcoxon did (Pratt ranks them first); ties share their mean rank. Exact up to
    500 differences, with ties as well, by the distribution of the sum of twice the ranks, which are whole numbers;
    beyond, the normal approximation with the correction for ties.

    Source: Wilcoxon (1945); Pratt and Gibbons (1981), Concepts of Nonparametric Theory, §3.6, for the exact form.

    >>> wilcoxon_p([1.0, 1.0, 2.0, 3.0, 3.0]), wilcoxon_p([1.0, 1.0, 2.0, 3.0, 3.0], "greater")
    (0.0625, 0.03125)
    """
    import numpy as np
    from scipy.stats import rankdata, wilcoxon

    sample, _, _ = ranked_differences(differences)
    if sample.size == 0:
        return 1.0
    if sample.size > MOST_EXACT_RANKS:
        return float(wilcoxon(sample, alternative=alternative, method="approx").pvalue)
    doubled = np.rint(2 * rankdata(np.abs(sample))).astype(int)  # mean ranks are whole or half
    probabilities = rank_sum_probabilities(doubled)
    above, below = int(doubled[sample > 0].sum()), int(doubled[sample < 0].sum())
    if alternative == "two-sided":
        return min(1.0, 2 * float(probabilities[: min(above, below) + 1].sum()))
    return min(1.0, float(probabilities[: (above if alternative == "less" else below) + 1].sum()))


def ranked_differences(differences: ArrayLike) -> tuple[NDArray[np.float64], int, int]:
    """The differences that a signed-rank test ranks, how many of 0 it drops, and how many others share their size.

    Those that are equal but for rounding (to twelve digits of the largest) are equal.
    """
    import numpy as np

    sample = np.asarray(differences, dtype=float)
    scale = np.abs(sample).max(initial=0.0) or 1.0
    sample = np.round(sample / scale, 12)
    ranked = sample[sample != 0]
    counts = np.unique(np.abs(ranked), return_counts=True)[1]
    return ranked, sample.size - ranked.size, int(counts[counts > 1].sum())
