"""The journal of a sweep, write side: the one truth about its trials, kept by the driver alone.

One SQLite file in WAL mode (`core.records.JOURNAL_SCHEMA`); `core.records` reads it, also while it is written. Every
method is one transaction, so a killed driver leaves whole steps behind. The end of a trial survives a power cut
(synchronous FULL); everything else survives a killed process. A trial's attempts are numbered, and reports of a
superseded attempt are dropped. The journal does not decide anything (what to run, when to try again): the driver does,
and `core.ownership.SweepLock` ensures that there is one driver.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stackwise_ray.core.errors import StaleAttemptError
from stackwise_ray.core.records import FINAL, MetricRecord, Status, TrialRecord, read_trials
from stackwise_ray.tracking.journal_file import JournalFile, dump

_LARGEST_INTEGER = 2**63 - 1


class Journal(JournalFile):
    """The one writer of a `journal.sqlite`: trials, attempts, reports, decisions, each method one transaction."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.dropped_reports = 0  # reports of superseded attempts since opening

    # ------------------------------------------------------------------------------------------------- trials

    def add_trial(self, trial: TrialRecord) -> bool:
        """Enters a trial; True where it is new, False where its `trial_id` is known (nothing is changed then).

        The record's `attempts`, `metrics`, `environment` and `ended_at` are ignored: the attempts bring them.
        """
        with self._transaction(durable=False) as connection:  # lost with the power it is proposed again, the same
            cursor = connection.execute(
                "INSERT INTO trials (trial_id, number, arm, seed, role, config, parameters, status, reason, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (trial_id) DO NOTHING",
                (
                    trial.trial_id,
                    trial.number,
                    trial.arm,
                    trial.seed,
                    trial.role,
                    dump(trial.config),
                    dump(trial.parameters),
                    trial.status,
                    trial.reason,
                    trial.created_at or time.time(),
                ),
            )
            return cursor.rowcount == 1

    def next_number(self) -> int:
        """The number for the next new trial: one more than the largest so far, 0 in an empty journal."""
        with self._lock:
            return int(self._connection.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM trials").fetchone()[0])

    def trials(self) -> list[TrialRecord]:
        """All trials in the order of their numbers."""
        with self._lock:
            return read_trials(self._connection)

    def trial(self, trial_id: str) -> TrialRecord | None:
        """One trial, or None where there is none of this id."""
        with self._lock:
            found = read_trials(self._connection, trial_id)
        return found[0] if found else None

    def reset(self, trial_id: str) -> bool:
        """Makes a failed trial pending again (`--retry-failed`); False where it has not failed."""
        with self._transaction() as connection:
            cursor = connection.execute(
                "UPDATE trials SET status = 'pending', reason = NULL, ended_at = NULL"
                " WHERE trial_id = ? AND status = 'failed'",
                (trial_id,),
            )
            return cursor.rowcount == 1

    # ----------------------------------------------------------------------------------------------- attempts

    def start_attempt(self, trial_id: str, resumed_from_step: int | None = None) -> int:
        """Begins the next attempt and returns its number, from 1; an attempt still open is closed as interrupted.

        Args:
            resumed_from_step: Optimizer steps of the checkpoint that the attempt goes on from, if that is known.

        Raises:
            ValueError: There is no such trial, or it has ended for good (a failed one needs `reset` first).
        """
        now = time.time()
        with self._transaction(durable=False) as connection:  # lost with the power: so is the process that it names
            row = connection.execute("SELECT status FROM trials WHERE trial_id = ?", (trial_id,)).fetchone()
            if row is None:
                raise ValueError(f"trial {trial_id} is not in the journal {self.path}")
            if row["status"] in FINAL:
                raise ValueError(f"trial {trial_id} is {row['status']}: it cannot start another attempt")
            number = self._current_attempt(trial_id) + 1
            self._close_open_attempts(f"superseded by attempt {number}", now, trial_id)
            connection.execute(
                "INSERT INTO attempts (trial_id, attempt, started_at, resumed_from_step) VALUES (?, ?, ?, ?)",
                (trial_id, number, now, resumed_from_step),
            )
            connection.execute(
                "UPDATE trials SET status = 'running', reason = NULL, ended_at = NULL WHERE trial_id = ?", (trial_id,)
            )
            return number

    def add_reports(self, reports: Sequence[MetricRecord]) -> int:
        """Appends reports in one transaction and returns how many were taken.

        Those of an attempt that is no longer the trial's last are left out and counted in `dropped_reports`.

        Raises:
            ValueError: A value is not finite (the message names metric and step), or the trial or attempt is
                unknown; then none of the reports is taken.
        """
        for report in reports:
            _refuse_non_finite(report.metrics, f"trial {report.trial_id}, step {report.step}")
        with self._transaction(durable=False) as connection:
            current = {trial_id: self._current_attempt(trial_id) for trial_id in {r.trial_id for r in reports}}
            for report in reports:
                if not 1 <= report.attempt <= current[report.trial_id]:
                    raise ValueError(f"attempt {report.attempt} of trial {report.trial_id} was never started")
            taken = [report for report in reports if report.attempt == current[report.trial_id]]
            connection.executemany(
                "INSERT INTO reports (trial_id, attempt, step, tokens, flops, time, metrics)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        r.trial_id,
                        r.attempt,
                        r.step,
                        r.tokens,
                        r.flops if r.flops <= _LARGEST_INTEGER else float(r.flops),  # exact in metrics as flops/total
                        r.time,
                        dump(r.metrics),
                    )
                    for r in taken
                ],
            )
        self.dropped_reports += len(reports) - len(taken)
        return len(taken)

    def finish(self, trial_id: str, attempt: int, metrics: Mapping[str, float], environment: Mapping[str, Any]) -> bool:
        """Ends a trial with its final metrics; False if this attempt had already ended (the first end counts).

        An attempt that was closed as interrupted may still be finished, failed or stopped while none has followed:
        its result came late.

        Raises:
            StaleAttemptError: A later attempt has begun.
            ValueError: A metric is not finite, or the attempt was never started.
        """
        return self._end(trial_id, attempt, "finished", metrics=metrics, environment=environment)

    def fail(self, trial_id: str, attempt: int, reason: str, environment: Mapping[str, Any] | None = None) -> bool:
        """Ends a trial that failed by its own doing; returns and raises like `finish`.

        Its only final metric is ``flops/total``, the training FLOPs that it had reported: they were spent.
        """
        with self._lock:
            row = self._connection.execute("SELECT max(flops) FROM reports WHERE trial_id = ?", (trial_id,)).fetchone()
        metrics = {"flops/total": row[0]} if row[0] else {}
        return self._end(trial_id, attempt, "failed", reason=reason, metrics=metrics, environment=environment)

    def stop(
        self,
        trial_id: str,
        attempt: int,
        metrics: Mapping[str, float],
        environment: Mapping[str, Any] | None = None,
        reason: str | None = None,
    ) -> bool:
        """Ends a trial that a scheduler cut short, with its metrics so far; returns and raises like `finish`."""
        return self._end(trial_id, attempt, "stopped", reason=reason, metrics=metrics, environment=environment)

    def interrupt(self, trial_id: str, attempt: int, reason: str) -> bool:
        """Closes an attempt that was killed or met a full disk; the trial continues later. Like `finish` otherwise."""
        return self._end(trial_id, attempt, "interrupted", reason=reason)

    def interrupt_dangling(self, reason: str) -> tuple[str, ...]:
        """Closes every open attempt as interrupted, and returns the ids of their trials.

        The driver calls it right after it has taken the sweep's lock: any attempt that is open then belongs to a dead
        driver.
        """
        with self._transaction() as connection:
            rows = connection.execute("SELECT trial_id FROM trials WHERE status = 'running' ORDER BY number").fetchall()
            self._close_open_attempts(reason, time.time())
            connection.execute(
                "UPDATE trials SET status = 'interrupted', reason = ? WHERE status = 'running'", (reason,)
            )
        return tuple(row["trial_id"] for row in rows)

    # --------------------------------------------------------------------------------------------- decisions

    def put_decision(self, kind: str, key: str, payload: Any, *, replace: bool = False) -> bool:
        """Stores what a searcher or a tuning stage settled; True where it is new or was replaced.

        Raises:
            ValueError: The journal has another payload for this kind and key, and `replace` is not set.
        """
        text = dump(payload)
        with self._transaction() as connection:
            row = connection.execute("SELECT payload FROM decisions WHERE kind = ? AND key = ?", (kind, key)).fetchone()
            if row is not None and row["payload"] == text:
                return False
            if row is not None and not replace:
                raise ValueError(f"decision {kind}/{key} is {row['payload']} in the journal and cannot become {text}")
            connection.execute(
                "INSERT INTO decisions (kind, key, payload, time) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (kind, key) DO UPDATE SET payload = excluded.payload, time = excluded.time",
                (kind, key, text, time.time()),
            )
            return True

    def decisions(self, kind: str) -> dict[str, Any]:
        """All payloads of one kind by key, in the order in which the keys were first written."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT key, payload FROM decisions WHERE kind = ? ORDER BY id", (kind,)
            ).fetchall()
        return {row["key"]: json.loads(row["payload"]) for row in rows}

    # ------------------------------------------------------------------------------------------------ private

    def _current_attempt(self, trial_id: str) -> int:
        row = self._connection.execute(
            "SELECT COALESCE(MAX(attempt), 0) FROM attempts WHERE trial_id = ?", (trial_id,)
        ).fetchone()
        return int(row[0])

    def _close_open_attempts(self, reason: str, now: float, trial_id: str | None = None) -> None:
        self._connection.execute(
            "UPDATE attempts SET ended_at = ?, outcome = 'interrupted', reason = ?"
            " WHERE outcome IS NULL AND (? IS NULL OR trial_id = ?)",
            (now, reason, trial_id, trial_id),
        )

    def _end(
        self,
        trial_id: str,
        attempt: int,
        outcome: Literal["finished", "failed", "stopped", "interrupted"],
        *,
        reason: str | None = None,
        metrics: Mapping[str, float] | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> bool:
        metrics = metrics or {}
        _refuse_non_finite(metrics, f"trial {trial_id}, final metrics")
        now = time.time()
        with self._transaction() as connection:
            current = self._current_attempt(trial_id)
            if not 1 <= attempt <= current:
                raise ValueError(f"attempt {attempt} of trial {trial_id} was never started")
            if attempt < current:
                raise StaleAttemptError(f"attempt {attempt} of trial {trial_id} was superseded by attempt {current}")
            row = connection.execute(
                "SELECT outcome FROM attempts WHERE trial_id = ? AND attempt = ?", (trial_id, attempt)
            ).fetchone()
            if row["outcome"] in FINAL or (row["outcome"] == outcome == "interrupted"):
                return False
            connection.execute(
                "UPDATE attempts SET ended_at = ?, outcome = ?, reason = ? WHERE trial_id = ? AND attempt = ?",
                (now, outcome, reason, trial_id, attempt),
            )
            status: Status = outcome
            connection.execute(
                "UPDATE trials SET status = ?, reason = ?, metrics = ?, environment = ?, ended_at = ?"
                " WHERE trial_id = ?",
                (
                    status,
                    reason,
                    dump(metrics),
                    dump(environment or {}),
                    now if outcome in FINAL else None,
                    trial_id,
                ),
            )
            return True


def _refuse_non_finite(metrics: Mapping[str, float], where: str) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"{where}: {name} = {value} is not finite and cannot be recorded")
