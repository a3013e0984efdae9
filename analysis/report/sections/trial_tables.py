"""The sections of a report that say where its numbers come from: failures, provenance, every run.

Called by `report.compose`. The tables of runs carry the anchors to which every other number links.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackwise_ray.core.metric_catalogue import format_metric
from stackwise_ray.core.quantities import format_bytes, format_count, format_seconds

from ...render import Grid
from ...table.sources.sweep_journal import EARLIER
from ...table.sweep_directory import Sweep
from ..page import ALL_RUNS, Block, Section, Table, arm_anchor, plain, role_anchor, run_anchor
from ..summary import Summary
from .findings import plain_value

if TYPE_CHECKING:
    from stackwise_ray.core.records import TrialRecord


def failures(sweep: Sweep) -> Section:
    """Every trial that did not finish, with its reason; those that were continued; those that do not count."""
    rows, links = [], []
    for trial in sweep.trials:
        if trial.status != "finished":
            reason = trial.reason or "no reason recorded"
            rows.append((trial.arm, str(trial.seed), trial.role, trial.status, reason, trial.trial_id))
            links.append((None,) * 5 + (f"#{run_anchor(trial.trial_id, trial.arm)}",))
    distinct = sweep.distinct_trials
    columns = ("arm", "seed", "role", "state", "reason", "trial")
    table = Table(grid=Grid(columns, tuple(rows), numeric=(1,)), links=tuple(links))
    blocks: list[Block] = [table if rows else plain(f"Nothing: all {len(distinct)} trials finished.")]
    resumed = [f"{trial.trial_id} ({trial.attempts} attempts)" for trial in distinct if trial.attempts > 1]
    if resumed:
        how = "Run on after an interruption, from the last checkpoint or, where there was none yet, from the beginning"
        blocks.append(plain(f"{how}: {', '.join(resumed)}."))
    if sweep.earlier:
        blocks.append(plain(f"Left out, {EARLIER}: {_trials(len(sweep.earlier))} of the journal."))
    return Section("What failed and why", tuple(blocks))


def provenance(sweep: Sweep) -> Section:
    """Hashes, the analysis plan's history, and the environment of driver and trials."""
    meta = sweep.meta
    rows = [("sweep hash", plain_value(meta.get("sweep_hash"))), ("analysis plan", _plan_line(meta))]
    started = meta.get("started_at")
    if isinstance(started, (int, float)):
        rows.append(("started", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(started))))
    if sweep.earlier:
        rows.append(("left out", f"{_trials(len(sweep.earlier))} {EARLIER}"))
    for plugin in meta.get("plugins") or ():
        place = plugin.get("file") or " ".join(filter(None, (plugin.get("distribution"), plugin.get("version"))))
        rows.append((f"plugin {plugin['name']}", f"{place or 'a module'}, sha256 {plugin['sha256']}"))
    facts: dict[str, dict[str, int]] = {}
    for trial in sweep.distinct_trials:
        if trial.status == "finished":
            for key, value in trial.environment.items():
                if not isinstance(value, (dict, list)):
                    counts = facts.setdefault(key, {})
                    counts[plain_value(value)] = counts.get(plain_value(value), 0) + 1
    driver = meta.get("environment")
    facts_of_driver = driver.items() if isinstance(driver, Mapping) else ()
    own = {key: plain_value(value) for key, value in facts_of_driver if not isinstance(value, (dict, list))}
    for key in sorted({*own, *facts}):
        counts = facts.get(key, {})
        shown = ", ".join(f"{value} ({count} trials)" if len(counts) > 1 else value for value, count in counts.items())
        if len(counts) > 1:
            rows.append((f"{key} (trials)", f"mixed: {shown}"))
        elif counts and own.get(key, shown) != shown:
            rows += [(f"{key} (driver)", own[key]), (f"{key} (trials)", shown)]
        else:
            rows.append((key, shown or own[key]))
    return Section("Provenance", (Table(grid=Grid(("what", "value"), tuple(rows))),))


def _plan_line(meta: Mapping[str, Any]) -> str:
    current, first = meta.get("analysis_plan_hash"), meta.get("analysis_plan_first_hash")
    if current is None:
        return "not recorded"
    after = meta.get("analysis_plan_amended_after")
    if after is not None or (first is not None and first != current):
        count = f"after {after} trials" if after is not None else "after the first trial"
        return f"{current}, amended {count} (in force at the first trial: {first or 'not recorded'})"
    return f"{current}, declared before the first trial" if first == current else f"{current}, first hash not recorded"


def _trials(count: int) -> str:
    return f"{count} trial{'s' if count != 1 else ''}"


def every_run(summary: Summary) -> Section:
    """All trials with their final numbers and folders: one table per arm, then those of tuning and of search trials."""
    sweep = summary.sweep
    groups = [
        (arm, arm_anchor(sweep, arm), [t for t in sweep.trials if t.role == "replicate" and t.arm == arm])
        for arm in (sweep.arms if not sweep.is_search else ())
    ]
    groups += [
        (f"{role} trials", role_anchor(role), [t for t in sweep.trials if t.role == role])
        for role in ("tuning", "search")
    ]
    tables = [_runs(summary, title, anchor, trials) for title, anchor, trials in groups if trials]
    text = (
        "In report.html every number above links to the runs it came from. The folder trials/ holds each trial under "
        "its name."
    )
    return Section("Runs", (plain(text), *tables), ALL_RUNS)


def _runs(summary: Summary, title: str, anchor: str, trials: Sequence[TrialRecord]) -> Table:
    metrics = list(dict.fromkeys([summary.metric, *(found.metric for found in summary.comparisons)]))
    columns = ("arm", "seed", "state", *metrics, "FLOPs", "tokens", "wall time", "peak memory", "trial")
    rows, links = [], []
    for trial in trials:
        rows.append(
            (
                trial.arm,
                str(trial.seed),
                trial.status,
                *(format_metric(name, trial.metrics.get(name)) for name in metrics),
                format_count(trial.metrics.get("flops/total")),
                format_count(trial.metrics.get("tokens/total")),
                format_seconds(summary.sweep.seconds.get(trial.trial_id)),
                format_bytes(trial.metrics.get("memory/peak_bytes")),
                trial.trial_id,
            )
        )
        links.append((None,) * (len(columns) - 1) + (f"../trials/{trial.trial_id}/",))
    measured = tuple(range(3, 7 + len(metrics)))
    return Table(
        grid=Grid(columns, tuple(rows), title, numeric=(1, *measured)),
        links=tuple(links),
        anchor=anchor,
        row_anchors=tuple(run_anchor(trial.trial_id, trial.arm) for trial in trials),
    )
