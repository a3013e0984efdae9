"""What a comparison says in one plain sentence: who is ahead, by how much, and how much of it is decided.

Called by `comparison` and `anytime.verdict`, whose sentence is the same in the report, on the terminal and in JSON.
Intervals and p values are in the tables and the figure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stackwise_ray.core.metric import Direction
from stackwise_ray.core.metric_catalogue import badness, format_size, good_direction, metric_name, with_unit

Decision = Literal["better", "worse", "equivalent", "undecided"]
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_BUDGETS = {"flops": "FLOPs", "wall_seconds": "wall time", "peak_bytes": "peak memory"}
_MOST_NAMES = 3
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


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked of the arms.

    Attributes:
        budgets: Which budget was checked and found equal; None: none was checked.
        margin: Differences within ± margin are equivalent; None: not tested.
        family: Arms that are compared, those included that have no run yet.
    """

    metric: str
    baseline: str
    direction: Direction
    assumed: bool
    budgets: str | None
    margin: float | None
    family: int

    @property
    def at(self) -> str:
        """The end of a clause: the budget that was equal."""
        return f" at equal {budget_name(self.budgets)}" if self.budgets else " (budgets not checked)"

    def size(self, difference: float) -> str:
        """How large a difference is, with its unit where the metric's name does not give it."""
        return with_unit(self.metric, format_size(self.metric, abs(difference)))

    @property
    def wanted(self) -> str:
        """The way that is better."""
        return "lower" if self.direction == "minimize" else "higher"


def budget_name(budget: str) -> str:
    """A budget in words.

    >>> budget_name("flops"), budget_name("tokens")
    ('FLOPs', 'tokens')
    """
    return _BUDGETS.get(budget, budget)


def counted(number: int) -> str:
    """A small number as a word.

    >>> counted(4), counted(40)
    ('four', '40')
    """
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def answer_phrases(standings: Sequence[Standing], asked: Asked) -> tuple[Phrase, ...]:
    """The answer of a comparison; every number is in a phrase of its own, with the arm that it comes from."""
    sign = badness(asked.direction)
    order = sorted(standings, key=lambda one: math.inf if one.difference is None else sign * one.difference)
    phrases = [*_lead(order, asked), Phrase(_decided(order, asked))]
    if asked.assumed:
        phrases.append(Phrase(f"; it is assumed that {good_direction(asked.direction)}"))
    return (*(phrase for phrase in phrases if phrase.text), Phrase("."))


def _lead(order: Sequence[Standing], asked: Asked) -> list[Phrase]:
    """The clause on who is ahead."""
    name, to, at = metric_name(asked.metric), asked.baseline, asked.at
    of = {kind: [one for one in order if one.decision == kind] for kind in ("better", "worse", "equivalent")}
    if of["better"]:
        return _reaches(of["better"][0], asked.wanted, asked)
    if len(of["worse"]) == asked.family == 1:
        return _reaches(of["worse"][0], "higher" if asked.wanted == "lower" else "lower", asked)
    if of["worse"] and len(of["worse"]) == asked.family:
        most = "lowest" if asked.wanted == "lower" else "highest"
        nearest = of["worse"][0]
        return [
            Phrase(f"{to} reaches the {most} {name}{at}: the nearest arm, {nearest.arm}, is "),
            Phrase(asked.size(nearest.difference or 0.0), nearest.arm),
            Phrase(f" {'higher' if asked.wanted == 'lower' else 'lower'}"),
        ]
    if of["worse"]:
        return [Phrase(f"No arm is found to reach {asked.wanted} {name} than {to}{at}")]
    if of["equivalent"]:
        same = of["equivalent"]
        who = listed([one.arm for one in same]) if len(same) <= _MOST_NAMES else f"{counted(len(same))} arms"
        are = "is" if len(same) == 1 else "are"
        margin = with_unit(asked.metric, format_size(asked.metric, asked.margin or 0.0))
        return [Phrase(f"{who} {are} equivalent to {to} in {name}{at}, within ±{margin}")]
    if asked.family == 1 and order:
        return [Phrase(f"It is undecided whether {order[0].arm} reaches {asked.wanted} {name} than {to}{at}")]
    return [Phrase(f"None of the {counted(asked.family)} differences from {to} in {name} is decided{at}")]


def _reaches(arm: Standing, way: str, asked: Asked) -> list[Phrase]:
    return [
        Phrase(f"{arm.arm} reaches "),
        Phrase(asked.size(arm.difference or 0.0), arm.arm),
        Phrase(f" {way} {metric_name(asked.metric)} than {asked.baseline}{asked.at}"),
    ]


def _decided(order: Sequence[Standing], asked: Asked) -> str:
    """The clause on how much is decided; empty where the lead says it."""
    decisions: Counter[str] = Counter(one.decision for one in order if one.decision != "undecided")
    number = sum(decisions.values())
    if number == 0:
        return ""
    if asked.family == 1:
        [kind] = decisions
        return f"; the difference is decided ({kind})" if kind != "equivalent" else ""
    tally = ""
    if len(decisions) > 1:
        kinds = [kind for kind in ("better", "worse", "equivalent") if decisions[kind]]
        counts = ", ".join(f"{counted(decisions[kind])} {kind}" for kind in kinds)
        tally = f" ({counts})"
    if number == asked.family:
        return f"; {'both' if number == 2 else f'all {counted(number)}'} differences are decided{tally}"
    open_arms = [one.arm for one in order if one.decision == "undecided"]
    rest = ""
    if len(open_arms) == asked.family - number <= _MOST_NAMES:
        rest = f"; {listed(open_arms)} {'is' if len(open_arms) == 1 else 'are'} undecided"
    return f"; {counted(number)} of {counted(asked.family)} differences {'is' if number == 1 else 'are'} decided" + (
        f"{tally}{rest}"
    )
