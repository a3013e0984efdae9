"""Intervals for the mean of paired differences: Student's t, sign-flip inversion, Walsh averages, BCa bootstrap.

Called by `significance`; the percentile ends by `aggregation` and `hierarchical`. Each function returns an `Interval`,
or None where this n has no interval worth its name at that level; none of them decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.errors import AnalysisError
from stackwise_ray.core.quantities import decimals_for, format_number, interval_spread

from ..render import TextView

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

MOST_EXACT_BLOCKS = 16
"""Sign flips are enumerated up to 2^16; beyond that random ones stand for all (`sign_patterns`)."""
MOST_EXACT_RANKS = 500
"""The distribution of the signed-rank statistic is counted out up to so many differences; that takes a tenth of a
second, and beyond it the normal approximation is good to four digits."""
_MOST_FLIPS = 2**26
"""Signs drawn in all: 2^16 patterns up to 1,024 differences, and fewer patterns beyond."""
FEWEST_BCA_BLOCKS = 20
"""Below it the BCa bootstrap covers far less than it claims (95 % nominal: .73 at n = 3, .90 at n = 10)."""
BCA_DRAWS = 4999
"""The tail of 2.5 % then holds 125 draws; the ends move by about a hundredth of the width between seeds."""
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Interval(TextView):
    """An estimate with the interval that belongs to it.

    Attributes:
        estimate: Point estimate, in the unit of the data.
        low: Lower end.
        high: Upper end.
        level: Nominal coverage, e.g. 0.95.
        method: How it was made, e.g. "t".
        n: Number of values behind it.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return format_interval(self)


def format_interval(interval: Interval, *, signed: bool = False, decimals: int | None = None) -> str:
    """Estimate and interval with as many digits as its width supports.

    >>> format_interval(Interval(-0.03412, -0.0512, -0.0171, 0.95, "t", 3), signed=True)
    '−0.034 [−0.051, −0.017]'
    """
    if decimals is None:
        spread = interval_spread(interval.estimate, interval.low, interval.high)
        decimals = decimals_for(spread if spread > 0 else interval.estimate)
    ends = ", ".join(format_number(end, decimals, signed=signed) for end in (interval.low, interval.high))
    return f"{format_number(interval.estimate, decimals, signed=signed)} [{ends.replace('inf', '∞')}]"


