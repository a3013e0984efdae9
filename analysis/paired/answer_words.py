"""What a comparison says in one plain sentence: who is ahead, by how much, and how much of it is decided.

`Comparison` and `SequentialComparison` are an `AnsweredView`: what was asked, and each arm against the baseline. Their
sentence is the same in the report, on the terminal and in JSON.
Intervals and p values are in the tables and the figure.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stackwise_ray.core.comparison_records import Hypothesis, Side, reference_name
from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import badness, format_size, good_direction, metric_name, with_unit
from stackwise_ray.core.quantities import ABSENT

from ..render import GridView

Decision = Literal["better", "non_inferior", "worse", "inferior", "equivalent", "undecided"]
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_BUDGETS = {"flops": "FLOPs", "wall_seconds": "wall time", "peak_bytes": "peak memory"}
MOST_NAMES = 3
"""Arms that a sentence names; more are counted."""


@dataclass(frozen=True)
class Phrase:
    """A piece of a sentence; `arm`: whose runs its numbers come from."""

    text: str
    arm: str | None = None


@dataclass(frozen=True)
class Standing:
    """An arm against the baseline: the decision and the mean difference, arm − baseline (None: no complete block)."""

    arm: str
    decision: Decision
    difference: float | None


@dataclass(frozen=True, kw_only=True, repr=False)
class AnsweredView(GridView):
    """What was asked of the arms, and what it says about each: the answer is one sentence for every kind of comparison.

    Attributes:
        assumed: Whether nobody said which way is better, and no record of the metric does.
        budgets: Which budget was checked and found equal; None: none was checked.
        baseline: None where every arm is compared with the target.
        target: None where every arm is compared with the baseline.
        hypothesis, side: What is tested of a difference.
        margin: Differences within ± margin are equivalent, or losses below it not inferior; None: not tested.
        family: Arms that are compared, those included that have no run yet.
    """

    metric: str
    baseline: str | None
    target: float | None = None
    hypothesis: Hypothesis = "different"
    side: Side = "both"
    direction: Direction
    assumed: bool
    budgets: str | None
    margin: float | None
    family: int

    @property
    @abstractmethod
    def standings(self) -> list[Standing]:
        """Each arm against the baseline, in the order of the table."""

    @property
    def sentence(self) -> str:
        """The answer in one plain sentence; intervals and p values are in the table."""
        return "".join(phrase.text for phrase in self.phrases)

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """The sentence in pieces; every number is in a piece of its own, with the arm that it comes from."""
        sign = badness(self.direction)
        order = sorted(self.standings, key=lambda one: math.inf if one.difference is None else sign * one.difference)
        phrases = [*_lead(order, self), Phrase(_decided(order, self))]
        if self.side != "both":
            phrases.append(Phrase(f"; one-sided: only whether an arm is {self.side} was tested"))
        if self.assumed:
            phrases.append(Phrase(f"; it is assumed that {good_direction(self.direction)}"))
        return (*(phrase for phrase in phrases if phrase.text), Phrase("."))

    @property
    def at(self) -> str:
        """The end of a clause: the budget that was equal."""
        if self.target is not None:
            return ""
        return f" at equal {budget_name(self.budgets)}" if self.budgets else " (budgets not checked)"

    def size(self, difference: float | None) -> str:
        """How large a difference is, with its unit where the metric's name does not give it."""
        return ABSENT if difference is None else with_unit(self.metric, format_size(self.metric, abs(difference)))

    @property
    def reference(self) -> str:
        """What the arms are compared with, in a sentence."""
        return reference_name(self.baseline, self.target)

    @property
    def wanted(self) -> str:
        """The way that is better."""
        return "lower" if self.direction == "minimize" else "higher"

    @property
    def unwanted(self) -> str:
        """The way that is worse."""
        return "higher" if self.direction == "minimize" else "lower"


def budget_name(budget: str) -> str:
    """A budget in words.

    >>> budget_name("flops"), budget_name("tokens")
    ('FLOPs', 'tokens')
    """
    return _BUDGETS.get(budget, budget)


