"""What is asked of a difference: whether there is one, on which side, or whether an arm is not worse by a margin.

Called by `significance` for a fixed number of blocks and by `sequential` for verdicts at any time. A difference is
arm − baseline, or arm − target.

- `different`, side `both`: null: the true mean difference is 0. With a margin, equivalence is tested beside it.
- `different`, side `better` (or `worse`): null: the true mean difference is 0 or worse (or better); one-sided.
- `non_inferior`: null: the arm is worse by the margin or more; one-sided. Two more one-sided claims have a null of
  their own: `better` (null: 0 or worse) and `inferior` (null: worse by the margin or less). Each kind of claim is made
  wrongly with probability α at most, over all arms.

Source: Piaggio et al. (2012), "Reporting of noninferiority and equivalence randomized trials", JAMA 308; Morikawa and
Yoshida (1995), J. Biopharmaceutical Statistics 5, for superiority after non-inferiority at the same level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stackwise_ray.core.comparison_records import Hypothesis, Side
from stackwise_ray.core.errors import AnalysisError, did_you_mean
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import badness

from .answer_words import Decision
from .deciding_tests import Alternative

HYPOTHESES = ("different", "non_inferior")
SIDES = ("both", "better", "worse")


@dataclass(frozen=True)
class Claim:
    """A one-sided claim on the mean difference: that it is below (`less`) or above (`greater`) a threshold."""

    decision: Decision
    threshold: float
    alternative: Alternative


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is tested of every difference.

    Raises:
        AnalysisError: Parts that exclude each other, or a name that is none.
    """

    direction: Direction
    hypothesis: Hypothesis = "different"
    side: Side = "both"
    margin: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("hypothesis", self.hypothesis, HYPOTHESES), ("side", self.side, SIDES)):
            if value not in known:
                raise AnalysisError(f"{name} = '{value}' is not known; {did_you_mean(value, known)}")
        check_question(self.hypothesis, self.side, self.margin)

    @property
    def equivalence(self) -> float | None:
        """The margin of an equivalence test; None: none is made."""
        return None if self.claims else self.margin

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The one-sided claims, what is decided by the first that holds; (): two sides are tested."""
        if self.hypothesis == "different" and self.side == "both":
            return ()
        good: Alternative = "less" if self.direction == "minimize" else "greater"
        bad: Alternative = "greater" if self.direction == "minimize" else "less"
        if self.hypothesis == "different":
            return (Claim("better", 0.0, good) if self.side == "better" else Claim("worse", 0.0, bad),)
        assert self.margin is not None, "checked when it was made"
        edge = badness(self.direction) * self.margin
        return (Claim("better", 0.0, good), Claim("non_inferior", edge, good), Claim("inferior", edge, bad))

    @property
    def main(self) -> Claim:
        """The claim that the comparison is made for; its p is the p of an arm."""
        return next(claim for claim in self.claims if claim.decision in ("non_inferior", self.side))

    def ends(self, low: float, high: float) -> tuple[float, float]:
        """An interval whose ends are one-sided bounds, without the end that is not asked for."""
        if len(self.claims) != 1:
            return low, high
        return (-math.inf, high) if self.main.alternative == "less" else (low, math.inf)


def check_question(hypothesis: Hypothesis, side: Side, margin: float | None) -> None:
    """Refuse parts of a question that exclude each other.

    Raises:
        AnalysisError: With what to write instead.
    """
    if hypothesis == "non_inferior" and margin is None:
        raise AnalysisError("hypothesis = non_inferior needs a margin: the largest loss that does not matter")
    if hypothesis == "non_inferior" and side != "both":
        raise AnalysisError(f"side = {side}: non-inferiority is one-sided by itself; leave the side out")
    if side != "both" and margin is not None:
        raise AnalysisError(
            f"side = {side} and margin = {margin:g}: a margin on one side is non-inferiority (hypothesis = "
            f"non_inferior), and on both sides equivalence (side = both)"
        )
