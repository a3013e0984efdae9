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


def power(sd_difference: float, *, effect: float, n: int, alpha: float = 0.05) -> float:
    """Probability that the two-sided paired t test at level `alpha` finds a true mean difference.

    Args:
        sd_difference: Standard deviation of the paired differences, in the metric's unit; positive.
        effect: True mean difference, in the same unit; its sign does not matter.
        n: Complete blocks, at least 2.
        alpha: Level of the test, in (0, 1).

    Raises:
        AnalysisError: A value outside its range.

    >>> round(power(1.0, effect=0.5, n=34), 4)
    0.8078
    """
    check(sd_difference, effect, alpha)
    if n < 2:
        raise AnalysisError(f"n = {n}: a paired t test needs at least 2 blocks")
    return _rejects(abs(effect) / sd_difference, n, alpha)


def seeds_needed(sd_difference: float, *, effect: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Fewest blocks with which the paired t test finds `effect` with probability `power`.

    Raises:
        AnalysisError: A value outside its range, an effect of 0, or more than 100,000 blocks needed.

    >>> seeds_needed(1.0, effect=0.5)
    34
    """
    check(sd_difference, effect, alpha)
    if effect == 0:
        raise AnalysisError("effect = 0: no number of seeds finds an effect that is not there")
    if not 0 < power < 1:
        raise AnalysisError(f"power = {power:g} must lie between 0 and 1")
    size = abs(effect) / sd_difference
    high = 2
    while _rejects(size, high, alpha) < power:
        high *= 2
        if high > 2 * MOST_SEEDS:
            raise AnalysisError(f"an effect of {size:.2g} standard deviations needs more than {MOST_SEEDS:,} seeds")
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        if _rejects(size, middle, alpha) < power:
            low = middle + 1
        else:
            high = middle
    return low


def minimum_detectable_effect(sd_difference: float, *, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest true mean difference that the paired t test finds with probability `power`, in the metric's unit.

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
    while _rejects(high, n, alpha) < power:
        high *= 2
    return sd_difference * float(brentq(lambda size: _rejects(size, n, alpha) - power, 0.0, high))


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


def _rejects(size: float, n: int, alpha: float) -> float:
    """Power at a true mean of `size` standard deviations of the differences."""
    from scipy.stats import nct, t

    freedom = n - 1
    critical = float(t.ppf(1 - alpha / 2, freedom))
    shift = size * math.sqrt(n)
    upper = float(nct.sf(critical, freedom, shift))
    lower = float(nct.cdf(-critical, freedom, shift))  # rejection on the wrong side
    if math.isnan(lower):
        lower = 0.0  # scipy's series loses it to rounding only where it is below 1e-15
    return min(1.0, upper + lower)


def check(sd_difference: float, effect: float, alpha: float) -> None:
    """Refuse a value outside its range, by name."""
    if not (math.isfinite(sd_difference) and sd_difference > 0):
        raise AnalysisError(f"sd_difference = {sd_difference:g} must be positive and finite")
    if not math.isfinite(effect):
        raise AnalysisError(f"effect = {effect:g} must be finite")
    if not 0 < alpha < 1:
        raise AnalysisError(f"alpha = {alpha:g} must lie between 0 and 1")
