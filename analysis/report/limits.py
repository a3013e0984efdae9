"""What would change the answer of a sweep: its weak points, the weakest first.

Called by `summary`. Each one is computed from the runs or read from the journal; a sweep without a weakness of one kind
has no line about it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from ..anytime.verdict import SequentialComparison
from ..paired.answer_words import MOST_NAMES, AnsweredView, arms_named, as_sentence, listed
from ..paired.comparison import FEWEST_BLOCKS, Comparison
from ..table.sweep_directory import Sweep
from .arm_summary import ArmSummary
from .reported_steps import Answer
from .setup_words import measured_range, untuned

_EDGE = 0.05
"""Share of a searched range that counts as its edge."""


@dataclass(frozen=True)
class Limit:
    """A weak point in words, and the arms that it was found in; (): it is about all, or about none."""

    text: str
    arms: tuple[str, ...] = ()


def limits_of(sweep: Sweep, arms: Sequence[ArmSummary], answers: Sequence[Answer]) -> tuple[Limit, ...]:
    """Everything that speaks against the answer as it is."""
    results = [answer.finding.result for answer in answers if answer.finding is not None]
    lead = next((one for one in results if isinstance(one, AnsweredView)), None)
    found: list[Limit] = []
    for result in results:
        found += [Limit(text) for text in getattr(result, "caveats", ())]
    if isinstance(lead, Comparison):
        found += [*_undecided(lead), *_notes(lead), *_visible(lead)]
        if not any(asked.declared for asked in sweep.questions.comparisons):
            found.append(Limit("The file declares no comparison: this one follows from its baseline."))
    elif isinstance(lead, SequentialComparison):
        found += [*_open(lead), *(Limit(as_sentence(note)) for note in lead.notes)]
    found += [*_failed(sweep), *_searched(sweep, arms), *_at_the_edge(sweep)]
    rate = untuned(sweep)
    if rate is not None:
        found.append(Limit(as_sentence(rate)))
    found += _scope(sweep)
    return tuple(dict.fromkeys(found))


def _span(numbers: Collection[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,} to {high:,}" if low != high else f"{low:,}"


def _more_seeds(*counts: int) -> str:
    return f"{_span(counts)} more seed{'s' if max(counts) != 1 else ''}"


def _undecided(found: Comparison) -> Iterator[Limit]:
    undecided = [result for result in found.arms if result.verdict == "undecided"]
    short = [result for result in undecided if result.n < FEWEST_BLOCKS]
    if short:
        names = tuple(result.arm for result in short)
        has = "has" if len(names) == 1 else "have"
        common = "" if found.baseline is None else f" in common with {found.baseline}"
        yield Limit(
            f"{arms_named(names)} {has} fewer than {FEWEST_BLOCKS} seeds{common}: no verdict is possible.", names
        )
    planned = {result.arm: result.more_seeds for result in undecided if result not in short and result.more_seeds}
    if not planned:
        return
    names = tuple(planned)
    if len(planned) <= MOST_NAMES:
        each = listed([f"{arm} (about {_more_seeds(count)})" for arm, count in planned.items()])
        which = f"Undecided: {each}."
    else:
        which = as_sentence(f"{arms_named(names)} are undecided (about {_more_seeds(*planned.values())})")
    yield Limit(
        f"{which} So many seeds in a new sweep would decide, if difference and noise are as observed (power .8).", names
    )


def _open(found: SequentialComparison) -> Iterator[Limit]:
    names = tuple(arm for arm, verdict in found.verdicts.items() if verdict.decision == "undecided")
    if names:
        yield Limit(f"Undecided: {arms_named(names)}. A higher replicates.seeds.max may decide.", names)


def _notes(found: Comparison) -> Iterator[Limit]:
    """What the comparison itself remarks."""
    yield from (Limit(as_sentence(note)) for note in found.notes)
    for note, names in found.notes_of_arms().items():
        yield Limit(f"{arms_named(names)}: {note}.", names)


def _visible(found: Comparison) -> Iterator[Limit]:
    """The smallest difference that these seeds show."""
    known = [
        (effect, result.arm, result.n)
        for result in found.arms
        if (effect := result.minimum_detectable_effect) is not None
    ]
    if not known:
        return
    effect, arm, _ = max(known)
    counts = [n for *_, n in known]
    if found.hypothesis == "non_inferior":
        yield Limit(
            f"With {_span(counts)} seeds per arm, an arm that is as good as {found.reference} would be found to be "
            f"non-inferior in four of five such sweeps only by a margin of {found.size(effect)} or more.",
            (arm,),
        )
        return
    yield Limit(
        f"With {_span(counts)} seeds per arm, a true difference of less than {found.size(effect)} would be missed in "
        f"more than one of five such sweeps.",
        (arm,),
    )


def _failed(sweep: Sweep) -> Iterator[Limit]:
    """Tuning and search trials that failed; failed replicates are among the remarks of a comparison."""
    for role in ("tuning", "search"):
        trials = [trial for trial in sweep.distinct_trials if trial.role == role]
        failed = [trial for trial in trials if trial.status == "failed"]
        if failed:
            yield Limit(f"{len(failed)} of {len(trials)} {role} trials failed: the choice is among the others.")


def _searched(sweep: Sweep, arms: Sequence[ArmSummary]) -> Iterator[Limit]:
    """How little a search saw of each point, and winners at the edge of what was searched."""
    points = sweep.search_trials
    if not points:
        return
    stopped = sum(trial.status == "stopped" for trial in points)
    early = f"; {stopped} of {len(points)} were stopped early" if stopped else ""
    yield Limit(f"Every point was trained on one seed{early}: another seed may choose another point.")
    space = (sweep.file.get("search") or {}).get("space") or {}
    winners = [arm.point for arm in arms if arm.point and not sweep.is_search]
    for path, domain in space.items():
        values = [point[path] for point in winners if path in point]
        if any(_is_at_edge(value, domain) for value in values):
            yield Limit(f"{path} of the winner is at the edge of its range: a better value may lie outside.")


def _is_at_edge(value: Any, domain: Any) -> bool:
    """Whether a number lies in the outermost twentieth of its range, or is an end of a list of three or more."""
    if not _is_number(value):
        return False
    choices = domain.get("choice") if isinstance(domain, Mapping) else domain
    if isinstance(choices, Sequence) and all(map(_is_number, choices)):
        return len(set(choices)) > 2 and value in (min(choices), max(choices))
    if not isinstance(domain, Mapping):
        return False
    from math import log

    for kind, ends in domain.items():
        if kind not in ("uniform", "log_uniform", "int", "log_int") or not isinstance(ends, Sequence):
            continue
        low, high, at = (float(number) for number in (*ends[:2], value))
        if kind.startswith("log"):
            low, high, at = log(low), log(high), log(at)
        return high > low and min(at - low, high - at) <= _EDGE * (high - low)
    return False


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether a value lies on a scale: switches and lists have no edge."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _at_the_edge(sweep: Sweep) -> Iterator[Limit]:
    """Tuned values that are the least or the greatest of those that were tried."""
    found: dict[tuple[str, str], list[str]] = {}
    for arm, tuned in sweep.tuning.items():
        for path, value in tuned.values.items():
            tried = [(trial.get("values") or {}).get(path) for trial in tuned.trials]
            numbers = [number for number in tried if _is_number(number)]
            if _is_number(value) and len(set(numbers)) > 1 and value in (min(numbers), max(numbers)):
                found.setdefault((path, "lowest" if value == min(numbers) else "highest"), []).append(arm)
    for (path, end), names in found.items():
        yield Limit(
            f"{arms_named(names)}: the chosen {path} is the {end} that was tried; a better one may lie outside.",
            tuple(names),
        )


def _scope(sweep: Sweep) -> Iterator[Limit]:
    """The data, the sizes and the tokens that the answer is about."""
    corpora = sorted({trial.config.get("data", {}).get("corpus") for trial in sweep.trials if trial.config} - {None})
    spans = [
        f"{text} {name}"
        for column, name in (("params_total", "parameters"), ("tokens", "training tokens"))
        if (text := measured_range(sweep, column))
    ]
    about = [f"one corpus ({corpora[0]})"] if len(corpora) == 1 else []
    about += [f"models of {spans[0]}", *spans[1:]] if spans else []
    if about:
        yield Limit(as_sentence(f"{', '.join(about)}: nothing here shows that it holds for others"))
