"""Power by simulation, where no formula holds: permutation tests, and designs that stop when they have decided.

`simulated_power` and `sequential_seeds` are the public face; `power` has the exact formulas of the t test. Differences
are normal with a known standard deviation, in the metric's unit; the same seed gives the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.comparison_records import Hypothesis, Side
from stackwise_ray.core.errors import AnalysisError, did_you_mean

from ..paired.hypotheses import Asked
from ..paired.intervals import MOST_EXACT_BLOCKS, Interval
from ..paired.power import check, seeds_needed
from ..render import TextView
from .e_process import PRIOR_VARIANCE, confidence_sequence, first_crossings
from .one_sided import first_claims, one_sided_sequence
from .sequential import least_seeds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TESTS = ("sequential", "sign_flip", "wilcoxon")
MOST_SEQUENTIAL_SEEDS = 2048
_CHUNK = 2_000_000
"""Differences held at once."""


@dataclass(frozen=True, kw_only=True)
class SequentialPlan(TextView):
    """How many seeds a design needs that looks after every one and stops when it has decided.

    Attributes:
        seeds_possible: First n at which any decision is possible.
        median: Seeds until the decision, in the middle replay.
        mean: Seeds spent on average when one stops at `seeds_needed` even if undecided.
        seeds_needed: Within so many the share `power` has decided.
        margin: Of equivalence, or of non-inferiority where `hypothesis` says so.
        fixed: What the paired t test at a fixed n needs for the same power, if the effect is guessed right; None where
            the effect is 0 and no test of non-inferiority is made.
        replays: Simulated designs; the standard error of a share of .8 is .4 / √replays.
    """

    sd_difference: float
    effect: float
    power: float
    alpha: float
    margin: float | None
    hypothesis: Hypothesis
    side: Side
    prior_variance: float
    seeds_possible: int
    median: int
    mean: float
    seeds_needed: int
    fixed: int | None
    replays: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"looking after every seed, half of the replays decide by {self.median}, {self.power:.0%} by "
            f"{self.seeds_needed} (mean {self.mean:.1f}; {self.replays:,} replays, none before {self.seeds_possible})"
        )
        return text if self.fixed is None else f"{text}; a fixed design needs {self.fixed}"


def sequential_seeds(
    sd_difference: float,
    *,
    effect: float,
    power: float = 0.8,
    alpha: float = 0.05,
    margin: float | None = None,
    prior_variance: float = PRIOR_VARIANCE,
    replays: int = 4000,
    seed: int = 0,
    hypothesis: Hypothesis = "different",
    side: Side = "both",
) -> SequentialPlan:
    """Seeds until `sequential_verdict` decides, if the true mean difference is `effect`.

    Args:
        effect: With a side or with non-inferiority, how much worse the arm truly is (negative: better).
        hypothesis, side: As in `compare`. Of non-inferiority the plan is for the decision, whatever it is.

    Raises:
        AnalysisError: A value outside its range, or fewer than `power` decided by 2,048 seeds.
    """
    import numpy as np

    check(sd_difference, effect, alpha, margin)
    asked = Asked(direction="minimize", hypothesis=hypothesis, side=side, margin=margin)
    _check_replays(replays)
    if not 0 < power < 1:
        raise AnalysisError(f"power = {power:g} must lie between 0 and 1")
    if side != "both" and (effect >= 0) == (side == "better"):
        raise AnalysisError(f"effect = {effect:g} is not on the side that is tested ({side})")
    if effect == 0 and margin is None:
        raise AnalysisError("effect = 0: no number of seeds finds it; with a margin, equivalence can be decided")
    most = 32
    while True:
        at = _decided_at(sd_difference, effect, most, alpha, asked, prior_variance, replays, seed)
        ordered = np.sort(np.where(at == 0, most + 1, at))
        needed = int(ordered[math.ceil(power * replays) - 1])
        if max(needed, int(ordered[replays // 2])) <= most:
            break
        if most >= MOST_SEQUENTIAL_SEEDS:
            raise AnalysisError(
                f"of {replays:,} replays {np.mean(at > 0):.0%} have decided by {most:,} seeds; an effect of "
                f"{effect / sd_difference:.2g} sd asks for more than anybody trains"
            )
        most *= 4
    return SequentialPlan(
        sd_difference=sd_difference,
        effect=effect,
        power=power,
        alpha=alpha,
        margin=margin,
        hypothesis=hypothesis,
        side=side,
        prior_variance=prior_variance,
        seeds_possible=least_seeds(asked, alpha, prior_variance),
        median=int(ordered[replays // 2]),
        mean=float(np.minimum(ordered, needed).mean()),
        seeds_needed=needed,
        fixed=_fixed(sd_difference, effect, power, alpha, asked),
        replays=replays,
    )


def _fixed(sd: float, effect: float, power: float, alpha: float, asked: Asked) -> int | None:
    """What a fixed number of seeds would need for the claim that the effect makes true."""
    if asked.hypothesis == "non_inferior":
        assert asked.margin is not None
        if effect >= asked.margin:
            return None
        return seeds_needed(sd, effect=effect, power=power, alpha=alpha, margin=asked.margin)
    if not effect:
        return None
    return seeds_needed(sd, effect=effect, power=power, alpha=alpha, sides=1 if asked.claims else 2)


def simulated_power(
    sd_difference: float,
    *,
    effect: float,
    n: int,
    test: str,
    alpha: float = 0.05,
    replays: int = 2000,
    seed: int = 0,
    sides: int = 2,
) -> Interval:
    """Share of replays in which a test rejects with n blocks ("sequential": by n, looking after each).

    Args:
        test: "sequential", "sign_flip" or "wilcoxon".
        sides: 2, or 1 where only differences on the side of `effect`, which is then positive, are tested.

    Returns:
        The share with Wilson's 95 % interval for the number of replays.

    Raises:
        AnalysisError: A value outside its range, or a test with a formula of its own ("t": use `power`).
    """
    import numpy as np

    check(sd_difference, effect, alpha)
    _check_replays(replays)
    if test not in TESTS:
        hint = "power() has it exactly" if test == "t" else did_you_mean(test, TESTS)
        raise AnalysisError(f"test = '{test}' is not simulated; {hint}")
    if n < 2:
        raise AnalysisError(f"n = {n}: a paired test needs at least 2 blocks")
    if test == "sequential":
        asked = Asked(direction="minimize", side="both" if sides == 2 else "worse")
        found = _decided_at(sd_difference, effect, n, alpha, asked, PRIOR_VARIANCE, replays, seed) > 0
    else:
        draws = np.random.default_rng(seed).normal(effect, sd_difference, size=(replays, n))
        found = (_sign_flip_ps(draws, seed, sides) if test == "sign_flip" else _wilcoxon_ps(draws, sides)) <= alpha
    return _wilson(int(found.sum()), replays, f"simulated power, {test}")


def _decided_at(
    sd: float,
    effect: float,
    most: int,
    alpha: float,
    asked: Asked,
    prior_variance: float,
    replays: int,
    seed: int,
) -> NDArray[np.int64]:
    """The n at which each replay decides, 0 for none by `most`."""
    import numpy as np

    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // most)
    parts = []
    for start in range(0, replays, step):
        draws = rng.normal(effect, sd, size=(min(step, replays - start), most))
        if asked.claims:
            found = first_claims(one_sided_sequence(draws, asked.main, alpha, prior_variance), asked.claims)
        else:
            found = first_crossings(confidence_sequence(draws, alpha, prior_variance), alpha, asked.margin)
        parts.append(found[0])
    return np.concatenate(parts)


def _sign_flip_ps(draws: NDArray[np.float64], seed: int, sides: int) -> NDArray[np.float64]:
    """Sign-flip p of every row (one side: that the mean is above 0); beyond 16 blocks 1,023 random patterns for all."""
    import numpy as np

    n = draws.shape[1]
    if n <= MOST_EXACT_BLOCKS:
        # a pattern and its negative have the same |sum|
        codes = np.arange(2 ** (n - 1) if sides == 2 else 2**n, dtype=np.int64)
        signs = 1.0 - 2.0 * ((codes[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(1024, n))
        signs[0] = 1.0
    step = max(1, _CHUNK // len(signs))
    parts = []
    for start in range(0, len(draws), step):
        rows = draws[start : start + step]
        sums, observed = rows @ signs.T, rows.sum(axis=1, keepdims=True)
        slack = 1e-12 * np.abs(observed)
        if sides == 2:
            sums, observed = np.abs(sums), np.abs(observed)
        parts.append((sums >= observed - slack).mean(axis=1))
    return np.concatenate(parts)


def _wilcoxon_ps(draws: NDArray[np.float64], sides: int) -> NDArray[np.float64]:
    import numpy as np
    from scipy.stats import wilcoxon

    return np.asarray(wilcoxon(draws, axis=1, alternative="two-sided" if sides == 2 else "greater").pvalue)


def _wilson(found: int, replays: int, method: str) -> Interval:
    """Wilson's 95 % score interval of a share."""
    z, share = 1.959964, found / replays
    centre = (share + z**2 / (2 * replays)) / (1 + z**2 / replays)
    half = z / (1 + z**2 / replays) * math.sqrt(share * (1 - share) / replays + z**2 / (4 * replays**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), 0.95, method, replays)


def _check_replays(replays: int) -> None:
    if replays < 100:
        raise AnalysisError(f"replays = {replays} cannot show a share; ask for 1000 or more")
