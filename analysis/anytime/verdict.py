"""What an anytime-valid analysis found: frozen results, and how they print.

Made by `sequential`; nothing is computed here beyond choosing words and digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stackwise_ray.core.comparison_records import Hypothesis, Side
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import format_difference, good_direction
from stackwise_ray.core.quantities import ABSENT, format_share

from ..paired.answer_words import MOST_NAMES, AnsweredView, Decision, Phrase, Standing, decision_name
from ..paired.comparison import folded, missing_text
from ..paired.intervals import Interval
from ..render import Grid, GridView
from ..table.block_order import BY_ROWS
from ..table.blocks import Missing


@dataclass(frozen=True, kw_only=True, repr=False)
class Verdict(GridView):
    """What the differences so far decide; a decision, once made, stays.

    Attributes:
        metric: What the differences are of; None: numbers of nobody's metric.
        decision: "better", "worse", "equivalent" or "undecided"; for non-inferiority "better", "non_inferior",
            "inferior" or "undecided", where "better" takes the place of "non_inferior" once it is found.
        interval: Means that no prefix rejects at level `alpha`, around the mean of all n; None where it is still
            infinite, or empty, with the reason in `notes`. With one side it has one finite end; for non-inferiority
            each end is a bound of its own at level `alpha`.
        e_value: E-process at n against a mean of 0 (for non-inferiority: against being worse by the margin or more);
            `1 / alpha` decides. None without variance.
        n: Differences used.
        decided_at: The n at which the decision fell; None while undecided.
        seeds_possible: First n at which any decision is possible.
    """

    metric: str | None = None
    decision: Decision
    interval: Interval | None
    e_value: float | None
    n: int
    decided_at: int | None
    seeds_possible: int
    mean: float | None
    alpha: float
    margin: float | None
    hypothesis: Hypothesis = "different"
    side: Side = "both"
    direction: Direction
    prior_variance: float
    notes: tuple[str, ...] = ()

    @property
    def difference_text(self) -> str:
        """Mean difference with its interval, or what there is of it."""
        if self.interval is not None:
            found = self.interval
            return format_difference(self.metric, found.estimate, (found.low, found.high))
        return ABSENT if self.mean is None else format_difference(self.metric, self.mean)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        when = f"after {self.decided_at} of {self.n} differences" if self.decided_at else f"n = {self.n}"
        decided = f"{decision_name(self.decision)} {when}" if self.decided_at else f"undecided, {when}"
        return f"{decided} ({self.difference_text}, {_e_text(self)}{_question(self)})"

    @property
    def grid(self) -> Grid:
        """One row with everything; the notes below."""
        return _grid([("", self)], f"anytime-valid at level {self.alpha:g}{_question(self)}", self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, `sentence` included."""
        return {**asdict(self), "sentence": self.sentence}