def counted(number: int) -> str:
    """A small number as a word.

    >>> counted(0), counted(10), counted(11)
    ('no', 'ten', '11')
    """
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"]), listed(["a", "b"], "or")
    ('a, b and c', 'a or b')
    """
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def arms_named(names: Sequence[str]) -> str:
    """A few arms by their names, many by their number.

    >>> arms_named(["a", "b"]), arms_named("abcdefg")
    ('a and b', 'seven arms')
    """
    return listed(names) if len(names) <= MOST_NAMES else f"{counted(len(names))} arms"


def first_names(names: Sequence[str]) -> str:
    """The first arms of a remark by their names, and how many more there are.

    >>> first_names(["a", "b"]), first_names("abcdefg")
    ('a, b', 'a, b, c and 4 more')
    """
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= MOST_NAMES else f"{', '.join(names[:MOST_NAMES])} and {more} more"


def as_sentence(note: str) -> str:
    """A note as a sentence of its own.

    >>> as_sentence("no run has finished")
    'No run has finished.'
    """
    return f"{note[:1].upper()}{note[1:]}."


def _lead(order: Sequence[Standing], asked: AnsweredView) -> list[Phrase]:
    """The clause on who is ahead."""
    name, to, at = metric_name(asked.metric), asked.reference, asked.at
    kinds: tuple[Decision, ...] = ("better", "worse", "equivalent")
    of = {kind: [one for one in order if one.decision == kind] for kind in kinds}
    if of["better"]:
        return _reaches(of["better"][0], asked.wanted, asked)
    if asked.hypothesis == "non_inferior":
        return _not_inferior(order, asked)
    if len(of["worse"]) == asked.family == 1:
        return _reaches(of["worse"][0], asked.unwanted, asked)
    if of["worse"] and len(of["worse"]) == asked.family:
        return _beaten(of["worse"][0], asked)
    if of["worse"]:
        return [Phrase(f"No arm is found to reach {asked.wanted} {name} than {to}{at}")]
    if of["equivalent"]:
        who, are = _named(of["equivalent"])
        return [Phrase(f"{who} {are} equivalent to {to} in {name}{at}, within ±{asked.size(asked.margin)}")]
    way = asked.unwanted if asked.side == "worse" else asked.wanted
    if asked.family == 1 and order:
        return [Phrase(f"It is undecided whether {order[0].arm} reaches {way} {name} than {to}{at}")]
    return [Phrase(f"None of the {counted(asked.family)} differences from {to} in {name} is decided{at}")]


def _named(arms: Sequence[Standing]) -> tuple[str, str]:
    """The arms of a clause, and its verb."""
    return arms_named([one.arm for one in arms]), "is" if len(arms) == 1 else "are"


def _beaten(nearest: Standing, asked: AnsweredView) -> list[Phrase]:
    """The clause on a baseline, or a target, that nobody reaches."""
    name, most = metric_name(asked.metric), "lowest" if asked.wanted == "lower" else "highest"
    if asked.target is None:
        lead = f"{asked.baseline} reaches the {most} {name}{asked.at}"
    else:
        lead = f"No arm reaches {asked.reference} in {name}"
    return [
        Phrase(f"{lead}: the nearest arm, {nearest.arm}, is "),
        Phrase(asked.size(nearest.difference), nearest.arm),
        Phrase(f" {asked.unwanted}"),
    ]


def _not_inferior(order: Sequence[Standing], asked: AnsweredView) -> list[Phrase]:
    """The clause on arms that are not inferior, where none is better."""
    what = f"{asked.reference} in {metric_name(asked.metric)}{asked.at}"
    margin = f" by the margin of {asked.size(asked.margin)}"
    good = [one for one in order if one.decision == "non_inferior"]
    if good:
        who, are = _named(good)
        return [Phrase(f"{who} {are} non-inferior to {what},{margin}")]
    bad = [one for one in order if one.decision == "inferior"]
    if bad and len(bad) == asked.family:
        who, are = _named(bad)
        return [Phrase(f"{who} {are} inferior to {what},{margin}")]
    if asked.family == 1 and order:
        return [Phrase(f"It is undecided whether {order[0].arm} is non-inferior to {what},{margin}")]
    return [Phrase(f"No arm is found to be non-inferior to {what},{margin}")]


def _reaches(arm: Standing, way: str, asked: AnsweredView) -> list[Phrase]:
    return [
        Phrase(f"{arm.arm} reaches "),
        Phrase(asked.size(arm.difference), arm.arm),
        Phrase(f" {way} {metric_name(asked.metric)} than {asked.reference}{asked.at}"),
    ]


def _decided(order: Sequence[Standing], asked: AnsweredView) -> str:
    """The clause on how much is decided; empty where the lead says it."""
    decisions: Counter[Decision] = Counter(one.decision for one in order if one.decision != "undecided")
    number = sum(decisions.values())
    if number == 0:
        return ""
    kinds = [kind for kind in _KINDS if decisions[kind]]
    if asked.family == 1:
        [kind] = kinds
        return f"; the difference is decided ({kind})" if kind in ("better", "worse") else ""
    tally = f" ({', '.join(f'{counted(decisions[kind])} {decision_name(kind)}' for kind in kinds)})"
    if len(kinds) == 1:
        tally = "" if number == 1 else f" ({'both' if number == 2 else 'all'} {decision_name(kinds[0])})"
    if number == asked.family:
        return f"; {'both' if number == 2 else f'all {counted(number)}'} differences are decided{tally}"
    rest = ""
    open_arms = [one for one in order if one.decision == "undecided"]
    if len(open_arms) == asked.family - number:
        who, are = _named(open_arms)
        rest = f"; {who} {are} undecided"
    return f"; {counted(number)} of {counted(asked.family)} differences {'is' if number == 1 else 'are'} decided" + (
        f"{tally}{rest}"
    )


_KINDS: tuple[Decision, ...] = ("better", "non_inferior", "worse", "inferior", "equivalent")


def decision_name(decision: Decision) -> str:
    """A decision as a word.

    >>> decision_name("non_inferior"), decision_name("better")
    ('non-inferior', 'better')
    """
    return decision.replace("_", "-")
