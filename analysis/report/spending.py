"""What a sweep cost: trials, FLOPs, hours, machine, with failed and tuning trials included.

Called by `summary`. Everything is what the journal recorded; what it did not record is said to be absent.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from stackwise_ray.core.quantities import format_count, format_seconds

from ..paired.answer_words import listed
from ..table.sweep_directory import Sweep
from .setup_words import Fact

if TYPE_CHECKING:
    from stackwise_ray.core.records import Role, TrialRecord

_ROLES: dict[Role, tuple[str, str]] = {
    "replicate": ("replicate", "replicates"),
    "tuning": ("tuning", "tuning"),
    "search": ("search", "search"),
}
"""What one trial of a role is called, and several."""


def cost_facts(sweep: Sweep) -> tuple[Fact, ...]:
    """One line per kind of cost."""
    facts = [
        Fact("trials", _trials(sweep), measured=True),
        Fact("training FLOPs", _training(sweep), measured=True),
        Fact("evaluation FLOPs", _evaluation(sweep), measured=True),
        Fact("time", _time(sweep), measured=True),
        Fact("machine", _machine(sweep)),
    ]
    return tuple(fact for fact in facts if fact.text)


def _trials(sweep: Sweep) -> str:
    trials = sweep.distinct_trials
    roles = Counter(trial.role for trial in trials)
    by_role = ", ".join(f"{roles[role]} {names[roles[role] > 1]}" for role, names in _ROLES.items() if roles[role])
    states = Counter(trial.status for trial in trials if trial.status != "finished")
    said = {"stopped": "stopped early"}
    others = ", ".join(f"{count} {said.get(state, state)}" for state, count in states.items())
    number = f"{len(trials)} trial{'s' if len(trials) != 1 else ''}"
    return f"{number} ({by_role}), {others or 'none failed'}"


def _spent(sweep: Sweep, trial: TrialRecord) -> float | None:
    """Training FLOPs of a trial; of one that did not finish, those of its last report."""
    return trial.metrics.get("flops/total", sweep.last_flops.get(trial.trial_id))


def _training(sweep: Sweep) -> str:
    by_role: dict[Role, float] = {}
    unknown, ended_early = 0, False
    for trial in sweep.distinct_trials:
        flops = _spent(sweep, trial)
        if flops is None:
            unknown += trial.status != "pending"
            continue
        ended_early |= "flops/total" not in trial.metrics
        by_role[trial.role] = by_role.get(trial.role, 0.0) + flops
    if not by_role:
        return "not recorded"
    text = format_count(sum(by_role.values()))
    if len(by_role) > 1:
        text += f" ({', '.join(f'{_ROLES[role][1]} {format_count(flops)}' for role, flops in by_role.items())})"
    text += ", trials that did not finish up to their last report" if ended_early else ""
    return text + (f"; not recorded for {unknown} of {len(sweep.distinct_trials)} trials" if unknown else "")


def _evaluation(sweep: Sweep) -> str:
    found = [
        trial.metrics["flops/evaluation"] for trial in sweep.distinct_trials if "flops/evaluation" in trial.metrics
    ]
    return f"{format_count(sum(found))}, outside the budget" if found else ""


def _time(sweep: Sweep) -> str:
    begun = [trial for trial in sweep.distinct_trials if trial.attempts]
    known = [sweep.seconds[trial.trial_id] for trial in begun if trial.trial_id in sweep.seconds]
    if not known:
        return "not recorded"
    some = f" ({len(known)} of {len(begun)} trials)" if len(known) < len(begun) else ""
    text = f"{format_seconds(sum(known))} of trials added up{some}"
    if sweep.span is None:
        return text
    start, end = sweep.span
    return f"{text}; {format_seconds(end - start)} from the first start to the last end"


def _machine(sweep: Sweep) -> str:
    seen: dict[str, None] = {}
    for trial in sweep.distinct_trials:
        facts = trial.environment
        cpu = f"{facts['cpu']}, {facts['cores']} cores" if "cpu" in facts and "cores" in facts else ""
        device = f"trained on {facts['device']}" if "device" in facts else ""
        torch = f"torch {facts['torch']}" if "torch" in facts else ""
        text = ", ".join(part for part in (cpu, device, torch) if part)
        if text:
            seen[text] = None
    return listed(list(seen)) if len(seen) <= 3 else f"{len(seen)} different machines, see Provenance"
