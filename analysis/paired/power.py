"""Power of the paired t test: exact, from the non-central t distribution.

Called before a sweep (`--plan`), by `significance` (smallest detectable effect, seeds still needed) and by
`python -m analysis power`. `sd_difference` is always the standard deviation of the paired differences, in the unit
of the metric; with blocks that work it is smaller than the standard deviation of the runs.

Source: Cohen (1988), Statistical Power Analysis, ch. 2; exact form as in G*Power 3 (Faul et al. 2007).
"""

from __future__ import annotations

import math

from stackwise_ray.core.errors import AnalysisError

MOST_SEEDS = 100_000
"""Beyond it `seeds_needed` refuses: nobody trains so many, and the effect is zero for all purposes."""


def power(
    sd_difference: float, *, effect: float, n: int, alpha: float = 0.05, margin: float | None = None, sides: int = 2
) -> float:
    """Probability that the paired t test at level `alpha` finds a true mean difference, or finds non-inferiority.

    Args:
        sd_difference: Standard deviation of the paired differences, in the metric's unit; positive. For a comparison
            with a target, that of the runs.
        effect: True mean difference, in the same unit. Its sign does not matter, except with a margin: there it is how
            much worse the arm is (0: as good as the baseline; negative: better).
        n: Complete blocks, at least 2.
        alpha: Level of the test, in (0, 1).
        margin: Of non-inferiority, which is one-sided: the largest loss that does not matter; None: a difference is
            tested.
        sides: 2, or 1 where only differences on the side of `effect` are tested.

    Raises:
        AnalysisError: A value outside its range.

    >>> round(power(1.0, effect=0.5, n=34), 4)
    0.8078
    """
    check(sd_difference, effect, alpha, margin)
    if n < 2:
        raise AnalysisError(f"n = {n}: a paired t test needs at least 2 blocks")
    size, sides = _distance(effect, margin, sides)
    return _rejects(size / sd_difference, n, alpha, sides)


def seeds_needed(
    sd_difference: float,
    *,
    effect: float,
    power: float = 0.8,
    alpha: float = 0.05,
    margin: float | None = None,
    sides: int = 2,
) -> int:
    """Fewest blocks with which the paired t test finds `effect`, or non-inferiority, with probability `power`.

    Args:
        margin, sides: As in `power`.

    Raises:
        AnalysisError: A value outside its range, an effect of 0, an arm that is worse by the margin, or more than
            100,000 blocks needed.

    >>> seeds_needed(1.0, effect=0.5), seeds_needed(1.0, effect=0.0, margin=0.5)
    (34, 27)
    """
    check(sd_difference, effect, alpha, margin)
    if not 0 < power < 1:
        raise AnalysisError(f"power = {power:g} must lie between 0 and 1")
    distance, sides = _distance(effect, margin, sides)
    if distance == 0 and margin is None:
        raise AnalysisError("effect = 0: no number of seeds finds an effect that is not there")
    if distance <= 0:
        raise AnalysisError(
            f"effect = {effect:g} with margin = {margin:g}: the arm is inferior, and no number of seeds shows "
            f"otherwise; give an effect below the margin (0: the arm is as good as the baseline)"
        )
    size = distance / sd_difference
    high = 2
    while _rejects(size, high, alpha, sides) < power:
        high *= 2
        if high > 2 * MOST_SEEDS:
            raise AnalysisError(f"an effect of {size:.2g} standard deviations needs more than {MOST_SEEDS:,} seeds")
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        if _rejects(size, middle, alpha, sides) < power:
            low = middle + 1
        else:
            high = middle
    return low


def minimum_detectable_effect(
    sd_difference: float, *, n: int, power: float = 0.8, alpha: float = 0.05, sides: int = 2
) -> float:
    """Smallest true mean difference that the paired t test finds with probability `power`, in the metric's unit.

    With one side it is also the smallest margin within which an arm that is as good as the baseline is found to be
    non-inferior.

    >>> round(minimum_detectable_effect(1.0, n=34), 2)
    0.5
    """
    from scipy.optimize import brentq

    check(sd_difference, 0.0, alpha)
    if n < 2:
        raise AnalysisError(f"n = {n}: a paired t test needs at least 2 blocks")
    if not alpha < power < 1:
        raise AnalysisError(f"power = {power:g} must lie between alpha = {alpha:g} and 1")
    high = 1.0
    while _rejects(high, n, alpha, sides) < power:
        high *= 2
    return sd_difference * float(brentq(lambda size: _rejects(size, n, alpha, sides) - power, 0.0, high))


def equivalence_power(sd_difference: float, *, effect: float, margin: float, n: int, alpha: float = 0.05) -> float:
    """Probability that two one-sided t tests at level `alpha` place a true difference inside ±`margin`.

    Integrates the normal probability of the mean over the chi distribution of the standard deviation on 400 quantile
    midpoints (error below 1e-3).

    Source: Schuirmann (1987), J. Pharmacokinetics and Biopharmaceutics 15.
    """
    import numpy as np
    from scipy.special import ndtr
    from scipy.stats import chi2, t

    check(sd_difference, effect, alpha)
    if n < 2:
        raise AnalysisError(f"n = {n}: a paired test needs at least 2 blocks")
    shares = (np.arange(400) + 0.5) / 400
    sd = sd_difference * np.sqrt(chi2.ppf(shares, n - 1) / (n - 1))
    room = margin - t.ppf(1 - alpha, n - 1) * sd / math.sqrt(n)
    error = sd_difference / math.sqrt(n)
    inside = ndtr((room - effect) / error) - ndtr((-room - effect) / error)
    return float(np.where(room > 0, inside, 0.0).mean())


def _distance(effect: float, margin: float | None, sides: int) -> tuple[float, int]:
    """How far the truth lies from the null, on the side that is tested, and how many sides there are."""
    return (abs(effect), sides) if margin is None else (margin - effect, 1)


def _rejects(size: float, n: int, alpha: float, sides: int) -> float:
    """Power at a true mean of `size` standard deviations of the differences, on the side that is tested."""
    from scipy.stats import nct, t

    freedom = n - 1
    critical = float(t.ppf(1 - alpha / sides, freedom))
    shift = size * math.sqrt(n)
    upper = float(nct.sf(critical, freedom, shift))
    lower = float(nct.cdf(-critical, freedom, shift)) if sides == 2 else 0.0  # rejection on the wrong side
    if math.isnan(lower):
        lower = 0.0  # scipy's series loses it to rounding only where it is below 1e-15
    return min(1.0, upper + lower)


def check(sd_difference: float, effect: float, alpha: float, margin: float | None = None) -> None:
    """Refuse a value outside its range, by name."""
    if not (math.isfinite(sd_difference) and sd_difference > 0):
        raise AnalysisError(f"sd_difference = {sd_difference:g} must be positive and finite")
    if not math.isfinite(effect):
        raise AnalysisError(f"effect = {effect:g} must be finite")
    if not 0 < alpha < 1:
        raise AnalysisError(f"alpha = {alpha:g} must lie between 0 and 1")
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise AnalysisError(f"margin = {margin:g} must be positive and finite")
