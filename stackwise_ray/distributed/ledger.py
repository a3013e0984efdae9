"""The driver's book of a running sweep: which trial is next, which attempt runs where, how each one ended.

It is between a `TrialSource` (what should run), the journal (what is known) and Tune (what runs now): Tune's
searcher asks it for work and Tune's callbacks report what came back. Trials that the journal holds as final are
answered from it and never started; the rest gets a new attempt number.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from stackwise_ray.config.trial import DataConfig
from stackwise_ray.config.trial.editing import to_plain
from stackwise_ray.core.atomic import atomic_write_text
from stackwise_ray.core.errors import DiskFullError
from stackwise_ray.core.plugins import to_workers
from stackwise_ray.core.records import FINAL, Role, TrialRecord
from stackwise_ray.distributed.messages import (
    Assignment,
    DeviceLost,
    DiskFull,
    Failed,
    Finished,
    Interrupted,
    Outcome,
    Report,
    RunSettings,
    Superseded,
    WorkersLost,
)
from stackwise_ray.tracking.journal import Journal
from stackwise_ray.training.initial import identify, initial_fingerprint
from stackwise_ray.trials.sources import Proposal, TrialSource

MOST_DEATHS = 3
"""A trial fails if its worker dies this often without one step of progress: the trial itself is then the cause."""


@dataclass(kw_only=True)
class Attempt:
    """One attempt of one trial, from its start to its end."""

    proposal: Proposal
    trial_id: str
    number: int
    began: float = field(default_factory=time.monotonic)
    last_heartbeat: float = field(default_factory=time.monotonic)
    latest: dict[str, float] = field(default_factory=dict)
    place: int = 0  # in the order in which the sweep's trials were first started
    step: int = 0
    first_step: tuple[float, float] | None = None  # time.monotonic() and FLOPs when the first step was reported
    doing: str | None = None  # what it has begun and measures nothing in
    pid: int | None = None  # of the worker's process, once it has reported
    seen: int = -1  # last Tune iteration that was booked
    over: bool = False

    @property
    def state(self) -> str:
        """What it does now: "starting" until its first step, what it says of itself, or "running"."""
        return self.doing or ("running" if self.step else "starting")


class Ledger:
    """The state of a running sweep, as the module describes it. Every method may be called from any thread.

    Args:
        fingerprints: Data fingerprint of a trial's data; part of its identity.

    Attributes:
        watcher: Called after every change (for a tracker).
    """

    def __init__(
        self,
        journal: Journal,
        source: TrialSource,
        settings: RunSettings,
        fingerprints: Callable[[DataConfig], str],
    ) -> None:
        self.journal, self.source, self.settings = journal, source, settings
        self._fingerprints = fingerprints
        self.watcher: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._retry: deque[Proposal] = deque()
        self._twins: dict[str, list[Proposal]] = {}
        self._deaths: dict[str, tuple[int, int]] = {}  # trial_id -> (deaths without progress, step reached)
        self._hangs: Counter[str] = Counter()
        self._proposed: dict[str, TrialRecord] = {}
        self.running: dict[str, Attempt] = {}  # by Tune's id
        self.trial_set: dict[tuple[str, str, Role], dict[str, Any]] = {}
        self.planned: Callable[[Proposal], Mapping[str, float | None]] = lambda proposal: {}  # `PlanRow.predicted`
        self.known = 0  # trials answered from the journal
        self.halted: str | None = None
        self.first_report: float | None = None  # time.monotonic() at which a trial first reported
        self.deadline: float | None = None  # time.monotonic() at which limits.wall_hours is used up

    # -------------------------------------------------------------------------------------------------- giving out

    def next(self, tune_id: str) -> Assignment | None:
        """The next attempt, which Tune will run under this id; None: nothing now (see `finished`)."""
        with self._lock:
            while not self.halted and not self._out_of_time():
                proposal = self._retry.popleft() if self._retry else self.source.propose()
                if proposal is None:
                    return None
                attempt = self._start(proposal)
                if attempt is not None:
                    self.running[tune_id] = attempt
                    self._changed()
                    return self._assignment(attempt)
            return None

    def anything_to_run(self) -> bool:
        """Whether a trial is left that has not ended. It takes proposals up to that trial, and starts nothing."""
        with self._lock:
            while not self.halted:
                proposal = self._retry.popleft() if self._retry else self.source.propose()
                if proposal is None:
                    return False
                if not self._answered(proposal):
                    self._retry.appendleft(proposal)
                    return True
            return False

    @property
    def finished(self) -> bool:
        """Whether `next` has no more attempts to give."""
        with self._lock:
            if self.halted:
                return True
            return self.source.exhausted and not self._retry and not self.running

    def _answered(self, proposal: Proposal) -> bool:
        """Whether this trial has ended, by the journal; if so, the source is told."""
        trial_id = identify(proposal.trial, self._fingerprints(proposal.trial.data))
        known = self.journal.trial(trial_id)
        if known is None or known.status not in FINAL:
            return False
        self.known += trial_id not in self._proposed
        self._proposed[trial_id] = known
        self._enter(proposal, trial_id)
        self.source.ended(proposal, known)
        return True

    def _start(self, proposal: Proposal) -> Attempt | None:
        if self._answered(proposal):
            return None
        fingerprint = self._fingerprints(proposal.trial.data)
        trial_id = identify(proposal.trial, fingerprint)
        known = self.journal.trial(trial_id)
        self._enter(proposal, trial_id)
        if any(attempt.trial_id == trial_id for attempt in self.running.values()):
            self._twins.setdefault(trial_id, []).append(proposal)  # drawn twice: answered when that attempt ends
            return None
        if known is None:
            if self._over_flops(proposal):
                return None
            known = self._record(proposal, trial_id, fingerprint)
            if predicted := self.planned(proposal):  # later plans have learned from this trial, so none replaces it
                self.journal.put_decision("prediction", trial_id, dict(predicted), replace=True)
            self.journal.add_trial(known)
        self._proposed[trial_id] = known
        number = self.journal.start_attempt(trial_id)
        folder = self.settings.directory / "trials" / trial_id
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(folder / "attempt", str(number))  # a worker checks it before each rename
        return Attempt(proposal=proposal, trial_id=trial_id, number=number, place=known.number)

    def _enter(self, proposal: Proposal, trial_id: str) -> None:
        """Note that this trial belongs to the sweep as it is now (one trial may belong to two arms)."""
        self.trial_set[trial_id, proposal.arm, proposal.role] = {
            "trial_id": trial_id,
            "arm": proposal.arm,
            "seed": proposal.seed,
            "role": proposal.role,
            "parameters": dict(proposal.parameters),
        }

    def _record(self, proposal: Proposal, trial_id: str, fingerprint: str) -> TrialRecord:
        return TrialRecord(
            trial_id=trial_id,
            number=self.journal.next_number(),
            arm=proposal.arm,
            seed=proposal.seed,
            role=proposal.role,
            config=to_plain(proposal.trial),
            parameters=proposal.parameters,
            environment={"data_fingerprint": fingerprint},
            created_at=time.time(),
        )

    def _out_of_time(self) -> bool:
        if self.deadline is None or time.monotonic() < self.deadline - 1:  # Tune ends trials within a second
            return False
        self.halted = self.halted or "limits.wall_hours is used up"
        return True

    def _over_flops(self, proposal: Proposal) -> bool:
        """Whether this trial would go beyond `limits.flops`; those that run count as what they were planned to cost."""
        if self.settings.max_flops is None:
            return False
        running = (
            max(attempt.latest.get("flops/total", 0), self._planned_flops(attempt.proposal))
            for attempt in self.running.values()
        )
        ended = (record.metrics.get("flops/total", 0) for record in self._proposed.values())
        if sum(ended) + sum(running) + (self._planned_flops(proposal) or 1) <= self.settings.max_flops:
            return False
        self.halted = f"limits.flops = {self.settings.max_flops:g} leaves no room for another trial"
        return True

    def _planned_flops(self, proposal: Proposal) -> float:
        return self.planned(proposal).get("flops") or 0

    def _assignment(self, attempt: Attempt) -> Assignment:
        proposal = attempt.proposal
        return Assignment(
            settings=self.settings,
            trial_id=attempt.trial_id,
            attempt=attempt.number,
            trial=to_plain(proposal.trial),
            data_fingerprint=self._fingerprints(proposal.trial.data),
            weights_fingerprint=initial_fingerprint(proposal.trial),
            keep_model=self.settings.keep_models and proposal.role != "tuning",
            final_evaluation=proposal.role == "replicate",
            may_be_stopped=proposal.role == "search",
            plugins=tuple(to_workers()),
        )

    # ------------------------------------------------------------------------------------------------ taking back

    def result(self, tune_id: str, iteration: int, report: Report) -> None:
        """Book what an attempt reported; the same iteration reported twice is booked once."""
        with self._lock:
            attempt = self.running.get(tune_id)
            if attempt is None or iteration <= attempt.seen:
                return
            attempt.seen, attempt.last_heartbeat, attempt.pid = iteration, time.monotonic(), report.pid
            try:
                self.journal.add_reports(report.records)
                for record in report.records:
                    attempt.latest.update(record.metrics)
                    attempt.latest.update({"flops/total": record.flops, "tokens/total": record.tokens})
                    attempt.step, attempt.doing = record.step, record.doing
                    if attempt.first_step is None and record.step:
                        attempt.first_step = (time.monotonic(), record.flops)
                if self.first_report is None and any(record.step for record in report.records):
                    self.first_report = time.monotonic()
                if report.outcome is not None:
                    self._end(tune_id, attempt, report.outcome)
            except DiskFullError as error:
                self.halted = str(error)
                attempt.over = True  # whatever it reached is not booked: it continues from its checkpoint
                self.running.pop(tune_id, None)
            self._changed()

    def stopped(self, tune_id: str) -> None:
        """Tune ended the attempt: a scheduler stopped the trial, or the sweep's time is up."""
        with self._lock:
            attempt = self.running.pop(tune_id, None)
            if attempt is None or attempt.over:
                return
            if attempt.proposal.role != "search" or self._out_of_time():
                self.journal.interrupt(attempt.trial_id, attempt.number, self.halted or "ended before its budget")
            else:
                self.journal.stop(
                    attempt.trial_id, attempt.number, attempt.latest, reason="stopped early by the scheduler"
                )
                self._notify_source(attempt)
            self._changed()

    def died(self, tune_id: str, message: str) -> None:
        """The worker process of an attempt is gone: the trial continues in a new attempt, unless it keeps dying."""
        with self._lock:
            attempt = self.running.pop(tune_id, None)
            if attempt is None or attempt.over:
                return
            self._retry_or_fail(attempt, message)
            self._changed()

    def hung_processes(self, margin_s: float = 30.0) -> list[int]:
        """Ids of processes that should have ended themselves long ago and did not (stopped from outside, say)."""
        with self._lock:
            now, settings = time.monotonic(), self.settings
            silence = settings.heartbeat_timeout_s + margin_s
            longest = margin_s + (float("inf") if settings.attempt_timeout_s is None else settings.attempt_timeout_s)
            return [
                attempt.pid
                for attempt in self.running.values()
                if attempt.pid is not None and (now - attempt.last_heartbeat > silence or now - attempt.began > longest)
            ]

    def interrupt_all(self, reason: str) -> None:
        """Ends the sweep: running trials are marked as interrupted, and the next call of the command continues them."""
        with self._lock:
            self.halted = self.halted or reason
            for attempt in self.running.values():
                with contextlib.suppress(DiskFullError):  # then the next command closes the attempt
                    self.journal.interrupt(attempt.trial_id, attempt.number, reason)
            self.running.clear()

    def _end(self, tune_id: str, attempt: Attempt, outcome: Outcome) -> None:
        attempt.over = True
        self.running.pop(tune_id)
        match outcome:
            case Finished(metrics=metrics, environment=measured):
                environment = {"data_fingerprint": self._fingerprints(attempt.proposal.trial.data), **measured}
                self.journal.finish(attempt.trial_id, attempt.number, metrics, environment)
                self._notify_source(attempt)
            case Failed(reason=reason):
                self._fail(attempt, reason)
            case WorkersLost(reason=reason) | DeviceLost(reason=reason):
                self._retry_or_fail(attempt, reason)
            case DiskFull(reason=reason) | Superseded(reason=reason) | Interrupted(reason=reason):
                self.journal.interrupt(attempt.trial_id, attempt.number, reason)
                self.halted = reason
            case _:
                assert_never(outcome)

    def _retry_or_fail(self, attempt: Attempt, message: str) -> None:
        trial_id = attempt.trial_id
        hung = self._hung(attempt)
        deaths, reached = self._deaths.get(trial_id, (0, -1))
        deaths = 1 if attempt.step > reached else deaths + 1
        self._deaths[trial_id] = (deaths, max(reached, attempt.step))
        self._hangs[trial_id] += hung is not None
        if hung is not None and self._hangs[trial_id] > 1:
            self._fail(attempt, f"{hung}, twice")
        elif deaths >= MOST_DEATHS:
            self._fail(attempt, f"its worker died {deaths} times at step {attempt.step}: {message}")
        else:
            self.journal.interrupt(trial_id, attempt.number, hung or f"worker died: {message}")
            self._retry.append(attempt.proposal)

    def _hung(self, attempt: Attempt) -> str | None:
        """Why the worker ended itself, where it was for one of the two limits."""
        now, settings = time.monotonic(), self.settings
        if settings.attempt_timeout_s is not None and now - attempt.began > settings.attempt_timeout_s:
            return f"took longer than limits.trial_minutes = {settings.attempt_timeout_s / 60:g}"
        if now - attempt.last_heartbeat > settings.heartbeat_timeout_s:
            return f"silent for more than {settings.heartbeat_timeout_s:g} s"
        return None

    def _fail(self, attempt: Attempt, reason: str) -> None:
        environment = {"data_fingerprint": self._fingerprints(attempt.proposal.trial.data)}
        self.journal.fail(attempt.trial_id, attempt.number, reason, environment)
        self._notify_source(attempt)

    def _notify_source(self, attempt: Attempt) -> None:
        record = self.journal.trial(attempt.trial_id)
        assert record is not None, attempt.trial_id
        self._proposed[attempt.trial_id] = record
        for proposal in [attempt.proposal, *self._twins.pop(attempt.trial_id, [])]:
            self.source.ended(proposal, record)

    def _changed(self) -> None:
        self.watcher()

    # ------------------------------------------------------------------------------------------------- looking in

    def records(self) -> list[TrialRecord]:
        """Every trial of this command so far, as it ended or as it was proposed."""
        with self._lock:
            return list(self._proposed.values())