def t_bounds(mean: ArrayLike, sd: ArrayLike, n: int, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of Student's t interval, element by element.

    Args:
        mean: Sample means, any shape.
        sd: Sample standard deviations (n - 1 in the denominator), same shape.
        n: Values in each sample, at least 2.
        level: Coverage, in (0, 1).
    """
    import numpy as np
    from scipy.special import stdtrit

    half = stdtrit(n - 1, 0.5 + level / 2) * np.asarray(sd, dtype=float) / np.sqrt(n)
    centre = np.asarray(mean, dtype=float)
    return centre - half, centre + half


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval | None:
    """Student's t interval for the mean; None below two values.

    Assumes independent values from a normal distribution (for paired data: normal differences).

    >>> print(t_interval([1.0, 2.0, 3.0]))
    2.0 [−0.5, 4.5]
    """
    import numpy as np

    sample = np.asarray(values, dtype=float)
    n = sample.size
    if n < 2:
        return None
    mean = float(sample.mean())
    low, high = t_bounds(mean, sample.std(ddof=1), n, level)
    return Interval(mean, float(low), float(high), level, "t", n)


def sign_flip_interval(values: ArrayLike, level: float = 0.95, seed: int = 0) -> Interval | None:
    """The means that the two-sided sign-flip test does not reject; None where n is too small for a finite interval.

    The test's one-sided p at a candidate mean m is (1 + number of non-empty subsets whose mean is ≤ m) / 2^n, so the
    ends are order statistics of the subset means. Exact up to n = 16; beyond, of random subsets (`sign_patterns`).

    Source: Hartigan (1969), "Using subsample values as typical values", JASA 64.
    """
    import numpy as np

    sample = np.asarray(values, dtype=float)
    n = sample.size
    if n < 2:
        return None
    means = _subset_means(sample, seed)
    rank = int(np.floor((1 - level) * (means.size + 1) / 2 + 1e-9))
    if rank < 1:
        return None
    return Interval(float(sample.mean()), float(means[rank - 1]), float(means[-rank]), level, "sign flip", n)


def sign_patterns(n: int) -> int:
    """How many sign patterns a test of n differences looks at: all 2^n, or the observed and random ones.

    >>> sign_patterns(3), sign_patterns(17), sign_patterns(10_000)
    (8, 65536, 6710)
    """
    drawn = max(1000, min(2**MOST_EXACT_BLOCKS, _MOST_FLIPS // n))
    return drawn if n > MOST_EXACT_BLOCKS else int(2**n)


def _subset_means(sample: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means of the non-empty subsets (of all, or of one fewer random ones than there are patterns), sorted."""
    import numpy as np

    n = sample.size
    if n <= MOST_EXACT_BLOCKS:
        codes = np.arange(1, 2**n, dtype=np.int64)
        members = ((codes[:, None] >> np.arange(n)) & 1).astype(float)
        return np.sort(members @ sample / members.sum(axis=1))
    rng, count = np.random.default_rng(seed), sign_patterns(n) - 1
    step, parts = max(1, _CHUNK // n), []
    for start in range(0, count, step):
        members = rng.integers(0, 2, size=(min(step, count - start), n)).astype(float)
        members[members.sum(axis=1) == 0, 0] = 1.0  # the empty subset has no mean; one in 2^17 or fewer
        parts.append(members @ sample / members.sum(axis=1))
    return np.sort(np.concatenate(parts))


def walsh_interval(values: ArrayLike, level: float = 0.95) -> Interval | None:
    """The centres that the two-sided Wilcoxon signed-rank test does not reject, around the Hodges-Lehmann estimate.

    Assumes differences symmetric about their centre. The ends are order statistics of the n(n + 1)/2 Walsh averages
    (pairwise means), by the exact distribution without ties up to 500 differences; with ties the closed interval
    covers at least as often. None where n is too small for a finite interval at this level.

    Source: Hollander, Wolfe and Chicken (2014), Nonparametric Statistical Methods, §3.3; Noether (1967), JASA 62, for
    ties.
    """
    import numpy as np

    sample = np.sort(np.asarray(values, dtype=float))
    n = sample.size
    if n < 2:
        return None
    rank = _signed_rank_cut(n, 1 - level) + 1
    if rank < 1:
        return None
    count = n * (n + 1) // 2
    if n <= MOST_EXACT_RANKS:
        rows, columns = np.triu_indices(n)
        averages = np.sort((sample[rows] + sample[columns]) / 2)
        estimate, low, high = float(np.median(averages)), float(averages[rank - 1]), float(averages[-rank])
    else:
        places = (rank, count + 1 - rank, (count + 1) // 2, count // 2 + 1)
        low, high, below, above = (_walsh_average(sample, place) for place in places)
        estimate = (below + above) / 2
    return Interval(estimate, low, high, level, "Walsh averages", n)


def _signed_rank_cut(n: int, alpha: float) -> int:
    """The largest signed-rank sum at which the two-sided test rejects at level `alpha`; −1: none."""
    import numpy as np

    if n <= MOST_EXACT_RANKS:
        rejected = np.flatnonzero(2 * np.cumsum(signed_rank_probabilities(n)) <= alpha + 1e-12)
        return int(rejected[-1]) if rejected.size else -1
    from scipy.special import ndtri

    mean, sd = n * (n + 1) / 4, (n * (n + 1) * (2 * n + 1) / 24) ** 0.5
    return int(np.floor(mean + float(ndtri(alpha / 2)) * sd - 0.5))


def _walsh_average(ordered: NDArray[np.float64], place: int) -> float:
    """The Walsh average of that place (1: the least), by bisection on how many are not above a value."""
    import numpy as np

    low, high = float(ordered[0]), float(ordered[-1])
    while True:
        middle = low + (high - low) / 2
        if not low < middle < high:
            return high if _walsh_count(ordered, low) < place else low
        if _walsh_count(ordered, middle) >= place:
            high = middle
        else:
            low = middle
        if high - low <= 1e-14 * max(abs(low), abs(high), float(np.ptp(ordered))):
            return high


def _walsh_count(ordered: NDArray[np.float64], value: float) -> int:
    """How many Walsh averages are not above `value`."""
    import numpy as np

    both = np.searchsorted(ordered, 2 * value - ordered, side="right").sum()
    return int(both + np.searchsorted(ordered, value, side="right")) // 2


def bca_interval(values: ArrayLike, level: float = 0.95, draws: int = BCA_DRAWS, seed: int = 0) -> Interval | None:
    """Bias-corrected and accelerated bootstrap interval for the mean; None below n = 20 or without variance.

    Assumes independent values of any distribution, skewed ones included; that is what it adds to Student's t.

    Source: Efron (1987), "Better bootstrap confidence intervals", JASA 82; Efron and Tibshirani (1993), §14.3.
    """
    import numpy as np

    sample = np.asarray(values, dtype=float)
    n = sample.size
    if n < FEWEST_BCA_BLOCKS or np.ptp(sample) == 0:
        return None
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n)
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    means = np.concatenate([sample[rng.integers(0, n, size=(size, n))].mean(axis=1) for size in sizes])
    mean = float(sample.mean())
    low, high = bca_bounds(means, mean, (sample.sum() - sample) / (n - 1), level)
    return Interval(mean, low, high, level, f"BCa bootstrap ({draws} draws)", n)


def bca_bounds(draws: ArrayLike, estimate: float, jackknife: ArrayLike, level: float) -> tuple[float, float]:
    """Both BCa ends of any statistic.

    Args:
        draws: The statistic of each resample.
        estimate: The statistic of the sample.
        jackknife: The statistic without each value in turn, for the acceleration.
        level: Nominal coverage, in (0, 1).
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    found, left_out = np.asarray(draws, dtype=float), np.asarray(jackknife, dtype=float)
    below = ((found < estimate).sum() + 0.5 * (found == estimate).sum()) / found.size
    bias = ndtri(min(max(below, 0.5 / found.size), 1 - 0.5 / found.size))  # every draw on one side: half a draw beyond
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    tails = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(found, ndtr(bias + tails / (1 - acceleration * tails)))
    return float(low), float(high)


def percentile_bounds(draws: ArrayLike, level: float) -> tuple[float, float]:
    """Both ends of the percentile bootstrap interval."""
    import numpy as np

    low, high = np.quantile(np.asarray(draws, dtype=float), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def signed_rank_probabilities(n: int) -> NDArray[np.float64]:
    """P(T+ = 0 … n(n + 1)/2) of the Wilcoxon signed-rank statistic under the null, without ties."""
    return rank_sum_probabilities(range(1, n + 1))


def rank_sum_probabilities(ranks: Iterable[int]) -> NDArray[np.float64]:
    """P(sum = 0 … Σ ranks) where each rank counts with probability one half, by recursion; ranks are whole numbers."""
    import numpy as np

    whole = sorted(int(rank) for rank in ranks)
    probabilities = np.zeros(sum(whole) + 1)
    probabilities[0] = 1.0
    reached = 0
    for rank in whole:
        before = probabilities[: reached + 1] / 2
        reached += rank
        probabilities[: reached + 1] /= 2
        probabilities[rank : reached + 1] += before
    return probabilities


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes."""
    if seed < 0:
        raise AnalysisError(f"seed = {seed} of the draws must be 0 or above")


def check_draws(bootstrap: int, seed: int) -> None:
    """Refuse a number of draws that cannot hold the tails of a 95 % interval (0 makes none), or a seed that is none."""
    if bootstrap < 0 or 0 < bootstrap < 100:
        raise AnalysisError(f"bootstrap = {bootstrap}: a 95 % interval needs at least 100 draws; 0 makes none")
    check_seed(seed)
