"""The one-sided mixture-t e-process: evidence that a mean lies below (or above) a threshold, at any time.

Called by `sequential` and `simulation` for one side and for non-inferiority. As in `e_process`, with half of the
normal prior: effects on the side of the claim alone. Let δ be the standardised effect, N(0, g) given δ > 0, and the
scale right-Haar, dσ/σ. With S = Σ x² and R = S − n x̄² · n g / (1 + n g) the posterior of 1/σ is that of √(χ²_n / R),
given which δ is normal, so that the integral over δ > 0 is closed:

    E⁺_n = 2 · T_n( √n · n x̄ √g / √((1 + n g) R) ) · E_n,

T_n: Student's distribution function with n degrees of freedom, E_n: the two-sided e-process. At the true mean it is a
martingale under every σ. E⁺ rises with the t statistic of x − m, so for each n the means m that it rejects (E⁺ ≥ 1/α)
are all those on one side of a bound; the true mean is ever among them with probability α at most (Ville). A claim is
made when every mean of its null is rejected: that error, too, is at most α at any time.

Source: Lai (1976), Annals of Statistics 4, 265–280; Wang and Ramdas (2023), arXiv:2310.03722, for the two-sided form;
the half-normal prior as in one-sided Bayes factors (Morey and Wagenmakers 2014).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..paired.hypotheses import Claim
from .e_process import PRIOR_VARIANCE, ConfidenceSequence, check_process, prefixes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def one_sided_log_e(
    share: ArrayLike, n: NDArray[np.int64], prior_variance: float = PRIOR_VARIANCE
) -> NDArray[np.float64]:
    """ln E⁺ for a mean above 0.

    Args:
        share: r = x̄ √(n / S), the mean in units of the root mean square, in (−1, 1); rises with the t statistic.
        n: Number of differences, of a shape that fits `share`.
    """
    import numpy as np
    from scipy.special import stdtr

    r, gain = np.asarray(share, dtype=float), 1 + n * prior_variance
    rest = 1 - r**2 * (1 - 1 / gain)  # R / S
    two_sided = -np.log(gain) / 2 - n / 2 * np.log(rest)
    with np.errstate(divide="ignore"):
        return np.asarray(math.log(2) + np.log(stdtr(n, n * r * np.sqrt(prior_variance / (gain * rest)))) + two_sided)


@functools.lru_cache(maxsize=64)
def critical_shares(most: int, alpha: float, prior_variance: float = PRIOR_VARIANCE) -> NDArray[np.float64]:
    """The least r that reaches E⁺ = 1/α for n = 1 … most; 1 where none below it does (as without any noise)."""
    import numpy as np

    n = np.arange(1, most + 1)
    low, high = np.full(most, -1.0), np.ones(most)
    for _ in range(60):
        middle = (low + high) / 2
        reached = one_sided_log_e(middle, n, prior_variance) >= -math.log(alpha)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    found: NDArray[np.float64] = np.where(one_sided_log_e(np.ones(most), n, prior_variance) > -math.log(alpha), high, 1)
    found.flags.writeable = False
    return found


def one_sided_sequence(
    differences: ArrayLike,
    claim: Claim,
    alpha: float = 0.05,
    prior_variance: float = PRIOR_VARIANCE,
    rounding: ArrayLike | None = None,
) -> ConfidenceSequence:
    """Everything after each prefix of the last axis: `log_e` for the claim, and both one-sided 1 − α bounds.

    Args:
        differences, rounding: As in `confidence_sequence`.
        claim: What `log_e` is evidence for.
        alpha: Level of each bound.
    """
    import numpy as np

    found = prefixes(differences, rounding)
    n, spread, constant = found.n, found.spread, found.constant
    cut = critical_shares(found.n.size, alpha, prior_variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        # r² = n x̄² / (spread + n x̄²), so a distance of r √(spread / (1 − r²) / n) from the mean reaches r
        half = np.where(cut < 1, cut / np.sqrt(1 - cut**2), np.inf) * np.sqrt(spread / n)
        half = np.where(constant, np.inf, half)
        away = (found.mean - claim.threshold) * (-1 if claim.alternative == "less" else 1)
        share = away / np.sqrt(spread / n + away**2)
        log_e = one_sided_log_e(np.clip(share, -1, 1), n, prior_variance)
    return ConfidenceSequence(
        found.mean,
        np.where(constant & (n > 1), np.nan, np.where(constant, 0.0, log_e)),
        np.maximum.accumulate(found.mean - half, axis=-1),
        np.minimum.accumulate(found.mean + half, axis=-1),
    )


def first_claims(sequence: ConfidenceSequence, claims: Sequence[Claim]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each row first makes a claim, and which.

    Returns:
        The n of the first claim, 0 for none; and its place in `claims`, −1 for none. Where several are made at the
        same n, the first of them counts.
    """
    import numpy as np

    made = np.stack(
        [
            sequence.high < claim.threshold if claim.alternative == "less" else sequence.low > claim.threshold
            for claim in claims
        ]
    )
    hit = made.any(axis=0)
    place = np.argmax(hit, axis=-1)
    any_hit = hit.any(axis=-1)
    which = np.argmax(np.take_along_axis(made, np.broadcast_to(place[..., None], (*made.shape[:-1], 1)), -1)[..., 0], 0)
    return np.where(any_hit, place + 1, 0), np.where(any_hit, which, -1)


def one_sided_seeds_possible(alpha: float = 0.05, prior_variance: float = PRIOR_VARIANCE) -> int:
    """First n at which any one-sided claim is possible: there E⁺ without noise beats 1/α.

    >>> one_sided_seeds_possible()
    3
    """
    import numpy as np

    check_process(alpha, prior_variance)
    n = 2
    while float(one_sided_log_e(1.0, np.array(n), prior_variance)) <= -math.log(alpha):
        n += 1
    return n
