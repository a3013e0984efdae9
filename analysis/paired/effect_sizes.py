"""Effect sizes of one arm against the baseline. Called by `significance`; none of them decides a verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def hedges_g(differences: ArrayLike) -> float | None:
    """Mean paired difference in standard deviations of the differences, corrected for small n.

    g = J(n − 1) · mean / sd with the exact J(ν) = Γ(ν/2) / (√(ν/2) Γ((ν − 1)/2)). The standardiser is that of the
    differences (d_z), because that is what decides power with blocks. None below n = 3 (J does not exist) or without
    variance.

    Source: Hedges (1981), J. Educational Statistics 6; Lakens (2013), Frontiers in Psychology 4, eq. 7.

    >>> round(hedges_g([1.0, 2.0, 3.0, 4.0]), 4)
    1.4012
    """
    import numpy as np

    sample = np.asarray(differences, dtype=float)
    if sample.size < 3:
        return None
    sd = float(sample.std(ddof=1))
    if sd == 0:
        return None
    freedom = sample.size - 1
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return correction * float(sample.mean()) / sd


def cliffs_delta(values: ArrayLike, baseline: ArrayLike) -> float:
    """P(arm > baseline) − P(arm < baseline) over all pairs of runs, in [−1, 1]; blocks are ignored.

    Source: Cliff (1993), Psychological Bulletin 114.

    >>> cliffs_delta([1.0, 2.0], [3.0, 4.0])
    -1.0
    """
    import numpy as np

    ours, theirs = np.asarray(values, dtype=float), np.sort(np.asarray(baseline, dtype=float))
    above, not_below = (np.searchsorted(theirs, ours, side=side) for side in ("left", "right"))
    return float((above.sum() - (theirs.size - not_below).sum()) / (ours.size * theirs.size))


def probability_of_improvement(differences: ArrayLike, *, minimize: bool) -> float:
    """Share of blocks in which the arm is better than the baseline; a tie counts one half.

    >>> probability_of_improvement([-0.1, -0.2, 0.3, 0.0], minimize=True)
    0.625
    """
    import numpy as np

    sample = np.asarray(differences, dtype=float)
    gain = -sample if minimize else sample
    return float(((gain > 0) + 0.5 * (gain == 0)).mean())