@dataclass(frozen=True, kw_only=True, repr=False)
class SequentialComparison(AnsweredView):
    """Every arm against the baseline, each with a verdict that holds at any time.

    Attributes:
        verdicts: By arm, in the order of the table.
        alpha: Over the whole family; each verdict holds its share of it as its own `alpha`.
        blocks: Complete blocks by arm, in the order that was used.
        order: What the blocks are in the order of, in words.
        missing, exclusions, notes: As in `Comparison`.
    """

    alpha: float
    correction: str
    block: str
    verdicts: Mapping[str, Verdict]
    blocks: Mapping[str, tuple[str, ...]]
    missing: tuple[Missing, ...] = ()
    exclusions: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    order: str = BY_ROWS

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """As of every comparison; where the rows are the only order of the blocks, the sentence says so."""
        *phrases, end = super().phrases
        if self.order == BY_ROWS:
            phrases.append(Phrase(f"; blocks count in the order of {BY_ROWS}"))
        return (*phrases, end)

    @property
    def level(self) -> float:
        """The share of alpha at which each arm is decided."""
        return next(iter(self.verdicts.values())).alpha

    def __getitem__(self, arm: str) -> Verdict:
        """The verdict on one arm."""
        return self.verdicts[arm]

    @property
    def standings(self) -> list[Standing]:
        """Each arm with its verdict so far."""
        return [Standing(arm, verdict.decision, verdict.mean) for arm, verdict in self.verdicts.items()]

    @property
    def grid(self) -> Grid:
        """One row per arm; what must stand beside the verdicts below."""
        arms = f"{self.family} arm{'s' if self.family > 1 else ''}"
        good = good_direction(self.direction, assumed=self.assumed)
        question = _question(next(iter(self.verdicts.values())))
        title = f"{self.metric} ({good}), mixture-t e-process, level {self.alpha:g} over {arms}{question}"
        return _grid(list(self.verdicts.items()), title, [line for line, _ in self.remarks_of_arms()])

    def remarks_of_arms(self) -> list[tuple[str, tuple[str, ...]]]:
        """As `Comparison.remarks_of_arms`."""
        every = (*((self.baseline,) if self.baseline is not None else ()), *self.verdicts)
        lines: list[tuple[str, tuple[str, ...]]] = [
            (f"each arm at level {self.level:.3g} ({self.correction}); blocks in the order of {self.order}", ())
        ]
        lines.append(("valid at any time: seeds that are added because of a look make no false alarm likelier", ()))
        if self.hypothesis == "non_inferior":
            lines.append(("each end of an interval is a one-sided bound of its own at the level of the arm", ()))
        if len(self.verdicts) <= MOST_NAMES:
            lines += [(self._when(arm), (arm,)) for arm, verdict in self.verdicts.items() if verdict.decided_at]
        lines += [(f"equal {self.budgets}", every)] if self.budgets else []
        lines += [(note, every) for note in self.notes]
        lines += folded([(missing_text(item, self.block), (item.arm,)) for item in self.missing])
        found = [(f"{arm}: {note}", (arm,)) for arm, verdict in self.verdicts.items() for note in verdict.notes]
        return lines + folded(found)

    def _when(self, arm: str) -> str:
        verdict = self.verdicts[arm]
        last = self.blocks[arm][(verdict.decided_at or 0) - 1]
        return f"{arm}: decided after {verdict.decided_at} of {verdict.n} blocks, with {self.block} {last}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, sentences included."""
        verdicts = {arm: verdict.to_dict() for arm, verdict in self.verdicts.items()}
        return {**asdict(self), "verdicts": verdicts, "sentence": self.sentence}


def _question(verdict: Verdict) -> str:
    """What is tested on one side, as the end of a list."""
    if verdict.hypothesis == "non_inferior":
        return f", non-inferiority by a margin of {verdict.margin:g}"
    return "" if verdict.side == "both" else f", one-sided ({verdict.side})"


def format_e(e_value: float | None) -> str:
    """An e-value with its scale: how many times likelier the data are under the claim.

    >>> format_e(163.2), format_e(1.9e22), format_e(2e-7), format_e(0.4)
    ('163', '> 10,000', '< 0.01', '0.40')
    """
    if e_value is None:
        return ABSENT
    if e_value > _LARGEST_E:
        return f"> {_LARGEST_E:,}"
    if e_value < 1 / 100:
        return "< 0.01"
    return f"{e_value:,.0f}" if e_value >= 10 else f"{e_value:.2f}"


_LARGEST_E = 10_000
"""Beyond it an e-value says no more: it has decided at any level."""


def _e_text(verdict: Verdict) -> str:
    if verdict.e_value is None:
        return "no e-value"
    shown = format_e(verdict.e_value)
    return f"e-value {shown}, decisive from {1 / verdict.alpha:.3g}"


def _grid(verdicts: Sequence[tuple[str, Verdict]], title: str, notes: Sequence[str]) -> Grid:
    """One row per verdict; the column of arms only where there are names."""
    first = verdicts[0][1]
    level = format_share(1 - (2 if first.hypothesis == "non_inferior" else 1) * first.alpha)
    difference = f"difference [{level}{'' if first.side == 'both' else ', one-sided'}]"
    e_value = f"e-value ({1 / first.alpha:.3g} decides)"
    columns: tuple[str, ...] = ("arm", difference, "verdict", "decided after", "n", e_value)
    rows: list[tuple[str, ...]] = [
        (
            arm,
            verdict.difference_text,
            decision_name(verdict.decision),
            f"{verdict.decided_at} of {verdict.n}" if verdict.decided_at else "–",
            str(verdict.n),
            format_e(verdict.e_value),
        )
        for arm, verdict in verdicts
    ]
    if not any(arm for arm, _ in verdicts):
        columns = columns[1:]
        rows = [row[1:] for row in rows]
    numeric = tuple(index for index, name in enumerate(columns) if name not in ("arm", "verdict"))
    return Grid(columns, tuple(rows), title, tuple(notes), numeric)
