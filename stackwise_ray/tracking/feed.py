"""The journal as trackers read it: points, states and settings in the form in which a tracking store takes them.

Used by the trackers alone, each from its own thread. It only reads, and does not depend on MLflow. It decides what is
delivered, in which order and with which timestamps. So every tracker shows the same, and sends the same bytes again
after a crash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackwise_ray.core.records import (
    MetricRecord,
    Status,
    TrialRecord,
    open_journal,
    read_meta,
    read_reports,
    read_trials,
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric: `step` counts optimizer steps, `time_ms` is Unix time of the measurement."""

    name: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """The part of a trial that changes. A state that equals the delivered one is not delivered again."""

    status: Status
    attempts: int

    def __str__(self) -> str:
        return f"{self.status} {self.attempts}"


class JournalFeed:
    """Reads one journal. Make and use it in one thread, because its SQLite connection belongs to that thread."""

    def __init__(self, path: str | Path) -> None:
        self._connection = open_journal(path)

    def meta(self) -> dict[str, Any]:
        """The journal's facts about its sweep."""
        return read_meta(self._connection)

    def states(self) -> dict[str, TrialState]:
        """The state of every trial that has begun, by trial id, in the order of their numbers."""
        rows = self._connection.execute(
            "SELECT t.trial_id, t.status, MAX(a.attempt) AS attempts FROM trials t JOIN attempts a USING (trial_id)"
            " GROUP BY t.trial_id ORDER BY t.number"
        ).fetchall()
        return {row["trial_id"]: TrialState(status=row["status"], attempts=row["attempts"]) for row in rows}

    def trial(self, trial_id: str) -> TrialRecord:
        """One trial; raises `KeyError` where there is none."""
        found = read_trials(self._connection, trial_id)
        if not found:
            raise KeyError(trial_id)
        return found[0]

    def started_ms(self, trial_id: str) -> int:
        """Unix time in milliseconds at which the trial's first attempt began."""
        row = self._connection.execute(
            "SELECT MIN(started_at) FROM attempts WHERE trial_id = ?", (trial_id,)
        ).fetchone()
        return round(float(row[0]) * 1000)

    def reports(self, *, after: int, limit: int) -> list[tuple[int, MetricRecord]]:
        """At most `limit` reports of all trials with their row ids, beginning after row `after`."""
        return list(read_reports(self._connection, after=after, limit=limit))

    def reports_of(self, trial_id: str, *, until: int) -> Iterator[tuple[int, MetricRecord]]:
        """The reports of one trial up to and with row `until`."""
        return (pair for pair in list(read_reports(self._connection, trial_id)) if pair[0] <= until)

    def last_row(self) -> int:
        """The row id of the newest report, 0 where there is none."""
        return int(self._connection.execute("SELECT COALESCE(MAX(id), 0) FROM reports").fetchone()[0])

    def count_after(self, row: int) -> int:
        """Number of reports after row `row`."""
        return int(self._connection.execute("SELECT COUNT(*) FROM reports WHERE id > ?", (row,)).fetchone()[0])

    def points(self, row: int, record: MetricRecord) -> list[Point]:
        """What a report adds: its metrics, and tokens and FLOPs as further axes.

        A continued attempt repeats steps that an earlier one had reported; of those only values that differ are new.
        """
        values = _values(record)
        if record.attempt > 1:
            known = self._reported(record.trial_id, record.step, before=row)
            values = {name: value for name, value in values.items() if known.get(name) != value}
        time_ms = round(record.time * 1000)
        return [Point(name=name, value=value, step=record.step, time_ms=time_ms) for name, value in values.items()]

    def final_points(self, trial: TrialRecord) -> list[Point]:
        """What the end of a trial adds: final metrics that its last report did not have."""
        row = self._connection.execute("SELECT MAX(step) FROM reports WHERE trial_id = ?", (trial.trial_id,)).fetchone()
        step = row[0] or 0
        known = self._reported(trial.trial_id, step)
        time_ms = round((trial.ended_at or trial.created_at) * 1000)
        return [
            Point(name=name, value=value, step=step, time_ms=time_ms)
            for name, value in trial.metrics.items()
            if known.get(name) != value
        ]

    def close(self) -> None:
        """Lets go of the journal."""
        self._connection.close()

    def _reported(self, trial_id: str, step: int, *, before: int = 2**62) -> dict[str, float]:
        """What the reports of one step say, the later over the earlier."""
        rows = self._connection.execute(
            "SELECT tokens, flops, metrics FROM reports WHERE trial_id = ? AND step = ? AND id < ? ORDER BY id",
            (trial_id, step, before),
        ).fetchall()
        known: dict[str, float] = {}
        for row in rows:
            known |= {"tokens/total": row["tokens"], "flops/total": row["flops"], **json.loads(row["metrics"])}
        return known


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted paths and text; lists and empty mappings as JSON, as a settings table shows them.

    >>> flatten({"model": {"d_model": 64, "mixer": None}, "flags": ["a"]})
    {'model.d_model': '64', 'model.mixer': 'None', 'flags': '["a"]'}
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, (list, tuple, dict)) else str(value)
    return flat


def settings(trial: TrialRecord) -> dict[str, str]:
    """A trial's parameters in a tracking store: its arm, an axis of every comparison, and its configuration."""
    return {"arm": trial.arm, **flatten(trial.config)}


def run_name(trial: TrialRecord) -> str:
    """How a trial is called in lists: arm/seed, or arm, role and number where it is no replicate (the seed of tuning
    is a drawn one of 19 digits, which would push the rest out of the column).

    >>> run_name(TrialRecord(trial_id="x", number=4, arm="gpt2", seed=1, role="replicate", config={}))
    'gpt2/1'
    """
    if trial.role == "replicate":
        return f"{trial.arm}/{trial.seed}"
    return f"{trial.arm} {trial.role} {trial.number}"


def _values(record: MetricRecord) -> dict[str, float]:
    """The loss leads: MLflow's parallel coordinates start with the metric that a run got first, and tokens are the
    same for all."""
    loss = {name: value for name, value in record.metrics.items() if name == "train/loss"}
    return {**loss, "tokens/total": record.tokens, "flops/total": record.flops, **record.metrics}
