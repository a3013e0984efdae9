"""What would change the answer of a sweep: its weak points, the weakest first.

Called by `summary`. Each one is computed from the runs or read from the journal; a sweep without a weakness of one kind
has no line about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackwise_ray.core.metric_catalogue import format_size, with_unit
from stackwise_ray.core.quantities import format_count

from ..anytime.verdict import SequentialComparison
from ..paired.answer_words import counted, listed
from ..paired.comparison import FEWEST_BLOCKS, Comparison
from ..table.sweep_directory import Sweep
from .arm_summary import ArmSummary
from .reported_steps import Answer
from .setup_words import untuned

_MOST_NAMES = 4
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
    lead = next((one for one in results if isinstance(one, Comparison | SequentialComparison)), None)
    found: list[Limit] = []
    for result in results:
        found += [Limit(text) for text in getattr(result, "caveats", ())]
    if isinstance(lead, Comparison):
        found += [*_undecided(lead), *_notes(lead), *_seeds(lead)]
        if not any(asked.declared for asked in sweep.questions.comparisons):
            found.append(Limit("The file declares no comparison: this one follows from its baseline."))
    elif lead is not None:
        found += [*_open(lead), *(Limit(f"{note}.") for note in lead.notes)]
    found += [*_failed(sweep), *_searched(sweep, arms), *_at_the_edge(sweep)]
    rate = untuned(sweep)
    if rate is not None:
        found.append(Limit(f"{_capital(rate)}."))
    found += _scope(sweep)
    return tuple(dict.fromkeys(found))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _named(names: Sequence[str]) -> str:
    return listed(list(names)) if len(names) <= _MOST_NAMES else f"{counted(len(names))} arms"


def _more(low: int, high: int) -> str:
    return f"{low:,} to {high:,}" if low != high else f"{low:,}"


def _undecided(found: Comparison) -> Iterator[Limit]:
    undecided = [result for result in found.arms if result.verdict == "undecided"]
    short = [result for result in undecided if result.n < FEWEST_BLOCKS]
    if short:
        names = tuple(result.arm for result in short)
        has = "has" if len(names) == 1 else "have"
        yield Limit(
            f"{_named(names)} {has} fewer than {FEWEST_BLOCKS} seeds in common with {found.baseline}: no "
            f"verdict is possible.",
            names,
        )
    planned = [result for result in undecided if result not in short and result.more_seeds]
    if not planned:
        return
    seeds = sorted(result.more_seeds or 0 for result in planned)
    names = tuple(result.arm for result in planned)
    if len(planned) <= _MOST_NAMES:
        each = listed([f"{result.arm} (about {result.more_seeds:,} more seeds)" for result in planned])
        which = f"Undecided: {each}."
    else:
        which = f"{_capital(counted(len(planned)))} arms are undecided (about {_more(seeds[0], seeds[-1])} more seeds)."
    yield Limit(
        f"{which} So many seeds in a new sweep would decide, if difference and noise are as observed (power .8).", names
    )


def _open(found: SequentialComparison) -> Iterator[Limit]:
    names = tuple(arm for arm, verdict in found.verdicts.items() if verdict.decision == "undecided")
    if names:
        yield Limit(f"Undecided: {_named(names)}. A higher replicates.seeds.max may decide.", names)


def _notes(found: Comparison) -> Iterator[Limit]:
    """What the comparison itself remarks."""
    yield from (Limit(f"{_capital(note)}.") for note in found.notes)
    by_note: dict[str, list[str]] = {}
    for result in found.arms:
        for note in result.notes:
            by_note.setdefault(note, []).append(result.arm)
    for note, names in by_note.items():
        yield Limit(f"{_named(names)}: {note}.", tuple(names))


def _seeds(found: Comparison) -> Iterator[Limit]:
    known = [result for result in found.arms if result.minimum_detectable_effect is not None]
    if not known:
        return
    largest = max(known, key=lambda result: result.minimum_detectable_effect or 0.0)
    counts = sorted({result.n for result in known})
    size = with_unit(found.metric, format_size(found.metric, largest.minimum_detectable_effect or 0.0))
    yield Limit(
        f"With {_more(counts[0], counts[-1])} seeds per arm, a true difference of less than {size} would be missed in "
        f"more than one of five such sweeps.",
        (largest.arm,),
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
    """Whether a number lies in the outermost twentieth of the range that it was drawn from."""
    if not isinstance(domain, Mapping) or not isinstance(value, (int, float)) or isinstance(value, bool):
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


def _at_the_edge(sweep: Sweep) -> Iterator[Limit]:
    """Tuned values that are the least or the greatest of those that were tried."""
    found: dict[tuple[str, str], list[str]] = {}
    for arm, tuned in sweep.tuning.items():
        for path, value in tuned.values.items():
            tried = {(trial.get("values") or {}).get(path) for trial in tuned.trials} - {None}
            numbers = sorted(number for number in tried if isinstance(number, (int, float)))
            if len(numbers) > 1 and value in (numbers[0], numbers[-1]):
                found.setdefault((path, "lowest" if value == numbers[0] else "highest"), []).append(arm)
    for (path, end), names in found.items():
        yield Limit(
            f"{_named(names)}: the chosen {path} is the {end} that was tried; a better one may lie outside.",
            tuple(names),
        )


def _scope(sweep: Sweep) -> Iterator[Limit]:
    """The data, the sizes and the tokens that the answer is about."""
    corpora = sorted({trial.config.get("data", {}).get("corpus") for trial in sweep.trials if trial.config} - {None})
    spans = [
        f"{text} {name}"
        for column, name in (("params_total", "parameters"), ("tokens", "training tokens"))
        if (text := _span(sweep, column))
    ]
    about = [f"one corpus ({corpora[0]})"] if len(corpora) == 1 else []
    about += [f"models of {spans[0]}", *spans[1:]] if spans else []
    if about:
        yield Limit(f"{_capital(', '.join(about))}: nothing here shows that it holds for others.")


def _span(sweep: Sweep, column: str) -> str:
    if column not in sweep.runs.columns or not sweep.runs[column].notna().any():
        return ""
    low, high = (format_count(float(end)) for end in (sweep.runs[column].min(), sweep.runs[column].max()))
    return low if low == high else f"{low} to {high}"
