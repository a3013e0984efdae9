"""The mixture-t e-process: evidence against a mean of 0 that may be looked at after every difference.

Called by `sequential` for one verdict, by `simulation` and benchmarks for whole arrays of replays. It decides nothing
about arms: it has no direction and no names.

Hypothesis: the mean of the paired differences is 0. Assumption: independent normal differences, of one mean and one
unknown variance. The e-process is the Bayes factor of a normal prior of variance g on the standardised effect, with
the right-Haar prior dσ/σ on the scale of both sides:

    E_n = (1 + n g)^(−1/2) · (S / (S − n x̄² · n g / (1 + n g)))^(n/2),   S = Σ x²,   E_1 = 1.

Under the hypothesis it reaches 1/α at *any* n with probability at most α (Ville), so looking costs nothing. The means
that no prefix rejects are the interval; it only shrinks.

Source: Lai (1976), Annals of Statistics 4, 265–280; Wang and Ramdas (2023), "Anytime-valid t-tests and confidence
sequences for Gaussian means with unknown variance", arXiv:2310.03722; Gönen et al. (2005) for the Bayes factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackwise_ray.core.errors import AnalysisError

from ..table.blocks import check_level

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

PRIOR_VARIANCE = 10.0
"""Of the standardised effect: wide, because the differences between arms that seeds can resolve are several sd."""


@dataclass(frozen=True)
class ConfidenceSequence:
    """The e-process and its interval after each difference; every array has the shape of the differences.

    Attributes:
        mean: Of the prefix.
        log_e: Natural logarithm of the e-process against a mean of 0; nan where the prefix has no variance.
        low, high: Ends of the running intersection, ±inf while infinite; low > high: empty.
    """

    mean: NDArray[np.float64]
    log_e: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Prefixes:
    """Moments of every prefix; arrays of the shape of the differences, `n` of their last axis.

    Attributes:
        spread: Sum of squares about the mean.
        constant: Whether the prefix has no variance but for rounding.
    """

    n: NDArray[np.int64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    constant: NDArray[np.bool_]


def prefixes(differences: ArrayLike, rounding: ArrayLike | None = None) -> Prefixes:
    """The moments of every prefix of the last axis.

    Args:
        differences: Shape (..., n), finite.
        rounding: Standard deviation up to which a prefix counts as without variance, shape (..., n); None: a few
            units in the last place of the largest difference so far.
    """
    import numpy as np

    x = np.asarray(differences, dtype=float)
    n = np.arange(1, x.shape[-1] + 1)
    first = x[..., :1]
    total = np.cumsum(x - first, axis=-1)  # the first value taken off: sums of squares then lose no digits to the mean
    spread = np.maximum(np.cumsum((x - first) ** 2, axis=-1) - total**2 / n, 0.0)
    if rounding is None:
        rounding = 8 * np.finfo(float).eps * np.maximum.accumulate(np.abs(x), axis=-1)
    constant = spread <= np.maximum(n - 1, 1) * np.asarray(rounding) ** 2
    return Prefixes(n, first + total / n, spread, constant)


def confidence_sequence(
    differences: ArrayLike,
    alpha: float = 0.05,
    prior_variance: float = PRIOR_VARIANCE,
    rounding: ArrayLike | None = None,
) -> ConfidenceSequence:
    """Everything after each prefix of the last axis, in one pass over all rows.

    Args:
        differences, rounding: As in `prefixes`.
        alpha: Level of the interval.
        prior_variance: Of the standardised effect.
    """
    import numpy as np

    found = prefixes(differences, rounding)
    n, mean, spread, constant = found.n, found.mean, found.spread, found.constant
    gain = 1 + n * prior_variance
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        signal = n * mean**2
        log_e = n / 2 * np.log((spread + signal) / (spread + signal / gain)) - np.log(gain) / 2
        ratio = np.exp(2 / n * (np.log(gain) / 2 - math.log(alpha)))  # what the e-process's power must reach
        square = np.where(ratio < gain, (ratio - 1) / (1 - ratio / gain), np.inf)  # t² / (n − 1) that reaches it
        half = np.where(constant, np.inf, np.sqrt(square * spread / n))
    return ConfidenceSequence(
        mean,
        np.where(constant & (n > 1), np.nan, np.where(n == 1, 0.0, log_e)),
        np.maximum.accumulate(mean - half, axis=-1),
        np.minimum.accumulate(mean + half, axis=-1),
    )


def first_crossings(
    sequence: ConfidenceSequence, alpha: float = 0.05, margin: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each row decides, and what.

    Returns:
        The n of the first crossing, 0 for none; and −1 (below 0), 1 (above 0), 0 (inside ±margin) or 2 (none). Where
        both fall at the same n, inside the margin counts, as in `compare`.
    """
    import numpy as np

    differs = sequence.log_e >= -math.log(alpha)
    within = np.zeros_like(differs)
    if margin is not None:
        within = (sequence.low > -margin) & (sequence.high < margin) & (sequence.low <= sequence.high)
    hit = differs | within
    place = np.argmax(hit, axis=-1)[..., None]
    any_hit = hit.any(axis=-1)
    sign = np.sign(np.take_along_axis(sequence.mean, place, -1)[..., 0]).astype(np.int64)
    kind = np.where(np.take_along_axis(within, place, -1)[..., 0], 0, sign)
    return np.where(any_hit, place[..., 0] + 1, 0), np.where(any_hit, kind, 2)


def seeds_possible(alpha: float = 0.05, prior_variance: float = PRIOR_VARIANCE) -> int:
    """First n at which any decision is possible: there the e-process without noise, (1 + n g)^((n − 1)/2), beats 1/α.

    >>> seeds_possible()
    3
    """
    check_process(alpha, prior_variance)
    n = 2
    while (n - 1) / 2 * math.log1p(n * prior_variance) <= -math.log(alpha):
        n += 1
    return n


def check_process(alpha: float, prior_variance: float) -> None:
    """Refuse a value outside its range, by name."""
    check_level(alpha)
    if not (math.isfinite(prior_variance) and prior_variance > 0):
        raise AnalysisError(f"prior_variance = {prior_variance:g} must be positive and finite (10 is the default)")
