"""Intervals for the mean of paired differences: Student's t, sign-flip inversion, Walsh averages.

Called by `significance` and `report`. Each function returns an `Interval`, or None where this n has no finite
interval at that level; none of them decides anything. Bootstrap intervals are not here: below n = 20 they cover far
less than they claim (BCa .73 at n = 3, .90 at n = 10), so a handful of seeds gets t intervals only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

MOST_EXACT_BLOCKS = 16
"""Sign flips are enumerated up to 2^16; beyond that 65,535 random ones stand for all."""


@dataclass(frozen=True)
class Interval:
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
        from .render import format_interval

        return format_interval(self)


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
    ends are order statistics of the subset means. Exact up to n = 16; beyond, of 65,535 random subsets.

    Source: Hartigan (1969), "Using subsample values as typical values", JASA 64.
    """
    import numpy as np

    sample = np.asarray(values, dtype=float)
    n = sample.size
    if n < 2:
        return None
    members = _subsets(n, seed)
    means = np.sort(members @ sample / members.sum(axis=1))
    rank = int(np.floor((1 - level) * (means.size + 1) / 2 + 1e-9))
    if rank < 1:
        return None
    return Interval(float(sample.mean()), float(means[rank - 1]), float(means[-rank]), level, "sign flip", n)


def _subsets(n: int, seed: int) -> NDArray[np.float64]:
    """Indicator rows of the non-empty subsets of n values (all of them, or 65,535 random ones)."""
    import numpy as np

    if n <= MOST_EXACT_BLOCKS:
        codes = np.arange(1, 2**n, dtype=np.int64)
        return ((codes[:, None] >> np.arange(n)) & 1).astype(float)
    rng = np.random.default_rng(seed)
    members = rng.integers(0, 2, size=(2**MOST_EXACT_BLOCKS - 1, n)).astype(float)
    members[members.sum(axis=1) == 0, 0] = 1.0  # the empty subset has no mean; one in 2^17 or fewer
    return members


def walsh_interval(values: ArrayLike, level: float = 0.95) -> Interval | None:
    """The centres that the two-sided Wilcoxon signed-rank test does not reject, around the Hodges-Lehmann estimate.

    Assumes differences symmetric about their centre. The ends are order statistics of the n(n + 1)/2 Walsh averages
    (pairwise means). None where n is too small for a finite interval at this level.

    Source: Hollander, Wolfe and Chicken (2014), Nonparametric Statistical Methods, §3.3.
    """
    import numpy as np

    sample = np.asarray(values, dtype=float)
    n = sample.size
    if n < 2:
        return None
    rows, columns = np.triu_indices(n)
    averages = np.sort((sample[rows] + sample[columns]) / 2)
    tail = np.cumsum(signed_rank_probabilities(n))
    rejected = np.flatnonzero(2 * tail <= 1 - level + 1e-12)
    if rejected.size == 0:
        return None
    rank = int(rejected[-1]) + 1
    estimate, low, high = float(np.median(averages)), float(averages[rank - 1]), float(averages[-rank])
    return Interval(estimate, low, high, level, "Walsh averages", n)


def signed_rank_probabilities(n: int) -> NDArray[np.float64]:
    """P(T+ = 0 … n(n + 1)/2) of the Wilcoxon signed-rank statistic under the null, by its recursion."""
    import numpy as np

    probabilities = np.zeros(n * (n + 1) // 2 + 1)
    probabilities[0] = 1.0
    for rank in range(1, n + 1):
        shifted = np.zeros_like(probabilities)
        shifted[rank:] = probabilities[:-rank]
        probabilities = (probabilities + shifted) / 2
    return probabilities
