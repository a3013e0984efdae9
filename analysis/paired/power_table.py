"""What `python -m analysis power` prints: seeds and power of one question, as a table, sentences and plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackwise_ray.core.comparison_records import Hypothesis, Side
from stackwise_ray.core.errors import AnalysisError

from ..render import Grid
from .hypotheses import Asked
from .power import minimum_detectable_effect, seeds_needed
from .power import power as power_of_test

_COUNTS = (2, 3, 5, 8, 10, 15, 20, 30)


@dataclass(frozen=True, kw_only=True)
class PowerTable:
    """The power of a t test at several numbers of seeds.

    Attributes:
        effect: The true difference; None: only what n seeds can find was asked.
        facts: The content of the JSON.
        lines: The answers in sentences.
    """

    asked: Asked
    sd: float
    alpha: float
    effect: float | None
    facts: Mapping[str, Any]
    lines: tuple[str, ...]

    def grid(self, lines: Sequence[str]) -> Grid:
        """One row per number of seeds; `lines` below."""
        rows = tuple((str(count), f"{value:.3f}") for count, value in self.facts.get("power", {}).items())
        heading = "power" if self.effect is None else f"power at {self.effect:g}"
        return Grid(("seeds", heading), rows, _title(self.asked, self.sd, self.alpha), tuple(lines), (0, 1))


def power_table(
    sd: float,
    *,
    effect: float | None,
    n: int | None,
    power: float = 0.8,
    alpha: float = 0.05,
    hypothesis: Hypothesis = "different",
    margin: float | None = None,
    side: Side = "both",
) -> PowerTable:
    """Seeds and power of a comparison.

    Args:
        effect: True mean difference; for non-inferiority how much worse the arm is, and 0 where it is None.
        n: Seeds of which the smallest detectable effect (the smallest margin) is asked.

    Raises:
        AnalysisError: Nothing was asked, a margin without non-inferiority, or a value outside its range.
    """
    asked = Asked(direction="minimize", hypothesis=hypothesis, side=side, margin=margin)
    if asked.equivalence is not None:
        raise AnalysisError(f"margin = {margin:g} is of non-inferiority here; add --hypothesis non_inferior")
    if margin is not None and effect is None:
        effect = 0.0
    if effect is None and n is None:
        raise AnalysisError("say what to find (--effect) or how many seeds there are (--n), or both")
    sides = 1 if asked.claims else 2
    facts: dict[str, Any] = {"sd_difference": sd, "alpha": alpha, "hypothesis": hypothesis, "side": side}
    facts |= {} if margin is None else {"margin": margin}
    lines = []
    if n is not None:
        least = minimum_detectable_effect(sd, n=n, power=power, alpha=alpha, sides=sides)
        facts |= {"n": n, "minimum_detectable_effect": least}
        lines.append(f"{n} seeds {_finds(asked, least)} with power {power:g}")
    if effect is not None:
        needed = seeds_needed(sd, effect=effect, power=power, alpha=alpha, margin=margin, sides=sides)
        facts |= {"effect": effect, "seeds_needed": needed}
        counts = sorted({*([n] if n else []), *_COUNTS, needed})
        facts["power"] = {
            count: power_of_test(sd, effect=effect, n=count, alpha=alpha, margin=margin, sides=sides)
            for count in counts
        }
        lines.append(f"{_needs(asked, effect)} needs {needed} seeds for power {power:g}")
    return PowerTable(asked=asked, sd=sd, alpha=alpha, effect=effect, facts=facts, lines=tuple(lines))


def _title(asked: Asked, sd: float, alpha: float) -> str:
    question = "" if asked.side == "both" else f", one-sided ({asked.side})"
    if asked.hypothesis == "non_inferior":
        question = f", non-inferiority by a margin of {asked.margin:g} (one-sided)"
    return f"paired t test{question}, sd of the differences {sd:g}, alpha {alpha:g}"


def _finds(asked: Asked, least: float) -> str:
    if asked.hypothesis == "non_inferior":
        return f"find an arm that is as good to be non-inferior by a margin of {least:.3g}"
    return f"find a difference of {'±' if asked.side == 'both' else ''}{least:.3g}"


def _needs(asked: Asked, effect: float) -> str:
    if asked.hypothesis == "non_inferior":
        how = "as good" if effect == 0 else f"{abs(effect):g} {'worse' if effect > 0 else 'better'}"
        return f"finding that an arm that is {how} is not inferior by a margin of {asked.margin:g}"
    return f"a difference of {effect:g}"
